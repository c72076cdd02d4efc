// What the page may say about its connection to the hub. Pure.

import type { FeedStatus } from '../feed/feed';

export interface Connection {
  phase: FeedStatus['phase'];
  /** When the next attempt is, by this machine's clock; 0 if none is planned. */
  retryAt: number;
  /** When what is shown was last known to be true, by this machine's clock; 0 if it never was. */
  trueAt: number;
  /** What the hub says of itself. */
  welcome: string;
  version: string;
  /** When the hub was started, by its own clock. */
  started: number;
  /** The hub was restarted while the page was open, and nobody has read that yet. */
  restarted: boolean;
}

export const unconnected: Connection = {
  phase: 'closed',
  retryAt: 0,
  trueAt: 0,
  welcome: '',
  version: '',
  started: 0,
  restarted: false,
};

export type ConnectionEvent =
  | { type: 'status'; status: FeedStatus; now: number }
  | { type: 'welcome'; text: string; version: string; started: number }
  | { type: 'frame'; now: number }
  | { type: 'read' };

export function reduceConnection(c: Connection, e: ConnectionEvent): Connection {
  switch (e.type) {
    case 'status':
      return {
        ...c,
        phase: e.status.phase,
        retryAt: e.status.phase === 'waiting' ? e.status.until : 0,
        trueAt: e.status.phase === 'live' ? e.now : c.trueAt,
      };
    case 'welcome':
      return {
        ...c,
        welcome: e.text,
        version: e.version,
        started: e.started,
        restarted: c.restarted || (c.started !== 0 && c.started !== e.started),
      };
    case 'frame':
      return { ...c, trueAt: e.now };
    case 'read':
      return { ...c, restarted: false };
  }
}

/** Whether what is shown is true now. */
export function current(c: Connection): boolean {
  return c.phase === 'live';
}
