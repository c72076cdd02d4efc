// Which transports of the live feed pass through the network between this page and the hub.

import { patience, worldOf } from '../feed/feed';
import { hold } from '../feed/poll';
import { type Proof, probe, probeHeld } from '../feed/probe';
import type { Transport } from '../feed/transport';

export type CheckKey = 'websocket' | 'sse' | 'longpoll' | 'poll';

export interface Check {
  key: CheckKey;
  state: 'waiting' | 'running' | 'passed' | 'failed';
  /** When it began, by this machine's clock. */
  began: number;
  proof: Proof | undefined;
}

/** How long a request is held to see whether it may be, in ms. */
export const heldFor = hold * 1000;
const held = (hold + 5) * 1000;

/** What can be had over each transport. */
export const serves: Record<CheckKey, Transport | undefined> = {
  websocket: 'websocket',
  sse: 'sse',
  longpoll: 'poll',
  poll: undefined,
};

export class Diagnosis {
  checks: readonly Check[] = $state.raw(fresh());
  private running = new AbortController();

  constructor(private readonly base: string) {}

  /** Runs every check anew. The quick ones come one after the other, so that they do not slow each other down. */
  async run(): Promise<void> {
    this.stop();
    this.running = new AbortController();
    const { signal } = this.running;
    const world = worldOf(this.base);
    this.checks = fresh();
    const slow = this.check('longpoll', signal, () => probeHeld(world, held, signal));
    for (const key of ['poll', 'websocket', 'sse'] as const) {
      await this.check(key, signal, () => probe(key, world, patience, signal));
    }
    await slow;
  }

  stop(): void {
    this.running.abort();
  }

  get busy(): boolean {
    return this.checks.some((c) => c.state === 'waiting' || c.state === 'running');
  }

  private async check(key: CheckKey, signal: AbortSignal, ask: () => Promise<Proof>): Promise<void> {
    if (signal.aborted) return;
    this.put({ key, state: 'running', began: Date.now(), proof: undefined });
    const began = Date.now();
    const proof = await ask();
    if (!signal.aborted) this.put({ key, state: proof.passes ? 'passed' : 'failed', began, proof });
  }

  private put(check: Check): void {
    this.checks = this.checks.map((c) => (c.key === check.key ? check : c));
  }
}

function fresh(): Check[] {
  const keys: CheckKey[] = ['websocket', 'sse', 'longpoll', 'poll'];
  return keys.map((key) => ({ key, state: 'waiting', began: 0, proof: undefined }));
}
