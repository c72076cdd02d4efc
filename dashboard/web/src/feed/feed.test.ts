import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { backoff } from './backoff';
import { EventReader } from './events';
import { Feed, type FeedOptions, type FeedStatus, type Subscription } from './feed';
import { MiniHub } from './testing/minihub';

const everything: Subscription = { devices: ['*'], mode: 'all' };

function rig(subscription = everything, options: FeedOptions = {}) {
  const hub = new MiniHub();
  const phases: string[] = [];
  const values: number[] = [];
  const seen: string[] = [];
  let status: FeedStatus | undefined;
  let resets = 0;
  const feed = new Feed(
    'http://hub/site/',
    subscription,
    {
      frame: (f) => {
        seen.push(f.type);
        if (f.type === 'readings') values.push(...f.readings.map((r) => Number(r.v)));
      },
      status: (s) => {
        status = s;
        phases.push(s.phase === 'live' ? s.transport : s.phase);
      },
      reset: () => resets++,
    },
    { ...hub.world, random: () => 1, ...options },
  );
  /** Stores n readings, a while apart. */
  const count = async (n: number) => {
    for (let i = 0; i < n; i++) {
      hub.count();
      await pass(20);
    }
  };
  return { hub, feed, phases, values, seen, count, status: () => status, resets: () => resets };
}

async function pass(ms: number): Promise<void> {
  await vi.advanceTimersByTimeAsync(ms);
}

const upTo = (n: number) => Array.from({ length: n }, (_, i) => i + 1);

beforeEach(() => {
  vi.useFakeTimers();
});
afterEach(() => {
  vi.useRealTimers();
});

test('waits at random within a bound that grows and has an end', () => {
  expect(backoff(0, () => 1)).toBe(500);
  expect(backoff(3, () => 1)).toBe(4000);
  expect(backoff(1000, () => 1)).toBe(15_000);
  expect(backoff(9, () => 0)).toBe(100);
});

test('events are read however the stream is cut', () => {
  const stream =
    'retry: 2000\n\n:\n\nid: e-1\ndata: {"a":\ndata:1}\n\nevent: bye\r\ndata: x\r\n\r\ndata\n\nevent: none\n\ndata: unfinished\n';
  for (let size = 1; size < stream.length; size++) {
    const seen: string[] = [];
    const reader = new EventReader(
      (e) => seen.push(`${e.name} ${e.data}`),
      () => seen.push('comment'),
    );
    for (let i = 0; i < stream.length; i += size) reader.push(stream.slice(i, i + size));
    expect(seen).toEqual(['comment', 'message {"a":\n1}', 'bye x', 'message ']);
  }
});

test('follows over WebSocket where that passes', async () => {
  const r = rig();
  r.feed.open();
  await pass(10);
  expect(r.phases).toEqual(['connecting', 'websocket']);
  await r.count(3);
  expect(r.values).toEqual([1, 2, 3]);
  expect(r.hub.log).toEqual(['websocket']);
  r.feed.close();
  expect(r.status()?.phase).toBe('closed');
  expect(r.hub.connected()).toEqual([]);
  expect(vi.getTimerCount()).toBe(0);
});

test.each(['cut', 'hangs', 'mute'] as const)('falls to events where a WebSocket %s', async (way) => {
  const r = rig();
  r.hub.ways.websocket = way;
  r.feed.open();
  await pass(way === 'cut' ? 10 : 5010);
  expect(r.phases).toEqual(['connecting', 'sse']);
  await r.count(3);
  expect(r.values).toEqual([1, 2, 3]);
  r.feed.close();
  expect(r.hub.connected()).toEqual([]);
  expect(vi.getTimerCount()).toBe(0);
});

test.each(['cut', 'hangs', 'mute', { status: 404 }, { status: 403 }, { status: 200 }] as const)(
  'falls to polling where events are treated as %j',
  async (way) => {
    const r = rig();
    r.hub.ways.websocket = 'cut';
    r.hub.ways.sse = way;
    r.feed.open();
    await pass(5010);
    expect(r.phases).toEqual(['connecting', 'poll']);
    await r.count(3);
    await pass(500);
    expect(r.values).toEqual([1, 2, 3]);
    r.feed.close();
    expect(r.hub.connected()).toEqual([]);
    expect(vi.getTimerCount()).toBe(0);
  },
);

test('where there is no WebSocket, or it takes no token, it goes without', async () => {
  const r = rig(everything, {
    token: 'thp_x',
    socket: () => {
      throw new SyntaxError('no such subprotocol');
    },
  });
  r.feed.open();
  await pass(10);
  expect(r.phases).toEqual(['connecting', 'sse']);
  r.feed.close();
});

test('a token is sent with every transport', async () => {
  const r = rig(everything, { token: 'thp_x' });
  const sent: (string | undefined)[] = [];
  const { fetch } = r.hub.world;
  const feed = new Feed(
    'http://hub/',
    everything,
    { frame: () => {}, status: () => {} },
    {
      token: 'thp_x',
      socket: (url, headers) => {
        sent.push(`${url} ${headers.Authorization}`);
        throw new Error();
      },
      fetch: async (url, init) => {
        sent.push(`${new URL(String(url)).pathname} ${new Headers(init?.headers).get('Authorization')}`);
        return await fetch(url, init);
      },
    },
  );
  r.hub.ways.sse = 'cut';
  feed.open();
  await pass(10);
  expect(sent.slice(0, 3)).toEqual([
    'ws://hub/api/v1/live Bearer thp_x',
    '/api/v1/live/sse Bearer thp_x',
    '/api/v1/live/poll Bearer thp_x',
  ]);
  feed.close();
});

test('what comes is whole across every fall and every climb', async () => {
  const r = rig();
  r.feed.open();
  await pass(10);
  await r.count(2);
  r.hub.ways.websocket = 'cut';
  r.hub.end(0);
  r.hub.count();
  await pass(600);
  await r.count(2);
  expect(r.hub.connected()).toEqual(['sse']);
  r.hub.ways.sse = 'mute';
  r.hub.end(0);
  r.hub.count();
  await pass(6000);
  await r.count(2);
  await pass(200);
  expect(r.phases.at(-1)).toBe('poll');
  expect(r.values).toEqual(upTo(8));
  r.hub.ways.sse = 'open';
  for (let i = 0; i < 60; i++) {
    r.hub.count();
    await pass(997);
  }
  expect(r.phases.at(-1)).toBe('sse');
  r.hub.ways.websocket = 'open';
  for (let i = 0; i < 120; i++) {
    r.hub.count();
    await pass(997);
  }
  expect(r.phases.slice(-2)).toEqual(['sse', 'websocket']);
  expect(r.values).toEqual(upTo(188));
  expect(r.hub.connected()).toEqual(['websocket']);
  expect(r.resets()).toBe(0);
  r.feed.close();
});

test('better transports are tried ever more seldom, and sooner after a change of the network', async () => {
  const r = rig();
  r.hub.ways.websocket = 'cut';
  r.feed.open();
  await pass(10);
  const tries = async (ms: number) => {
    const before = r.hub.log.filter((l) => l === 'websocket').length;
    for (let t = 0; t < ms; t += 10_000) {
      await pass(10_000);
      r.hub.count(); // so that the stream is known to live
    }
    return r.hub.log.filter((l) => l === 'websocket').length - before;
  };
  expect(await tries(30_000)).toBe(1);
  expect(await tries(60_000)).toBe(1);
  expect(await tries(3_600_000)).toBeLessThan(16);
  r.feed.wake();
  expect(await tries(30_000)).toBe(1);
  expect(r.phases).toEqual(['connecting', 'sse']); // nobody was disturbed
  r.feed.close();
});

test('a hub that was away is soon followed as well as before', async () => {
  const r = rig();
  r.feed.open();
  await pass(10);
  await r.count(2);
  r.hub.ways.websocket = 'cut';
  r.hub.end(0);
  await pass(600);
  expect(r.hub.connected()).toEqual(['sse']); // the hub came back between the two attempts
  r.hub.ways.websocket = 'open';
  await r.count(60);
  expect(r.hub.connected()).toEqual(['websocket']);
  expect(r.values).toEqual(upTo(62));
  expect(r.phases.slice(-2)).toEqual(['sse', 'websocket']);

  r.hub.ways.websocket = 'cut'; // and stays so
  r.hub.end(0);
  await pass(1100);
  expect(r.hub.connected()).toEqual(['sse']);
  const tries = () => r.hub.log.filter((l) => l === 'websocket').length;
  const before = tries();
  for (let s = 0; s < 29; s++) {
    await pass(980);
    await r.count(1); // so that the stream is known to live
  }
  expect(tries() - before).toBe(1);
  r.feed.close();
});

test('a connection that is cut again and again is left for another transport', async () => {
  const r = rig();
  r.feed.open();
  for (let i = 0; i < 3; i++) {
    await pass(3000);
    expect(r.hub.connected()).toEqual(['websocket']);
    r.hub.end(0);
  }
  await pass(3000);
  expect(r.hub.connected()).toEqual(['sse']);
  r.feed.close();
});

test('comes back for ever, and at once when it is woken', async () => {
  const r = rig();
  r.hub.ways.websocket = r.hub.ways.sse = r.hub.ways.poll = 'cut';
  r.feed.open();
  for (let i = 0; i < 30; i++) {
    await pass(10);
    const s = r.status();
    if (s?.phase !== 'waiting') throw new Error(s?.phase);
    expect(s.until - Date.now()).toBeLessThanOrEqual(15_000);
    await pass(s.until - Date.now());
  }
  await pass(10);
  r.hub.ways.websocket = 'open';
  r.feed.wake();
  await pass(10);
  expect(r.phases.at(-1)).toBe('websocket');
  r.feed.close();
});

test('a hub that is stopping or busy is waited for, not fallen from', async () => {
  const r = rig();
  r.feed.open();
  await pass(10);
  r.hub.end(4002, 'draining');
  await pass(600);
  expect(r.hub.log).toEqual(['websocket', 'websocket']);

  r.hub.ways.websocket = 'cut';
  r.hub.ways.sse = { status: 503, reason: 'Too many viewers.', retry: 10 };
  r.hub.end(0);
  await pass(1100);
  const s = r.status();
  expect(s?.phase === 'waiting' && s.until - Date.now()).toBeGreaterThan(9000);
  expect(r.hub.log.slice(2)).toEqual(['websocket', 'sse']);
  r.hub.ways.websocket = 'open';
  await pass(13_000);
  expect(r.phases.at(-1)).toBe('websocket');
  r.feed.close();
});

test('stops when the session is over, and says why', async () => {
  const stopped: Record<string, (r: ReturnType<typeof rig>) => void> = {
    websocket: () => {},
    sse: (r) => {
      r.hub.ways.websocket = 'cut';
    },
    poll: (r) => {
      r.hub.ways.websocket = r.hub.ways.sse = 'cut';
    },
  };
  for (const [transport, prepare] of Object.entries(stopped)) {
    const r = rig();
    prepare(r);
    r.feed.open();
    await pass(200);
    expect(r.phases.at(-1)).toBe(transport);
    r.hub.end(4503, 'this token was revoked');
    await pass(60_000);
    expect(r.status()).toMatchObject({ phase: 'denied', reason: 'this token was revoked' });
    expect(vi.getTimerCount()).toBe(0);
  }
});

test('a refused upgrade does not say why, so the next transport does', async () => {
  const r = rig();
  r.hub.ways.websocket = 'cut';
  r.hub.ways.sse = { status: 401, reason: 'Say who you are.' };
  r.feed.open();
  await pass(60_000);
  expect(r.status()).toMatchObject({ phase: 'denied', code: 401, reason: 'Say who you are.' });
  expect(r.hub.log).toEqual(['websocket', 'sse']);

  const proxy = rig();
  proxy.hub.ways.websocket = 'cut';
  proxy.hub.ways.sse = proxy.hub.ways.poll = { status: 403 };
  proxy.feed.open();
  await pass(10);
  expect(proxy.status()).toMatchObject({ phase: 'denied', code: 403 });
});

test.each(['websocket', 'sse', 'poll'] as const)('starts over over %s when the hub can not go back', async (name) => {
  const r = rig(everything, { transports: [name] });
  r.feed.open();
  await pass(10);
  await r.count(1);
  await pass(200);
  r.hub.epoch = 'f';
  r.hub.end(0);
  await pass(2000);
  expect(r.resets()).toBe(1);
  expect(r.seen.filter((t) => t === 'snapshot').length).toBe(2);
  expect(r.phases.at(-1)).toBe(name);
  await r.count(1);
  await pass(200);
  expect(r.values).toEqual([1, 2]);
  r.feed.close();
});

test('resumes after the last frame that was whole', async () => {
  const r = rig({ devices: ['*'], mode: 'latest' });
  r.feed.open();
  await pass(10);
  r.hub.say({ type: 'changes', token: 'e-0', devices: [] });
  r.hub.say({ type: 'changes', now: 1, more: true, devices: [] }); // breaks off before its end
  await pass(10);
  r.hub.end(0);
  await pass(600);
  expect(r.hub.taken.at(-1)).toMatchObject({ after: 'e-0', mode: 'latest' });
  // Nothing has changed meanwhile, so nothing but the welcome comes.
  await pass(250);
  expect(r.phases.at(-1)).toBe('websocket');
  r.feed.close();
});

test('a listing after a token is waited for to its end', async () => {
  const r = rig({ devices: ['*'], mode: 'latest' });
  r.feed.open();
  await pass(10);
  r.hub.end(0);
  await pass(510);
  r.hub.say({ type: 'changes', now: 1, more: true, devices: [] });
  await pass(2000);
  expect(r.phases.at(-1)).toBe('connecting');
  r.hub.say({ type: 'changes', now: 1, token: 'e-0', devices: [] });
  await pass(10);
  expect(r.phases.at(-1)).toBe('websocket');
  r.feed.close();
});

test('a WebSocket that is quiet is asked, and nothing is missed or seen of it', async () => {
  const r = rig();
  r.feed.open();
  await pass(10);
  for (let i = 0; i < 5; i++) {
    await pass(29_995);
    r.hub.count(); // comes together with the question
    await pass(40_000);
    r.hub.count();
  }
  await pass(10);
  expect(r.values).toEqual(upTo(10));
  expect(r.seen.filter((t) => t === 'snapshot').length).toBe(1);
  expect(r.hub.taken.filter((s) => s.devices?.[0] === '-').length).toBeGreaterThan(4);
  expect(r.phases).toEqual(['connecting', 'websocket']);

  const before = Date.now();
  r.hub.answers = false;
  await pass(41_000);
  expect(r.phases.slice(0, 3)).toEqual(['connecting', 'websocket', 'waiting']);
  expect(r.status()?.trueAt).toBeLessThanOrEqual(before);
  r.feed.close();
});

test.each(['sse', 'poll'] as const)('%s that falls silent is given up', async (name) => {
  const r = rig(everything, { transports: [name] });
  r.feed.open();
  await pass(10);
  r.hub.ways.poll = 'hangs';
  await pass(26_000);
  expect(r.phases.at(-1)).toBe(name);
  await pass(45_000);
  expect(r.phases).toContain('waiting');
  r.feed.close();
});

test('after a sleep it connects anew, and shows nothing old as new', async () => {
  const r = rig();
  r.feed.open();
  await pass(10);
  vi.setSystemTime(Date.now() + 3_600_000);
  r.feed.wake();
  expect(r.phases.at(-1)).toBe('connecting');
  r.hub.count();
  await pass(300);
  expect(r.phases.at(-1)).toBe('websocket');
  expect(r.values).toEqual([1]);
  r.feed.close();
});

test.each(['websocket', 'sse', 'poll'] as const)('follows something else over %s', async (name) => {
  const r = rig(everything, { transports: [name] });
  r.feed.open();
  await pass(10);
  await r.count(1);
  await pass(200);
  const links = r.hub.sockets.length;
  r.feed.change({ devices: ['a'], mode: 'all' });
  r.hub.count();
  await pass(300);
  expect(r.hub.taken.at(-1)?.devices).toEqual(['a']);
  expect(r.hub.sockets.length).toBe(links); // in place, or no WebSocket at all
  expect(r.seen.filter((t) => t === 'snapshot').length).toBe(2);
  await r.count(1);
  await pass(200);
  // The second reading is in the snapshot.
  expect(r.values.filter((v) => v !== 2)).toEqual([1, 3]);
  r.feed.close();
});

test('a change amid a snapshot begins a new connection, so that the two are not mixed up', async () => {
  const r = rig();
  r.feed.open();
  await pass(10);
  r.hub.end(0);
  await pass(510);
  r.hub.say({ type: 'changes', now: 1, more: true, devices: [] });
  await pass(10);
  r.feed.change({ devices: ['a'], mode: 'all' });
  await pass(10);
  expect(r.hub.sockets.map((s) => s.closed)).toEqual([true, true, false]);
  expect(r.hub.taken.at(-1)).toEqual({ devices: ['a'], mode: 'all' });
  r.feed.close();
});

test('a change while the connection is asked counts', async () => {
  const r = rig();
  r.feed.open();
  await pass(10);
  r.feed.wake();
  r.feed.change({ devices: ['a'], mode: 'all' });
  await pass(10);
  expect(r.hub.taken.at(-1)).toEqual({ devices: ['a'], mode: 'all' });
  expect(r.phases.at(-1)).toBe('websocket');
  await r.count(1);
  expect(r.values).toEqual([1]);
  r.feed.close();
});

test('a frame that makes no sense begins everything anew', async () => {
  const r = rig();
  r.feed.open();
  await pass(10);
  r.hub.say({ type: 'changes' });
  await pass(600);
  expect(r.resets()).toBe(1);
  expect(r.hub.taken.at(-1)?.after).toBeUndefined();
  r.feed.close();
});

test('who closes the feed from within a handler hears no more', async () => {
  const hub = new MiniHub();
  const heard: string[] = [];
  const feed: Feed = new Feed(
    'http://hub/',
    everything,
    {
      frame: (f) => {
        heard.push(f.type);
        feed.close();
      },
      status: (s) => heard.push(s.phase),
    },
    hub.world,
  );
  feed.open();
  await pass(1000);
  expect(heard).toEqual(['connecting', 'welcome', 'closed']);
  expect(vi.getTimerCount()).toBe(0);
});
