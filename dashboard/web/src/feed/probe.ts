// Finds out whether a transport passes through this network, beside whatever runs.

import { openPoll } from './poll';
import { openSocket } from './socket';
import { openStream } from './stream';
import {
  broken,
  type End,
  type Link,
  type Listener,
  nothing,
  type Open,
  type Transport,
  type World,
} from './transport';

export const opens: Record<Transport, Open> = { websocket: openSocket, sse: openStream, poll: openPoll };

export interface Proof {
  /** Whether an answer of the hub came through, whole. */
  passes: boolean;
  /** How long it took, in ms. */
  ms: number;
  /** Why it did not pass. */
  end: End;
}

/** Opens a link that follows nothing, and waits for its snapshot. Aborted, it ends at once and proves nothing. */
export function probe(transport: Transport, world: World, patience: number, signal: AbortSignal): Promise<Proof> {
  return attempt(transport, world, patience, signal, (pass) => ({
    frame: (frame) => {
      if (frame !== null && typeof frame === 'object' && !Array.isArray(frame) && frame.type === 'snapshot') pass();
    },
    alive: () => {},
  }));
}

/** Finds out whether a request may be held as long as long polling does. */
export function probeHeld(world: World, patience: number, signal: AbortSignal): Promise<Proof> {
  let answers = 0;
  return attempt('poll', world, patience, signal, (pass) => ({
    frame: () => {},
    alive: () => {
      if (++answers === 2) pass(); // the first is not held
    },
  }));
}

function attempt(
  transport: Transport,
  world: World,
  patience: number,
  signal: AbortSignal,
  listen: (pass: () => void) => Pick<Listener, 'frame' | 'alive'>,
): Promise<Proof> {
  return new Promise((resolve) => {
    const began = performance.now();
    let link: Link | undefined;
    const done = (passes: boolean, end: End) => {
      clearTimeout(timer);
      signal.removeEventListener('abort', aborted);
      link?.close();
      resolve({ passes, ms: performance.now() - began, end });
    };
    const aborted = () => done(false, broken);
    const timer = setTimeout(aborted, patience);
    signal.addEventListener('abort', aborted);
    link = opens[transport](world, nothing, '', {
      ...listen(() => done(true, broken)),
      reset: () => {},
      ended: (end) => done(false, end),
    });
  });
}
