// What the page may say about its connection to the hub. Pure.

import type { FeedStatus, Transport } from '../feed/feed';

export interface Connection {
  phase: FeedStatus['phase'];
  /** What the feed comes over, if it does. */
  transport: Transport | undefined;
  /** Why the feed has stopped, empty unless it has. */
  reason: string;
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
  transport: undefined,
  reason: '',
  retryAt: 0,
  trueAt: 0,
  welcome: '',
  version: '',
  started: 0,
  restarted: false,
};

export type ConnectionEvent =
  | { type: 'status'; status: FeedStatus }
  | { type: 'welcome'; text: string; version: string; started: number }
  | { type: 'read' };

export function reduceConnection(c: Connection, e: ConnectionEvent): Connection {
  switch (e.type) {
    case 'status':
      return {
        ...c,
        phase: e.status.phase,
        retryAt: e.status.phase === 'waiting' ? e.status.until : 0,
        reason: e.status.phase === 'denied' ? e.status.reason : '',
        trueAt: e.status.trueAt,
        transport: e.status.phase === 'live' ? e.status.transport : undefined,
      };
    case 'welcome':
      return {
        ...c,
        welcome: e.text,
        version: e.version,
        started: e.started,
        restarted: c.restarted || (c.started !== 0 && c.started !== e.started),
      };
    case 'read':
      return { ...c, restarted: false };
  }
}

/** Whether what is shown is true now. */
export function current(c: Connection): boolean {
  return c.phase === 'live';
}

export const transportNames: Record<Transport, string> = {
  websocket: 'WebSocket',
  sse: 'server-sent events',
  poll: 'long polling',
};
