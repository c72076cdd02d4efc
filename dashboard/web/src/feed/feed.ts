// The viewer socket: it comes back for ever, resumes where it was, and knows when it is not to be trusted.

import { decodeFrame, type Frame } from '../frames/live';
import { backoff } from './backoff';

export interface Subscription {
  devices: string[];
  mode: 'latest' | 'all';
  /** Least time between two frames in ms. */
  tick: number;
}

export type FeedStatus =
  | { phase: 'connecting' }
  /** Frames arrive, and nothing is missing. */
  | { phase: 'live' }
  /** The next attempt is at this time. */
  | { phase: 'waiting'; until: number }
  /** Somebody must act: the session is over. */
  | { phase: 'denied' }
  | { phase: 'closed' };

export interface FeedHandlers {
  frame(frame: Frame): void;
  status(status: FeedStatus): void;
  /** What was missed can not be had from the feed any more: a snapshot follows. */
  reset?(): void;
}

/** What a feed needs of the world. */
export interface FeedWorld {
  open(url: string): WebSocket;
  /** Asks whether the session still counts; a socket that is refused does not say why. */
  allowed(): Promise<boolean>;
  random(): number;
  now(): number;
}

const openTimeout = 10_000;
/** After this long without a frame the feed asks for one. */
const quiet = 30_000;
const answerTimeout = 10_000;
/** A connection that held so long is taken for a good one. */
const held = 10_000;

// Close codes of device/wire: from 4500 on somebody must act.
const resumeTooFar = 4010;
const firstTerminal = 4500;

type Timer = ReturnType<typeof setTimeout>;

export class Feed {
  private socket: WebSocket | undefined;
  private token = '';
  private attempt = 0;
  private timer: Timer | undefined;
  private watchdog: Timer | undefined;
  private asked = false;
  private liveSince = 0;
  private status: FeedStatus = { phase: 'closed' };

  constructor(
    private readonly url: string,
    private readonly subscription: Subscription,
    private readonly handlers: FeedHandlers,
    private readonly world: FeedWorld,
  ) {}

  open(): void {
    if (this.status.phase === 'closed') this.connect();
  }

  close(): void {
    this.drop();
    this.set({ phase: 'closed' });
  }

  /** Tries at once, or makes sure that a connection that seems open is: after sleep, or when the network came back. */
  wake(): void {
    if (this.status.phase === 'waiting') {
      this.attempt = 0;
      this.connect();
    } else if (this.status.phase === 'live') {
      this.ask();
    }
  }

  /** Leaves a connection that may be dead for a new one; nothing is lost by it. */
  renew(): void {
    if (this.status.phase === 'live') this.connect();
  }

  private set(status: FeedStatus): void {
    this.status = status;
    this.handlers.status(status);
  }

  private drop(): void {
    clearTimeout(this.timer);
    clearTimeout(this.watchdog);
    const socket = this.socket;
    this.socket = undefined;
    socket?.close();
  }

  private connect(): void {
    this.drop();
    this.set({ phase: 'connecting' });
    const socket = this.world.open(this.url);
    this.socket = socket;
    this.timer = setTimeout(() => this.lost(socket, 0), openTimeout);
    socket.onopen = () => {
      if (socket === this.socket) this.subscribe(socket);
    };
    socket.onmessage = (event: MessageEvent<string>) => {
      if (socket === this.socket) this.receive(socket, event.data);
    };
    socket.onclose = (event) => this.lost(socket, event.code);
  }

  private subscribe(socket: WebSocket): void {
    const { devices, mode, tick } = this.subscription;
    socket.send(
      JSON.stringify({ subscribe: { devices, mode, tick, ...(this.token === '' ? {} : { after: this.token }) } }),
    );
  }

  private receive(socket: WebSocket, text: string): void {
    let frame: Frame;
    try {
      frame = decodeFrame(text);
    } catch {
      // The hub and this page do not understand each other: begin anew rather than show half of it.
      this.token = '';
      this.lost(socket, 0);
      return;
    }
    clearTimeout(this.timer);
    this.asked = false;
    this.watch();
    this.handlers.frame(frame);
    if (frame.type === 'unknown') return;
    // A listing that broke off half-way would be taken for whole if its token were used. A subscription to everything that
    // resumes is told nothing before something happens, so the welcome must do.
    const { mode } = this.subscription;
    const whole = frame.type === 'welcome' ? mode === 'all' && this.token !== '' : !('more' in frame && frame.more);
    if ('token' in frame && whole) this.token = frame.token;
    if (whole && this.status.phase !== 'live') {
      this.liveSince = this.world.now();
      this.set({ phase: 'live' });
    }
  }

  private watch(): void {
    clearTimeout(this.watchdog);
    this.watchdog = setTimeout(() => this.ask(), quiet);
  }

  // A connection can be dead without either end knowing. Subscribing again to the newest values is answered at once; for
  // every reading it is not, so that one relies on being told by wake.
  private ask(): void {
    const socket = this.socket;
    if (socket === undefined || this.asked || this.subscription.mode !== 'latest' || this.token === '') return;
    this.asked = true;
    clearTimeout(this.watchdog);
    this.watchdog = setTimeout(() => this.lost(socket, 0), answerTimeout);
    this.subscribe(socket);
  }

  private lost(socket: WebSocket, code: number): void {
    if (socket !== this.socket) return;
    const wasLive = this.status.phase === 'live';
    this.asked = false;
    this.drop();
    if (code >= firstTerminal && code < 5000) {
      this.set({ phase: 'denied' });
      return;
    }
    if (code === resumeTooFar) {
      this.token = '';
      this.handlers.reset?.();
    }
    // One that held is a new beginning; one that broke at once is not.
    if (wasLive && this.world.now() - this.liveSince > held) this.attempt = 0;
    const delay = backoff(this.attempt++, this.world.random);
    this.set({ phase: 'waiting', until: this.world.now() + delay });
    this.timer = setTimeout(() => this.connect(), delay);
    if (!wasLive) void this.question();
  }

  private async question(): Promise<void> {
    if (await this.world.allowed()) return;
    if (this.status.phase === 'waiting' || this.status.phase === 'connecting') {
      this.drop();
      this.set({ phase: 'denied' });
    }
  }
}
