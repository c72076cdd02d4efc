import { expect, test } from 'vitest';
import {
  columns,
  fromPoints,
  fromSteps,
  holes,
  lowerBound,
  merge,
  nearest,
  type Point,
  replaceFrom,
  summary,
  trim,
  usualInterval,
} from './series';
import { sparkPath } from './sparks.svelte';

const every = (from: number, to: number, step: number): Point[] => {
  const list: Point[] = [];
  for (let t = from; t < to; t += step) list.push([t, t / 10]);
  return list;
};
const same = (v: number) => v;

test('points come in any order and more than once, and each stands once', () => {
  const points = every(0, 1000, 10);
  let seed = 7;
  const random = () => {
    seed = (seed * 16807) % 2147483647;
    return seed / 2147483647;
  };
  for (let round = 0; round < 50; round++) {
    const shuffled = [...points, ...points.slice(0, 30)].sort(() => random() - 0.5);
    let s = fromPoints([]);
    for (let i = 0; i < shuffled.length; ) {
      const n = 1 + Math.floor(random() * 20);
      s = merge(s, shuffled.slice(i, i + n));
      i += n;
    }
    expect(s.t).toEqual(points.map(([t]) => t));
    expect(s.v).toEqual(points.map(([, v]) => v));
  }
  expect(merge(fromPoints([[1, 1]]), [[1, 2]]).v).toEqual([2]);
});

test('a tail is replaced, and what left the window is dropped', () => {
  const s = replaceFrom(fromPoints(every(0, 100, 10)), 50, fromPoints([[55, 1]]));
  expect(s.t).toEqual([0, 10, 20, 30, 40, 55]);
  expect(trim(s, 25).t).toEqual([20, 30, 40, 55]);
  expect(trim(s, 0)).toBe(s);
});

test('silence is a gap when it is longer than two and a half intervals', () => {
  const s = fromPoints([...every(0, 100, 10), ...every(125, 200, 10), ...every(300, 400, 10)]);
  expect(holes(s, 10, []).map((h) => [h.from, h.to])).toEqual([
    [90, 125],
    [195, 300],
  ]);
  expect(holes(s, 10, [])[1]?.cause).toBe('No readings for 0.1 s, expected every 0.0 s');
  expect(holes(s, 50, []).length).toBe(0);
  expect(
    holes(
      fromPoints([
        [0, 1],
        [9_000_000, 2],
      ]),
      0,
      [],
    ),
  ).toEqual([]); // nobody knows what to expect
});

test('what the hub has recorded says why', () => {
  const s = fromPoints([...every(0, 100_000, 10_000), ...every(300_000, 400_000, 10_000)]);
  const gap = { from: 100_000, to: 290_000, count: 20, cause: 'spool_full' };
  expect(holes(s, 10_000, [gap])).toEqual([
    { from: 90_000, to: 300_000, cause: 'Lost on the device: its store was full (20 readings)' },
  ]);
  // Also where it is too short to be seen, and where its cause is new to this page.
  expect(holes(s, 10_000, [{ from: 11_000, to: 12_000, count: 1, cause: 'rust' }])[0]).toEqual({
    from: 11_000,
    to: 12_000,
    cause: 'Lost: rust (1 reading)',
  });
  expect(holes(s, 10_000, [{ ...gap, from: 0 }])[0]?.cause).toContain('No readings for');
});

test('the silence that lasts is a gap too', () => {
  const s = fromPoints(every(0, 100_000, 10_000));
  expect(holes(s, 10_000, [], { at: 110_000, cause: 'x' })).toEqual([]);
  expect(holes(s, 10_000, [], { at: 190_000, cause: 'x' })).toEqual([{ from: 90_000, to: 190_000, cause: 'x' }]);
});

test('a line is never drawn through a gap', () => {
  const s = fromPoints([...every(0, 100, 10), ...every(300, 400, 10)]);
  const c = columns(s, holes(s, 10, []), same);
  expect(c.x.length).toBe(21);
  expect(c.y[10]).toBeNull();
  expect([...c.x].sort((a, b) => a - b)).toEqual(c.x);
});

test('steps have bounds, and a step that is missing is a gap', () => {
  const t = [0, 60_000, 240_000];
  const s = fromSteps(
    60_000,
    t.map((x) => [x, 2]),
    t.map((x) => [x, 1]),
    t.map((x) => [x, 3]),
  );
  const found = holes(s, 10_000, []);
  expect(found.map((h) => [h.from, h.to])).toEqual([[120_000, 240_000]]);
  const c = columns(s, found, same);
  expect(c.y).toEqual([2, 2, null, 2]);
  expect(c.lo).toEqual([1, 1, null, 1]);
  expect(c.x).toEqual([30, 90, 180, 270]);
  expect(summary(s, 0, 300_000)).toEqual({ count: 3, min: 1, max: 3, avg: 2 });
  expect(fromSteps(1, [[1, 1]], [], []).t).toEqual([]);
});

test('booleans are drawn, text is not', () => {
  const c = columns(
    fromPoints([
      [1, true],
      [2, false],
      [3, 'on'],
    ]),
    [],
    same,
  );
  expect(c.y).toEqual([1, 0, null]);
  expect(summary(fromPoints([[1, 'a']]), 0, 9)).toBeUndefined();
});

test('the usual interval is declared, or seen', () => {
  expect(usualInterval(5, [])).toBe(5);
  expect(usualInterval(0, [1, 2, 3])).toBe(0);
  expect(usualInterval(0, [0, 10, 20, 30, 500, 510, 520])).toBe(10);
});

test('searching', () => {
  const t = [10, 20, 30];
  expect([5, 10, 11, 30, 31].map((x) => lowerBound(t, x))).toEqual([0, 0, 1, 2, 3]);
  expect([0, 14, 16, 99].map((x) => nearest(t, x))).toEqual([0, 0, 1, 2]);
  expect(nearest([], 1)).toBe(-1);
});

test('a little curve is broken where steps are missing', () => {
  const now = 1_800_000;
  const at = (...times: number[]) => ({ metric: 'm', at: 0, points: times.map((t) => [t * 1000, t] as const) });
  expect(sparkPath(at(0, 30, 60, 600, 630, 660), undefined, now, 120, 30).match(/M/g)?.length).toBe(2);
  expect(sparkPath(at(0, 300, 600, 900, 1200), undefined, now, 120, 30).match(/M/g)?.length).toBe(1);
  expect(sparkPath(at(0), undefined, now, 120, 30)).toBe('');
  expect(sparkPath(at(0), { t: 60_000, v: 1 }, now, 120, 30)).toMatch(/^M.*L/);
});
