// The points of one metric, and where there are none. Pure.

import type { Gap } from '../frames/http';
import type { Value } from '../frames/live';
import { precise } from './age';

/** Points in order of time, one per time. With a step each stands for the readings of one step, whose bounds are lo and hi. */
export interface Series {
  step: number;
  t: readonly number[];
  v: readonly Value[];
  lo: readonly number[];
  hi: readonly number[];
}

export const noSeries: Series = { step: 0, t: [], v: [], lo: [], hi: [] };

export type Point = readonly [t: number, v: Value];

export function fromPoints(points: readonly Point[]): Series {
  return merge(noSeries, points);
}

/** Joins the three answers about steps. A step that one of them lacks is left out. */
export function fromSteps(step: number, avg: readonly Point[], min: readonly Point[], max: readonly Point[]): Series {
  const low = new Map(min);
  const high = new Map(max);
  const s = { step, t: [] as number[], v: [] as Value[], lo: [] as number[], hi: [] as number[] };
  for (const [t, v] of avg) {
    const lo = low.get(t);
    const hi = high.get(t);
    if (typeof v !== 'number' || typeof lo !== 'number' || typeof hi !== 'number') continue;
    s.t.push(t);
    s.v.push(v);
    s.lo.push(lo);
    s.hi.push(hi);
  }
  return s;
}

/** Puts points in, in any order. A later one wins over an earlier of the same time. Without steps only. */
export function merge(s: Series, points: readonly Point[]): Series {
  if (points.length === 0) return s;
  const t = [...s.t];
  const v = [...s.v];
  const late: Point[] = [];
  for (const p of points) {
    const last = t[t.length - 1];
    if (last === undefined || p[0] > last) {
      t.push(p[0]);
      v.push(p[1]);
    } else if (p[0] === last) {
      v[v.length - 1] = p[1];
    } else {
      late.push(p);
    }
  }
  if (late.length === 0) return { ...s, t, v };
  const all = new Map<number, Value>();
  t.forEach((time, i) => {
    all.set(time, v[i] as Value);
  });
  for (const [time, value] of late) all.set(time, value);
  const times = [...all.keys()].sort((a, b) => a - b);
  return { ...s, t: times, v: times.map((time) => all.get(time) as Value) };
}

/** Replaces everything from a time on. */
export function replaceFrom(s: Series, from: number, tail: Series): Series {
  const keep = lowerBound(s.t, from);
  return {
    step: tail.step,
    t: [...s.t.slice(0, keep), ...tail.t],
    v: [...s.v.slice(0, keep), ...tail.v],
    lo: [...s.lo.slice(0, keep), ...tail.lo],
    hi: [...s.hi.slice(0, keep), ...tail.hi],
  };
}

/** Drops what is older, but keeps one point before, so that a line enters the window from its edge. */
export function trim(s: Series, from: number): Series {
  const cut = lowerBound(s.t, from) - 1;
  if (cut <= 0) return s;
  return { step: s.step, t: s.t.slice(cut), v: s.v.slice(cut), lo: s.lo.slice(cut), hi: s.hi.slice(cut) };
}

/** The index of the first time that is not before at. */
export function lowerBound(times: readonly number[], at: number): number {
  let lo = 0;
  let hi = times.length;
  while (lo < hi) {
    const mid = (lo + hi) >>> 1;
    if ((times[mid] as number) < at) lo = mid + 1;
    else hi = mid;
  }
  return lo;
}

/** The index of the point nearest to a time, -1 if there is none. */
export function nearest(times: readonly number[], at: number): number {
  const i = lowerBound(times, at);
  if (i === times.length) return i - 1;
  if (i === 0) return 0;
  return at - (times[i - 1] as number) <= (times[i] as number) - at ? i - 1 : i;
}

/** How much longer than expected silence is before it is a gap. The hub calls a device stale by the same rule. */
const overdue = 2.5;

/** The expected interval, or if nobody has said it the usual one of the points; 0 if that is not known either. */
export function usualInterval(intervalMs: number, times: readonly number[]): number {
  if (intervalMs > 0) return intervalMs;
  if (times.length < 6) return 0;
  const recent = times.slice(-200);
  const gaps = recent.slice(1).map((t, i) => t - (recent[i] as number));
  gaps.sort((a, b) => a - b);
  return gaps[gaps.length >> 1] as number;
}

/** A stretch of time without readings, and why. */
export interface Hole {
  from: number;
  to: number;
  cause: string;
}

/** How far the points should go, and why it is if they do not. */
export interface Until {
  at: number;
  cause: string;
}

/** Finds the stretches between the points that are longer than they should be, and those that the hub has recorded. */
export function holes(s: Series, intervalMs: number, gaps: readonly Gap[], until?: Until): Hole[] {
  const usual = usualInterval(intervalMs, s.step > 0 ? [] : s.t);
  // The readings of a step may lie anywhere in it.
  const limit = usual === 0 && s.step === 0 ? Number.POSITIVE_INFINITY : Math.max(overdue * usual, 1.5 * s.step);
  const found: Hole[] = [];
  for (let i = 1; i < s.t.length; i++) {
    const before = (s.t[i - 1] as number) + s.step;
    const after = s.t[i] as number;
    if (after - (s.t[i - 1] as number) > limit) found.push({ from: before, to: after, cause: '' });
  }
  const last = s.t[s.t.length - 1];
  if (until !== undefined && last !== undefined && until.at - last > limit + s.step) {
    found.push({ from: last + s.step, to: until.at, cause: until.cause });
  }
  const rest: Hole[] = [];
  for (const g of gaps) {
    if (g.from === 0 || g.to === 0) continue;
    const hole = found.find((h) => g.from <= h.to && g.to >= h.from);
    if (hole === undefined) rest.push({ from: g.from, to: g.to, cause: gapCause(g) });
    else hole.cause = hole.cause === '' ? gapCause(g) : `${hole.cause}; ${gapCause(g)}`;
  }
  for (const h of found) {
    if (h.cause === '')
      h.cause = `No readings for ${precise(h.to - h.from)}${usual > 0 ? `, expected every ${precise(usual)}` : ''}`;
  }
  return [...found, ...rest].sort((a, b) => a.from - b.from);
}

const causes: Record<string, string> = {
  spool_full: 'Lost on the device: its store was full',
  damaged: 'Lost by damage to a disk',
  sensor: 'The sensor gave no readings',
  jump: 'Lost on the way: the device skipped numbers',
  refused: 'Refused by the hub: not readable',
  skipped: 'Skipped by the device',
};

function gapCause(g: Gap): string {
  const cause = causes[g.cause] ?? `Lost: ${g.cause}`;
  return g.count > 0 ? `${cause} (${g.count} ${g.count === 1 ? 'reading' : 'readings'})` : cause;
}

/** The columns that are drawn: times in seconds, and null wherever the line must not be joined. */
export interface Columns {
  x: number[];
  y: (number | null)[];
  lo: (number | null)[];
  hi: (number | null)[];
}

export function columns(s: Series, gaps: readonly Hole[], shown: (v: number) => number): Columns {
  const c: Columns = { x: [], y: [], lo: [], hi: [] };
  let next = 0;
  for (let i = 0; i < s.t.length; i++) {
    const t = s.t[i] as number;
    for (; next < gaps.length && (gaps[next] as Hole).to <= t; next++) {
      const middle = ((gaps[next] as Hole).from + (gaps[next] as Hole).to) / 2;
      if (i > 0 && middle > (s.t[i - 1] as number) && middle < t) push(c, middle / 1000, null, null, null);
    }
    const v = asNumber(s.v[i] as Value);
    // A step is drawn in its middle.
    if (s.step > 0) push(c, (t + s.step / 2) / 1000, shown(v), shown(s.lo[i] as number), shown(s.hi[i] as number));
    else push(c, t / 1000, Number.isNaN(v) ? null : shown(v), null, null);
  }
  return c;
}

function push(c: Columns, x: number, y: number | null, lo: number | null, hi: number | null): void {
  const last = c.x[c.x.length - 1];
  if (last !== undefined && x <= last) return;
  c.x.push(x);
  c.y.push(y);
  c.lo.push(lo);
  c.hi.push(hi);
}

/** A value as something that can be drawn; NaN for text. */
export function asNumber(v: Value): number {
  if (typeof v === 'number') return v;
  if (typeof v === 'boolean') return v ? 1 : 0;
  return Number.NaN;
}

export interface Summary {
  count: number;
  min: number;
  max: number;
  avg: number;
}

/** The bounds of what lies in a window, undefined if nothing does. */
export function summary(s: Series, from: number, to: number): Summary | undefined {
  let min = Number.POSITIVE_INFINITY;
  let max = Number.NEGATIVE_INFINITY;
  let sum = 0;
  let count = 0;
  for (let i = lowerBound(s.t, from); i < s.t.length && (s.t[i] as number) < to; i++) {
    const v = asNumber(s.v[i] as Value);
    if (Number.isNaN(v)) continue;
    min = Math.min(min, s.step > 0 ? (s.lo[i] as number) : v);
    max = Math.max(max, s.step > 0 ? (s.hi[i] as number) : v);
    sum += v;
    count++;
  }
  return count === 0 ? undefined : { count, min, max, avg: sum / count };
}
