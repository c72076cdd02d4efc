// The little curves of the list: half an hour of one metric, asked for when a row comes into sight.

import { Lanes } from '../api/lanes';
import type { Device } from './fleet';
import type { Hub } from './hub.svelte';

const span = 30 * 60_000;
const step = 30_000;
const fresh = 5 * 60_000;
/** What comes live is drawn finer than history, so that a fleet that has just begun shows something. */
const fine = 2000;
/** A curve that has just begun is not squeezed into a corner. */
const leastSpan = 2 * 60_000;
const mostKept = 500;

export interface Spark {
  metric: string;
  at: number;
  points: readonly (readonly [t: number, v: number])[];
}

export class Sparks {
  private curves: ReadonlyMap<string, Spark> = $state.raw(new Map());
  private readonly asked = new Map<string, number>();
  /** What came since, of devices that are or were in sight. */
  private readonly tails = new Map<string, [t: number, v: number][]>();
  private readonly lanes = new Lanes(3);
  private readonly ended = new AbortController();

  constructor(private readonly hub: Hub) {}

  close(): void {
    this.ended.abort();
  }

  /** The curve of a device, if it is known. */
  of(device: Device): Spark | undefined {
    const known = this.curves.get(device.id);
    const last = known?.points[known.points.length - 1]?.[0];
    const tail = this.tails.get(device.id);
    if (known === undefined || last === undefined || tail === undefined) return known;
    return { ...known, points: [...known.points, ...tail.filter(([t]) => t > last)] };
  }

  /** Takes the newest value of a device in sight, and asks for its curve if that is not known. */
  want(device: Device): void {
    const metric = mainMetric(device);
    if (metric === undefined) return;
    const newest = device.metrics.get(metric);
    if (newest !== undefined && typeof newest.v === 'number') this.append(device.id, newest.t, newest.v);
    const before = this.asked.get(device.id) ?? 0;
    const now = this.hub.time();
    if (now - before < fresh) return;
    this.asked.set(device.id, now);
    void this.ask(device.id, metric, now);
  }

  /** Forgets everything, after a time in which readings may have been missed. */
  forget(): void {
    this.asked.clear();
  }

  private append(id: string, t: number, v: number): void {
    const tail = this.tails.get(id) ?? [];
    const last = tail[tail.length - 1]?.[0] ?? 0;
    if (t - last < fine) return;
    tail.push([t, v]);
    while (tail.length > 0 && (tail[0]?.[0] ?? 0) < t - fresh - step) tail.shift();
    this.tails.set(id, tail);
  }

  private async ask(id: string, metric: string, now: number): Promise<void> {
    const { signal } = this.ended;
    const from = Math.floor((now - span) / step) * step;
    try {
      const q = { device: id, metric, from, to: now + 1, step, agg: 'avg' as const };
      const h = await this.lanes.run(() => this.hub.api.history(q, signal), signal);
      const points = h.points.flatMap(([t, v]): [number, number][] => (typeof v === 'number' ? [[t, v]] : []));
      const curves = new Map(this.curves);
      curves.delete(id);
      curves.set(id, { metric, at: now, points });
      for (const old of curves.keys()) {
        if (curves.size <= mostKept) break;
        curves.delete(old);
        this.asked.delete(old);
        this.tails.delete(old);
      }
      this.curves = curves;
    } catch {
      this.asked.delete(id);
    }
  }
}

/** The metric that stands for a device: the first that is a number. */
export function mainMetric(device: Device): string | undefined {
  for (const [name, newest] of device.metrics) if (typeof newest.v === 'number') return name;
  return undefined;
}

/** The path of a curve in a box, broken where steps are missing. The newest value is its end. */
export function sparkPath(
  spark: Spark,
  end: { t: number; v: number } | undefined,
  now: number,
  w: number,
  h: number,
): string {
  const points = [...spark.points];
  const last = points[points.length - 1];
  if (end !== undefined && (last === undefined || end.t > last[0])) points.push([end.t, end.v]);
  const shown = points.filter(([t]) => t >= now - span - step);
  const first = shown[0]?.[0];
  if (first === undefined || shown.length < 2) return '';
  const width = Math.min(span, Math.max(leastSpan, now - first));
  let lo = Number.POSITIVE_INFINITY;
  let hi = Number.NEGATIVE_INFINITY;
  for (const [, v] of shown) {
    lo = Math.min(lo, v);
    hi = Math.max(hi, v);
  }
  const height = hi - lo;
  const usual = shown.slice(1).map(([t], i) => t - (shown[i]?.[0] ?? t));
  usual.sort((a, b) => a - b);
  const broken = Math.max(3.5 * step, 2.5 * (usual[usual.length >> 1] ?? 0));
  let path = '';
  let before = Number.NEGATIVE_INFINITY;
  for (const [t, v] of shown) {
    const x = Math.min(w, Math.max(0, ((t - now + width) / width) * w));
    const y = height === 0 ? h / 2 : h - 1.5 - ((v - lo) / height) * (h - 3);
    path += `${t - before > broken ? 'M' : 'L'}${x.toFixed(1)} ${y.toFixed(1)}`;
    before = t;
  }
  return path;
}
