// A hub and a network in memory for the tests of the feed: the hub counts, and the network lets through what it is told to.

import type { Socket, Transport, World } from '../transport';

/** How the network treats a transport. */
export type Way =
  | 'open'
  /** The connection is refused, or cut before anything comes. */
  | 'cut'
  /** It never comes about. */
  | 'hangs'
  /** It comes about, and nothing arrives over it. */
  | 'mute'
  /** Something answers with this status; with a reason it is the hub itself. */
  | { status: number; reason?: string; retry?: number };

interface Subscribed {
  devices?: string[];
  mode?: string;
  after?: string;
}

/** One viewer of the hub, whatever it is connected by. */
interface Viewer {
  sub: Subscribed;
  transport: Transport;
  send(frame: object): void;
  end(code: number, reason: string): void;
}

const later = (f: () => void) => void Promise.resolve().then(f);

export class MiniHub {
  readonly ways: Record<Transport, Way> = { websocket: 'open', sse: 'open', poll: 'open' };
  /** What was asked of the network, in order. */
  readonly log: string[] = [];
  /** Every subscription that the hub has taken. */
  readonly taken: Subscribed[] = [];
  /** Whether a WebSocket still answers what it is sent. */
  answers = true;
  epoch = 'e';
  private last = 0;
  private viewers: Viewer[] = [];
  readonly sockets: FakeSocket[] = [];

  get world(): Pick<World, 'socket' | 'fetch'> {
    return {
      socket: (_, headers) => {
        this.log.push('websocket');
        const s = new FakeSocket(this, headers);
        this.sockets.push(s);
        return s;
      },
      fetch: ((url: URL, init: RequestInit) => this.fetch(url, init)) as typeof globalThis.fetch,
    };
  }

  /** Stores the next reading, and tells whoever listens. */
  count(): void {
    this.last++;
    for (const v of [...this.viewers]) if (!isNothing(v.sub)) v.send(this.readings(this.last - 1));
  }

  connected(): Transport[] {
    return this.viewers.filter((v) => !isNothing(v.sub)).map((v) => v.transport);
  }

  /** Sends something else to whoever listens. */
  say(frame: object): void {
    for (const v of [...this.viewers]) v.send(frame);
  }

  /** Ends every connection; code 0 cuts them. */
  end(code: number, reason = ''): void {
    for (const v of this.viewers.splice(0)) v.end(code, reason);
  }

  leave(viewer: Viewer): void {
    this.viewers = this.viewers.filter((v) => v !== viewer);
  }

  /** Takes a subscription, and sends what comes first. */
  take(viewer: Viewer, greet: boolean): 'fine' | 'unknown' {
    const { sub } = viewer;
    this.taken.push(sub);
    const [epoch, place] = (sub.after ?? '').split('-');
    if (sub.after !== undefined && epoch !== this.epoch) return 'unknown';
    if (greet) viewer.send({ type: 'welcome', text: 'web Socket Works', version: '1', started: 1 });
    if (!this.viewers.includes(viewer)) this.viewers.push(viewer);
    if (sub.after === undefined) {
      const devices = isNothing(sub) ? [] : [{ id: 'a', presence: 'live', metrics: { count: { t: 1, v: this.last } } }];
      viewer.send({ type: 'snapshot', now: 1, devices, token: this.token() });
    } else if (Number(place) < this.last) {
      viewer.send(this.readings(Number(place)));
    }
    return 'fine';
  }

  private token(): string {
    return `${this.epoch}-${this.last}`;
  }

  private readings(after: number): object {
    const readings = Array.from({ length: this.last - after }, (_, i) => ['a', 'count', 1, after + i + 1]);
    return { type: 'readings', token: this.token(), readings };
  }

  private async fetch(url: URL, init: RequestInit): Promise<Response> {
    const transport = url.pathname.endsWith('/sse') ? 'sse' : 'poll';
    const query = Object.fromEntries(url.searchParams);
    this.log.push(transport === 'poll' ? `poll ${query.wait}` : 'sse');
    const way = this.ways[transport];
    if (typeof way === 'object') {
      const headers: Record<string, string> = way.retry === undefined ? {} : { 'Retry-After': `${way.retry}` };
      if (way.reason === undefined) return new Response('<html>', { status: way.status, headers });
      headers['Content-Type'] = 'application/problem+json';
      return new Response(JSON.stringify({ detail: way.reason }), { status: way.status, headers });
    }
    if (way === 'cut') throw new TypeError('fetch failed');
    if (way === 'hangs' || (way === 'mute' && transport === 'poll'))
      return await new Promise((_, no) => onAbort(init, no));
    const sub: Subscribed = { ...query, devices: query.devices?.split(',') ?? [] };
    return transport === 'sse'
      ? this.stream(sub, init, way === 'mute')
      : await this.poll(sub, query.wait === '0s', init);
  }

  private stream(sub: Subscribed, init: RequestInit, mute: boolean): Response {
    const encoder = new TextEncoder();
    let out: ReadableStreamDefaultController<Uint8Array> | undefined;
    const body = new ReadableStream<Uint8Array>({
      start: (controller) => {
        out = controller;
      },
    });
    const write = (text: string) => {
      if (!mute) out?.enqueue(encoder.encode(text));
    };
    const viewer: Viewer = {
      sub,
      transport: 'sse',
      send: (frame) => write(`id: x\ndata: ${JSON.stringify(frame)}\n\n`),
      end: (code, reason) => {
        if (code > 0) write(`event: bye\ndata: ${JSON.stringify({ code, reason })}\n\n`);
        if (code > 0) out?.close();
        else out?.error(new TypeError('terminated'));
        out = undefined;
      },
    };
    onAbort(init, () => {
      this.leave(viewer);
      out?.error(new DOMException('aborted', 'AbortError'));
      out = undefined;
    });
    write('retry: 2000\n\n');
    if (this.take(viewer, true) === 'unknown') {
      write('event: reset\ndata: {"reason":"gone"}\n\n');
      viewer.sub = without(sub);
      this.take(viewer, true);
    }
    return new Response(body, { headers: { 'Content-Type': 'text/event-stream' } });
  }

  private poll(sub: Subscribed, now: boolean, init: RequestInit): Promise<Response> {
    return new Promise((resolve, reject) => {
      const frames: object[] = [];
      let reset = false;
      const answer = () => {
        this.leave(viewer);
        clearTimeout(timer);
        const token = frames.length > 0 || sub.after === undefined ? this.token() : sub.after;
        resolve(Response.json({ ...(reset ? { reset } : {}), frames, token }));
      };
      const viewer: Viewer = {
        sub,
        transport: 'poll',
        send: (frame) => {
          frames.push(frame);
          later(answer);
        },
        end: (code, detail) => {
          if (code === 0) reject(new TypeError('terminated'));
          const status = code === 4503 ? 401 : 503;
          const headers = { 'Content-Type': 'application/problem+json' };
          resolve(new Response(JSON.stringify({ detail }), { status, headers }));
        },
      };
      onAbort(init, (why) => {
        clearTimeout(timer);
        this.leave(viewer);
        reject(why);
      });
      const timer = setTimeout(answer, now ? 0 : 25_000);
      if (this.take(viewer, sub.after === undefined) === 'unknown') {
        reset = true;
        viewer.sub = without(sub);
        this.take(viewer, false);
      }
    });
  }
}

export class FakeSocket implements Socket {
  onopen: ((event: never) => void) | null = null;
  onmessage: ((event: never) => void) | null = null;
  onclose: ((event: never) => void) | null = null;
  onerror: ((event: never) => void) | null = null;
  closed = false;
  private known = false;
  private readonly viewer: Viewer;

  constructor(
    private readonly hub: MiniHub,
    readonly headers: Record<string, string>,
  ) {
    this.viewer = {
      sub: {},
      transport: 'websocket',
      send: (frame) => this.fire(this.onmessage, { data: JSON.stringify(frame) }),
      end: (code, reason) => this.fire(this.onclose, { code: code || 1006, reason }),
    };
    const way = hub.ways.websocket;
    later(() => {
      if (way === 'open' || way === 'mute') this.fire(this.onopen, {});
      else if (way !== 'hangs') this.fire(this.onclose, { code: 1006, reason: '' });
    });
  }

  send(text: string): void {
    if (this.hub.ways.websocket !== 'open' || !this.hub.answers) return;
    this.viewer.sub = (JSON.parse(text) as { subscribe: Subscribed }).subscribe;
    const greet = !this.known;
    this.known = true;
    later(() => {
      if (this.hub.take(this.viewer, greet) === 'unknown') this.viewer.end(4010, 'gone');
    });
  }

  close(): void {
    this.closed = true;
    this.hub.leave(this.viewer);
  }

  private fire(handler: ((event: never) => void) | null, event: object): void {
    later(() => {
      if (!this.closed) handler?.(event as never);
    });
  }
}

function isNothing(sub: Subscribed): boolean {
  return sub.devices?.[0] === '-';
}

function without(sub: Subscribed): Subscribed {
  const { after: _, ...rest } = sub;
  return rest;
}

function onAbort(init: RequestInit, then: (why: unknown) => void): void {
  init.signal?.addEventListener('abort', () => then(init.signal?.reason));
}
