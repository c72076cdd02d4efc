// The client of the live feed in Node, against a real hub behind a network that gets in the way.

import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { Feed, type FeedStatus, type Subscription, type Transport } from '../src/feed/feed';
import type { Frame } from '../src/frames/live';
import { emptyFleet, reduceFleet } from '../src/state/fleet';
import { Gateway } from './gateway';
import { RawSocket } from './rawsocket';
import { type Device, HubProcess, missingHub, until } from './rig';

const why = missingHub();
if (why !== undefined && process.env.CI !== undefined) throw new Error(why);

/** A device that counts, and does not stop. */
class Counter {
  /** What is on disk for sure, and what may be: the hub died before it could say so. */
  readonly certain = new Set<number>();
  readonly perhaps = new Set<number>();
  last = 0;
  private stopped = false;
  private readonly running: Promise<void>;

  constructor(private readonly device: Device) {
    this.running = this.run();
  }

  async stop(): Promise<void> {
    this.stopped = true;
    await this.running;
  }

  private async run(): Promise<void> {
    const began = Date.now() - 3_600_000;
    for (let n = 1; !this.stopped; n++) {
      try {
        await this.device.send({ t: began + n, v: { count: n } });
        this.certain.add(n);
        this.last = n;
      } catch {
        this.perhaps.add(n);
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
    }
  }
}

describe.skipIf(why !== undefined)('the client of the live feed', () => {
  let hub: HubProcess;
  let proxy: Gateway;
  let counter: Counter;
  const feeds: Feed[] = [];

  beforeAll(async () => {
    hub = await HubProcess.make();
    await hub.start();
    proxy = await Gateway.start('', hub.port);
    counter = new Counter(hub.addDevice('pump'));
  });
  afterEach(() => {
    for (const f of feeds.splice(0)) f.close();
  });
  afterAll(async () => {
    await counter.stop();
    proxy.close();
    await hub.remove();
  });

  function follow(subscription: Subscription, frame: (f: Frame) => void) {
    const known = { status: undefined as FeedStatus | undefined, resets: 0, live: 0 };
    const feed = new Feed(
      proxy.url,
      subscription,
      {
        frame,
        status: (s) => {
          known.status = s;
          if (s.phase === 'live') known.live++;
        },
        reset: () => known.resets++,
      },
      { token, climb: 200, random: () => Math.random() / 10, socket: (url, headers) => new RawSocket(url, headers) },
    );
    feeds.push(feed);
    feed.open();
    return known;
  }
  let token = '';

  test('tells everything once, whatever happens on the way', async () => {
    token = hub.viewerToken();
    const values: number[] = [];
    const all = follow({ devices: ['pump'], metrics: ['count'], mode: 'all', tick: -1 }, (f) => {
      if (f.type === 'snapshot') first = Number(f.devices[0]?.metrics.get('count')?.v ?? 0);
      if (f.type === 'readings') values.push(...f.readings.map((r) => Number(r.v)));
    });
    let first = 0;
    let fleet = emptyFleet;
    const latest = follow({ devices: ['*'], mode: 'latest', tick: 50 }, (f) => {
      fleet = reduceFleet(fleet, f);
    });
    const newest = () => Number(fleet.devices.get('pump')?.metrics.get('count')?.v ?? 0);

    /** Both are live over a transport, and as far as the device is now. */
    const over = async (transport: Transport) => {
      for (const known of [all, latest]) {
        await until(
          `${transport} is used`,
          async () => known.status?.phase === 'live' && known.status.transport === transport,
        );
      }
      const now = counter.last + 1;
      await until('all readings come', async () => (values.at(-1) ?? 0) >= now);
      await until('the newest reading comes', async () => newest() >= now);
    };
    const crash = async () => {
      await hub.kill();
      await hub.start();
    };

    await over('websocket');
    proxy.cut();
    await over('websocket');
    await crash();
    await over('websocket');

    proxy.upgrades = 'refused';
    proxy.cut();
    await over('sse');
    proxy.cut();
    await over('sse');
    await crash();
    await over('sse');

    proxy.answers = 'held';
    proxy.cut();
    await over('poll');
    await crash();
    await over('poll');

    proxy.answers = 'pass';
    await over('sse');
    proxy.upgrades = 'pass';
    await over('websocket');

    await counter.stop();
    await until('the last comes', async () => (values.at(-1) ?? 0) >= counter.last && newest() >= counter.last);
    const expected = [...counter.certain, ...counter.perhaps].filter((n) => n > first).sort((a, b) => a - b);
    const missed = expected.filter((n) => counter.certain.has(n) && !values.includes(n));
    expect(missed).toEqual([]);
    expect(values).toEqual(expected.filter((n) => counter.certain.has(n) || values.includes(n)));
    expect(values.length).toBeGreaterThan(100);
    expect([all.resets, latest.resets]).toEqual([0, 0]);
  });
});
