import { expect, test, vi } from 'vitest';
import type { DeviceState, Frame, Presence } from '../frames/live';
import { ago, duration, precise } from './age';
import { reduceConnection, unconnected } from './connection';
import { count, emptyFleet, type Filter, type Fleet, reduceFleet, select } from './fleet';
import { drawsRaw, pan, parseRange, rangeQuery, selectRange, spans, stepFor, windowOf, zoom } from './range';
import { deviceHash, parseRoute, routeHash } from './route';
import { formatLine, metricTitle, qualityWords } from './units';

function device(id: string, presence: Presence = 'live', more: Partial<DeviceState> = {}): DeviceState {
  return { id, name: '', presence, seen: 1, changed: 1, gone: false, metrics: new Map(), ...more };
}

const value = (t: number, v: number) => ({ t, v, unit: 'Cel', quality: 0 });

function run(...frames: Frame[]): Fleet {
  return frames.reduce(reduceFleet, emptyFleet);
}

const all: Filter = { text: '', presence: undefined, order: 'name' };
const snapshot = (devices: DeviceState[], more = false): Frame => ({
  type: 'snapshot',
  token: 't',
  now: 1,
  more,
  devices,
});
const changes = (devices: DeviceState[], now?: number, more = false): Frame => ({
  type: 'changes',
  token: 't',
  now,
  more,
  devices,
});

test('a snapshot in parts is shown when it is whole', () => {
  const half = run(snapshot([device('a')], true));
  expect(half.known).toBe(false);
  expect(half.devices.size).toBe(0);
  expect([...reduceFleet(half, snapshot([device('b')])).devices.keys()]).toEqual(['a', 'b']);
  const again = reduceFleet(half, { type: 'welcome', text: '', version: '', started: 1 });
  expect([...reduceFleet(again, snapshot([device('b')])).devices.keys()]).toEqual(['b']);
});

test('changes keep what did not change', () => {
  const f = run(
    snapshot([
      device('a', 'live', {
        name: 'A',
        metrics: new Map([
          ['t', value(1, 1)],
          ['h', value(1, 5)],
        ]),
      }),
    ]),
    changes([device('a', 'stale', { seen: 9, metrics: new Map([['t', value(2, 2)]]) })]),
  );
  const a = f.devices.get('a');
  expect(a).toMatchObject({ name: 'A', presence: 'stale', seen: 9 });
  expect(a?.metrics.get('t')?.v).toBe(2);
  expect(a?.metrics.get('h')?.v).toBe(5);
});

test('what was deleted goes, also if it was while nobody listened', () => {
  const f = run(snapshot([device('a'), device('b'), device('c')]), changes([device('a', 'offline', { gone: true })]));
  expect([...f.devices.keys()]).toEqual(['b', 'c']);
  const kept = f.devices.get('c');
  const resumed = reduceFleet(f, changes([device('c', 'live', { seen: 0 })], 5));
  expect([...resumed.devices.keys()]).toEqual(['c']);
  expect(resumed.devices.get('c')?.seen).toBe(kept?.seen);
});

test('the order is made anew only when it can have changed', () => {
  const f = run(snapshot([device('a'), device('b')]));
  expect(reduceFleet(f, changes([device('a')])).shape).toBe(f.shape);
  expect(reduceFleet(f, changes([device('a', 'stale')])).shape).not.toBe(f.shape);
  expect(reduceFleet(f, changes([device('z')])).shape).not.toBe(f.shape);
});

test('the list is filtered and ordered', () => {
  const f = run(
    snapshot([
      device('d10', 'live'),
      device('d9', 'offline'),
      device('d2', 'stale', { name: 'Zoo, north' }),
      device('d3', 'never'),
      device('d1', 'live', { name: 'Attic' }),
    ]),
  );
  expect(select(f, all)).toEqual(['d1', 'd3', 'd9', 'd10', 'd2']);
  expect(select(f, { ...all, order: 'attention' })).toEqual(['d2', 'd9', 'd1', 'd10', 'd3']);
  expect(select(f, { ...all, text: ' NORTH  d2' })).toEqual(['d2']);
  expect(select(f, { ...all, presence: 'offline' })).toEqual(['d9']);
  expect(count(f)).toEqual({ live: 2, stale: 1, offline: 1, never: 1 });
});

test('ten thousand devices change without looking at all of them for each', () => {
  const f = run(snapshot(Array.from({ length: 10_000 }, (_, i) => device(`d${i}`))));
  const changed = changes(
    Array.from({ length: 10_000 }, (_, i) => device(`d${i}`, 'live', { metrics: new Map([['t', value(2, i)]]) })),
  );
  let visited = 0; // entries of all maps that are walked through: of time a busy machine takes as much as it likes
  const walks = (['entries', 'keys', 'values', Symbol.iterator] as const).map((way) => {
    const walk = Map.prototype[way] as () => MapIterator<[unknown, unknown]>;
    return vi.spyOn(Map.prototype, way).mockImplementation(function (this: Map<unknown, unknown>) {
      visited += this.size;
      return walk.call(this);
    });
  });
  const after = reduceFleet(f, changed);
  for (const walk of walks) walk.mockRestore();
  expect(after.devices.get('d77')?.metrics.get('t')?.v).toBe(77);
  expect(visited).toBeGreaterThanOrEqual(10_000); // the fleet before it is kept
  expect(visited).toBeLessThan(100_000);
});

test('the connection tells how old things are, and of a restart once', () => {
  const hello = (started: number) => ({ type: 'welcome', text: 'web Socket Works', version: '1', started }) as const;
  let c = reduceConnection(unconnected, hello(1));
  c = reduceConnection(c, { type: 'status', status: { phase: 'live', transport: 'sse', trueAt: 10 } });
  expect(c).toMatchObject({ trueAt: 10, transport: 'sse' });
  c = reduceConnection(c, { type: 'status', status: { phase: 'waiting', until: 99, trueAt: 20 } });
  expect(c).toMatchObject({ trueAt: 20, retryAt: 99, restarted: false });
  expect(reduceConnection(c, hello(1)).restarted).toBe(false);
  c = reduceConnection(c, hello(2));
  expect(c.restarted).toBe(true);
  expect(reduceConnection(c, { type: 'read' }).restarted).toBe(false);
});

test('routes stand in the fragment', () => {
  expect(parseRoute('#link=thl_abc')).toEqual({ view: 'link', secret: 'thl_abc' });
  expect(parseRoute('')).toEqual({ view: 'list' });
  expect(parseRoute('#/add')).toEqual({ view: 'add' });
  expect(parseRoute('#/connection')).toEqual({ view: 'connection' });
  expect(parseRoute('#/devices/a.b-1?range=6h')).toEqual({
    view: 'device',
    id: 'a.b-1',
    range: { live: true, span: 21_600_000 },
  });
  expect(parseRoute('#/devices/../x')).toEqual({ view: 'list' });
  for (const range of [
    { live: true, span: 3_600_000 },
    { live: true, span: 90_000 },
    { live: false, from: 1e12, to: 1e12 + 60_000 },
  ] as const) {
    const route = { view: 'device', id: 'a', range } as const;
    expect(parseRoute(routeHash(route))).toEqual(route);
  }
  expect(parseRoute(deviceHash('a'))).toMatchObject({ view: 'device', range: { live: true, span: 900_000 } });
});

test('ranges that make no sense are the usual one', () => {
  for (const q of ['', 'range=x', 'range=99999999999s', 'from=5', 'from=9e12&to=1', 'from=1&to=1e300']) {
    expect(parseRange(new URLSearchParams(q))).toEqual({ live: true, span: 900_000 });
  }
  expect(rangeQuery({ live: true, span: 900_000 })).toBe('range=15m');
});

test('windows move and zoom without a mouse', () => {
  const now = 1e12;
  const hour = { live: true, span: 3_600_000 } as const;
  const back = pan(hour, -1, now);
  expect(windowOf(back, now)).toEqual({ from: now - 5_400_000, to: now - 1_800_000 });
  expect(pan(back, 1, now)).toEqual(hour);
  expect(zoom(hour, 2)).toEqual({ live: true, span: 7_200_000 });
  expect(zoom({ live: false, from: 0, to: 100_000 }, 0.5)).toEqual({ live: false, from: 25_000, to: 75_000 });
  expect(zoom({ live: true, span: 10_000 }, 0.5)).toEqual({ live: true, span: 10_000 });
  expect(selectRange(5, 6)).toBeUndefined();
});

test('long windows are cut into a few hundred steps', () => {
  for (const s of spans) expect(s.span / stepFor(s.span)).toBeLessThanOrEqual(400);
  expect(stepFor(86_400_000)).toBe(300_000);
  expect(drawsRaw(3_600_000, 1000)).toBe(true);
  expect(drawsRaw(86_400_000, 1000)).toBe(false);
  expect(drawsRaw(1, 0)).toBeUndefined();
});

test('ages and values read as people say them', () => {
  expect([0, 999, 3200, 65_000, 3_600_000, 7_500_000, 90_000_000].map(duration)).toEqual([
    '0 s',
    '0 s',
    '3 s',
    '1 min',
    '1 h',
    '2 h 5 min',
    '1 d',
  ]);
  expect(ago(500)).toBe('now');
  expect(precise(192_000)).toBe('3 min 12 s');
  expect(formatLine(20.04, 'Cel')).toBe('20.0\u00a0°C');
  expect(formatLine(101_325.4, 'Pa')).toMatch(/^1.?013\.3\u00a0hPa$/);
  expect(formatLine(1.5e-9, 'mol')).toBe('1.5E-9\u00a0mol');
  expect(formatLine(true, '')).toBe('on');
  expect(formatLine('<b>', '')).toBe('<b>');
  expect(metricTitle('rain/total')).toBe('Rain total');
  expect(qualityWords(17)).toBe('suspect, out of range');
});
