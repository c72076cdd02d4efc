// Finds out whether a transport passes through this network, beside whatever runs.

import { broken, type End, type Link, nothing, type Open, type World } from './transport';

export interface Proof {
  /** Whether an answer of the hub came through, whole. */
  passes: boolean;
  /** How long it took, in ms. */
  ms: number;
  /** Why it did not pass. */
  end: End;
}

/** Opens a link that follows nothing, and waits for its snapshot. Aborted, it ends at once and proves nothing. */
export function probe(open: Open, world: World, patience: number, signal: AbortSignal): Promise<Proof> {
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
    const timer = setTimeout(() => done(false, broken), patience);
    signal.addEventListener('abort', aborted);
    link = open(world, nothing, '', {
      frame: (frame) => {
        if (frame !== null && typeof frame === 'object' && !Array.isArray(frame) && frame.type === 'snapshot') {
          done(true, broken);
        }
      },
      alive: () => {},
      reset: () => {},
      ended: (end) => done(false, end),
    });
  });
}
