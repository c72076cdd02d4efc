// The live feed of a hub, for browsers and for Node: it follows one subscription over the best transport that the network
// lets through, comes back for ever, resumes where it was, and knows when it is not to be trusted.
//
//	const feed = new Feed(address, { devices: ['greenhouse-*'], mode: 'all' }, {
//	  frame: (frame) => console.log(frame),
//	  status: (status) => console.log(status.phase),
//	}, { token });
//	feed.open();
//
// Over WebSocket, server-sent events and long polling come the same frames with the same tokens, so that it falls from one to
// the next, and climbs back, without a gap and without anything twice.

import type { Json } from '../frames/check';
import { decodeFrame, type Frame } from '../frames/live';
import { backoff } from './backoff';
import { opens, probe } from './probe';
import {
  broken,
  type End,
  type Link,
  nothing,
  type Socket,
  type Subscription,
  type Transport,
  transports,
  type World,
} from './transport';

export type { Subscription, Transport } from './transport';

/** What may be said about a feed. trueAt is when what it told was last known to be complete, 0 if it never was. */
export type FeedStatus = Phase & { trueAt: number };

type Phase =
  | { phase: 'connecting' }
  /** Frames arrive, and nothing is missing. */
  | { phase: 'live'; transport: Transport }
  /** The next attempt is at this time. */
  | { phase: 'waiting'; until: number }
  /** Somebody must act, and why. code is a close code from 4500 on, or the status 401, 403 or 422. It does not come back. */
  | { phase: 'denied'; code: number; reason: string }
  | { phase: 'closed' };

export interface FeedHandlers {
  frame(frame: Frame): void;
  status(status: FeedStatus): void;
  /** What was missed can not be had from the feed any more: a snapshot follows. */
  reset?(): void;
}

/** Every field may be left out. */
export interface FeedOptions {
  /** An API token, where no session cookie says who asks: in Node. */
  token?: string;
  /** Which transports may be used, best first. */
  transports?: readonly Transport[];
  /** Which of them to begin with, where it is known what passes. Better ones are tried later. */
  begin?: Transport;
  /** Makes a WebSocket. That of browsers, which can send no token, and that of Node from 22 on are found by themselves. */
  socket?: World['socket'];
  fetch?: typeof globalThis.fetch;
  /** How long after a fall a better transport is tried, in ms. None means half a minute; it doubles up to five minutes. */
  climb?: number;
  random?(): number;
}

/** A transport that brings nothing for so long does not work here. The last one is given more time. */
export const patience = 5000;
const lastPatience = 20_000;
/** After this long without a sign of life a connection is asked for one, or given up. The hub's comments come every 15 s. */
const quiet = 30_000;
const answerTimeout = 10_000;
/** Without a sign of life for so long, a connection is not trusted after a sleep. */
const missed = 16_000;
/** A connection that held so long is taken for a good one; three that did not are a reason to try another transport. */
const held = 10_000;
const mostBrief = 3;
/** A resumed subscription to which nothing comes for so long has nothing to catch up with. */
const settle = 250;
/** One that has worked is tried again that soon after a fall: the hub may just have come back. */
const soonClimb = 1000;
const firstClimb = 30_000;
const seldomClimb = 300_000;

/** What the hub says that is final, besides the close codes from firstFinal on. Proxies say the same without a reason. */
const final = [401, 403, 422];
const firstFinal = 4500;
const resumeTooFar = [4010, 410];

type Timer = ReturnType<typeof setTimeout>;

export class Feed {
  private readonly world: World;
  private readonly ladder: readonly Transport[];
  private readonly random: () => number;
  private readonly firstClimb: number;
  private status: FeedStatus = { phase: 'closed', trueAt: 0 };
  private token = '';
  private trueAt = 0;
  /** When the last sign of life came, and since when the connection is live. */
  private heardAt = 0;
  private liveSince = 0;

  private link: Link | undefined;
  /** Where the link is on the ladder, and where the next attempt begins: at what worked last. */
  private rung = 0;
  private level = 0;
  /** The best place where it has been live, until it fell from there for good or has tried in vain to come back soon. */
  private best = Number.POSITIVE_INFINITY;
  /** Something came over this link. */
  private begun = false;
  /** The link began with a token, so it may have nothing to tell. */
  private resumed = false;
  /** The subscription was changed, and what comes before its snapshot is of the one before. */
  private changed = false;
  /** The connection was asked for a sign of life. */
  private asked = false;

  private attempt = 0;
  private brief = 0;
  private climbs = 0;
  private timer: Timer | undefined;
  private settling: Timer | undefined;
  private climbing: Timer | undefined;
  private probing: AbortController | undefined;

  constructor(
    base: string,
    private subscription: Subscription,
    private readonly handlers: FeedHandlers,
    options: FeedOptions = {},
  ) {
    this.world = worldOf(base, options);
    this.ladder = options.transports ?? transports;
    this.random = options.random ?? Math.random;
    this.firstClimb = options.climb ?? firstClimb;
    if (options.begin !== undefined) this.level = Math.max(0, this.ladder.indexOf(options.begin));
  }

  open(): void {
    if (this.status.phase === 'closed' || this.status.phase === 'denied') this.connect(this.level);
  }

  close(): void {
    this.drop();
    this.set({ phase: 'closed' });
  }

  /**
   * Follows something else from now on, of which a snapshot comes first. Over WebSocket the connection stays; the hub takes
   * two changes a second there in the long run.
   */
  change(subscription: Subscription): void {
    this.subscription = subscription;
    this.token = '';
    const { phase } = this.status;
    if (phase !== 'live' && phase !== 'connecting') return;
    // A snapshot that is under way could be taken for that of the new subscription.
    if (this.link?.change === undefined || phase !== 'live' || !this.begun) {
      this.connect(this.level);
      return;
    }
    this.changed = true;
    this.resumed = false;
    if (!this.asked) {
      // Otherwise it is sent with the answer.
      this.expect(lastPatience);
      this.link.change(subscription, '');
    }
    this.set({ phase: 'connecting' });
  }

  /** Tries at once, or makes sure that a connection that seems open is: after sleep, or when the network came back. */
  wake(): void {
    const silence = Date.now() - this.heardAt;
    if (this.status.phase === 'waiting') {
      this.attempt = 0;
      this.connect(this.level);
    } else if (this.status.phase === 'live') {
      this.climbs = 0;
      // No timer lets that pass, so the machine has slept.
      if (silence > quiet + answerTimeout) this.connect(this.level);
      else if (this.link?.change !== undefined) this.ask();
      else if (silence > missed) this.connect(this.level, true);
      this.climbLater();
    }
  }

  private set(status: Phase): void {
    this.status = { ...status, trueAt: this.trueAt };
    this.handlers.status(this.status);
  }

  private drop(): void {
    for (const timer of [this.timer, this.settling, this.climbing]) clearTimeout(timer);
    this.probing?.abort();
    const { link } = this;
    this.link = undefined;
    this.asked = false;
    this.changed = false;
    this.begun = false;
    link?.close();
  }

  /** Begins a link. With quietly, one that replaces another that is as good, nobody is told unless it fails. */
  private connect(rung: number, quietly = false): void {
    this.drop();
    const name = this.ladder[rung];
    if (name === undefined) throw new RangeError('a feed needs at least one transport');
    this.rung = rung;
    this.resumed = this.token !== '';
    this.expect(rung + 1 < this.ladder.length ? patience : lastPatience);
    this.link = opens[name](this.world, this.subscription, this.token, {
      frame: (json) => this.take(json),
      alive: () => {
        this.heard();
        if (this.resumed) this.live();
      },
      reset: () => this.reset(),
      ended: (end) => this.lost(end),
    });
    if (!quietly && this.status.phase !== 'connecting') this.set({ phase: 'connecting' });
  }

  private expect(ms: number): void {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.lost(broken), ms);
  }

  private take(json: Json): void {
    const { link } = this;
    let frame: Frame;
    try {
      frame = decodeFrame(json);
    } catch {
      // The hub and this program do not understand each other: begin anew rather than show half of it.
      this.reset();
      this.lost(broken);
      return;
    }
    this.heard();
    if (this.asked && frame.type === 'snapshot') {
      this.asked = false;
      this.link?.change?.(this.subscription, this.token);
      if (this.changed) this.expect(lastPatience);
      else this.watch();
      return;
    }
    if (this.changed && frame.type !== 'snapshot') return;
    this.changed = false;
    this.handlers.frame(frame);
    if (this.link !== link || this.changed || frame.type === 'unknown') return;
    clearTimeout(this.settling);
    if (frame.type === 'welcome') {
      if (this.resumed) this.settling = setTimeout(() => this.live(), settle);
      return;
    }
    // A listing that broke off half-way would be taken for whole if its token were used.
    if ('more' in frame && frame.more) return;
    this.token = frame.token;
    this.live();
  }

  /** Takes note of a sign of life. */
  private heard(): void {
    this.heardAt = Date.now();
    if (!this.begun) {
      this.begun = true;
      this.level = this.rung;
      this.climbLater();
    }
    if (this.asked) return; // the answer must come all the same
    if (this.status.phase !== 'live') this.expect(lastPatience);
    else this.watch();
  }

  private live(): void {
    clearTimeout(this.settling);
    const transport = this.ladder[this.rung];
    if (transport === undefined) return;
    if (this.status.phase !== 'live' || this.status.transport !== transport) {
      this.liveSince = this.heardAt;
      this.best = Math.min(this.best, this.rung);
      this.trueAt = this.heardAt;
      this.set({ phase: 'live', transport });
    }
    if (this.link !== undefined && !this.asked) this.watch();
  }

  private watch(): void {
    this.trueAt = this.heardAt;
    clearTimeout(this.timer);
    this.timer =
      this.link?.change === undefined
        ? setTimeout(() => this.lost(broken), quiet + answerTimeout)
        : setTimeout(() => this.ask(), quiet);
  }

  // A WebSocket can be dead without either end knowing, and no page hears the pings of the hub. So the subscription is changed
  // to nothing, which is answered at once, and then back, from where it was.
  private ask(): void {
    if (this.asked || !this.begun || this.status.phase !== 'live') return;
    this.asked = true;
    this.expect(answerTimeout);
    this.link?.change?.(nothing, '');
  }

  private reset(): void {
    const had = this.token !== '';
    this.token = '';
    this.resumed = false;
    if (had) this.handlers.reset?.();
  }

  private lost(end: End): void {
    const { begun, rung } = this;
    const wasLive = this.status.phase === 'live';
    const last = rung + 1 === this.ladder.length;
    this.drop();
    if (end.code >= firstFinal || (final.includes(end.code) && (end.reason !== '' || last))) {
      this.set({
        phase: 'denied',
        code: end.code,
        reason: end.reason || `It was refused with the status ${end.code}.`,
      });
      return;
    }
    const later = end.code >= 500 || end.code === 429 || resumeTooFar.includes(end.code);
    if (resumeTooFar.includes(end.code)) this.reset();
    if (!begun && !later && !last) {
      this.connect(rung + 1);
      return;
    }
    if (begun) this.judge(end, wasLive, last);
    else if (last) this.level = 0;
    const delay = end.retry + backoff(this.attempt++, this.random);
    this.timer = setTimeout(() => this.connect(this.level), delay);
    this.set({ phase: 'waiting', until: Date.now() + delay });
  }

  /** One that held is a new beginning. Several that broke at once mean that something on the way does not like them. */
  private judge(end: End, wasLive: boolean, last: boolean): void {
    if (wasLive && Date.now() - this.liveSince > held) {
      this.attempt = 0;
      this.brief = 0;
    } else if (end.code === 0 && ++this.brief >= mostBrief && !last) {
      this.brief = 0;
      this.level = this.rung + 1;
      this.best = this.level;
    }
  }

  private climbLater(): void {
    this.probing?.abort();
    clearTimeout(this.climbing);
    if (this.rung === 0) return;
    const usual = Math.min(seldomClimb, this.firstClimb * 2 ** Math.min(this.climbs, 10));
    const delay = this.best < this.rung ? Math.min(soonClimb, usual) : usual;
    this.climbing = setTimeout(() => void this.climb(), delay * (0.5 + this.random() / 2));
  }

  // The better way is proven first, and taken in one step: nothing of the old link is heard once the new one begins.
  private async climb(): Promise<void> {
    const probing = new AbortController();
    this.probing = probing;
    if (this.best < this.rung) this.best = this.rung;
    else this.climbs++;
    for (const [better, name] of this.ladder.slice(0, this.rung).entries()) {
      const proof = await probe(name, this.world, patience, probing.signal);
      if (probing.signal.aborted) return;
      if (proof.passes && this.status.phase === 'live') {
        this.climbs = 0;
        this.connect(better, true);
        return;
      }
    }
    this.climbLater();
  }
}

/** The world as it is, but for what the options say. */
export function worldOf(base: string, options: FeedOptions = {}): World {
  const headers: Record<string, string> = {};
  if (options.token !== undefined) headers.Authorization = `Bearer ${options.token}`;
  return {
    base,
    headers,
    fetch: options.fetch ?? globalThis.fetch.bind(globalThis),
    socket: options.socket ?? socketOf,
  };
}

// Browsers take no headers, and refuse them by throwing; then there is no WebSocket.
function socketOf(url: string, headers: Record<string, string>): Socket {
  const Socket = WebSocket as unknown as new (url: string, options?: object) => Socket;
  return Object.keys(headers).length === 0 ? new Socket(url) : new Socket(url, { headers });
}
