// The one place where the layers below meet the views: who is logged in, what the feed tells, and what time it is.

import { type Api, ApiError } from '../api/api';
import { Feed, type FeedHandlers, type Subscription } from '../feed/feed';
import { onWake } from '../feed/wake';
import type { Me, Status } from '../frames/http';
import type { Frame } from '../frames/live';
import { type Connection, reduceConnection, unconnected } from './connection';
import { emptyFleet, type Fleet, reduceFleet } from './fleet';

export type Session = 'asking' | 'out' | 'in' | 'unreachable';

/** The newest values, once a second: enough for eyes, and the hub conflates what comes in between. */
const everything: Subscription = { devices: ['*'], mode: 'latest', tick: 1000 };

const statusEvery = 30_000;

/** What ends a feed, but says nothing about who asks: the page and the hub do not fit together. */
const misunderstood = [4500, 422];

export class Hub {
  session: Session = $state('asking');
  me: Me | undefined = $state.raw();
  fleet: Fleet = $state.raw(emptyFleet);
  connection: Connection = $state.raw(unconnected);
  status: Status | undefined = $state.raw();
  /** The hub's clock, once a second. */
  now = $state(Date.now());
  /** A newer page than this one is served. */
  outdated = $state(false);

  private offset = 0;
  private feed: Feed | undefined;
  private stopping: (() => void)[] = [];

  constructor(
    readonly api: Api,
    /** The name of the script that runs, which changes with its content. */
    private readonly script: string,
  ) {}

  /** This machine's clock is off by that much; ages must not be. */
  readonly time = (): number => Date.now() + this.offset;

  canAdd(): boolean {
    return this.me?.role === 'admin';
  }

  /** Finds out who is here, and begins if it is somebody. */
  async enter(): Promise<void> {
    try {
      this.me = await this.api.me();
    } catch (err) {
      this.session = err instanceof ApiError && err.status === 401 ? 'out' : 'unreachable';
      return;
    }
    this.session = 'in';
    this.begin();
  }

  async leave(): Promise<void> {
    await this.api.logout();
    this.end();
    this.session = 'out';
  }

  /** Dismisses the note that the hub was restarted. */
  read(): void {
    this.connection = reduceConnection(this.connection, { type: 'read' });
  }

  wake(): void {
    this.feed?.wake();
  }

  /** A feed of its own for a view. */
  open(subscription: Subscription, handlers: FeedHandlers): Feed {
    const { transport } = this.connection;
    const feed = new Feed(this.api.base, subscription, handlers, transport === undefined ? {} : { begin: transport });
    feed.open();
    return feed;
  }

  private begin(): void {
    this.end();
    this.feed = this.open(everything, {
      frame: (frame) => this.take(frame),
      status: (status) => {
        this.connection = reduceConnection(this.connection, { type: 'status', status });
        if (status.phase === 'live') void this.askStatus();
        if (status.phase === 'denied' && !misunderstood.includes(status.code)) {
          this.end();
          this.session = 'out';
        }
      },
    });
    const clock = setInterval(() => {
      this.now = this.time();
    }, 1000);
    const status = setInterval(() => void this.askStatus(), statusEvery);
    this.stopping = [() => clearInterval(clock), () => clearInterval(status), onWake(() => this.wake())];
  }

  private end(): void {
    for (const stop of this.stopping) stop();
    this.stopping = [];
    this.feed?.close();
    this.feed = undefined;
    this.fleet = emptyFleet;
    this.connection = unconnected;
    this.status = undefined;
  }

  private take(frame: Frame): void {
    if (frame.type === 'welcome') {
      const { text, version, started } = frame;
      this.connection = reduceConnection(this.connection, { type: 'welcome', text, version, started });
      if (this.connection.restarted) void this.lookForUpdate();
    }
    if ('now' in frame && frame.now !== undefined) {
      this.offset = frame.now - Date.now();
      this.now = this.time();
    }
    this.fleet = reduceFleet(this.fleet, frame);
  }

  private async askStatus(): Promise<void> {
    try {
      this.status = await this.api.status();
    } catch {
      // The banner about the connection says enough.
    }
  }

  // A hub that was restarted may have been updated, and with it the page.
  private async lookForUpdate(): Promise<void> {
    try {
      const page = await this.api.page();
      this.outdated = this.script !== '' && !page.includes(this.script);
    } catch {
      // It will be asked again after the next restart.
    }
  }
}
