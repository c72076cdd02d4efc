// What the page of one device shows: the history of its metrics in a window, kept up to date by the live feed.
//
// No point is missing: history is asked for once the feed is live, what the feed brings meanwhile is put in behind it, and
// after a connection was lost the feed resumes by its token while the range in question is read from history again.

import { ApiError, type HistoryQuery } from '../api/api';
import { Lanes } from '../api/lanes';
import type { Feed } from '../feed/feed';
import type { DeviceInfo, Gap, History, Metric } from '../frames/http';
import type { Frame, Reading } from '../frames/live';
import type { Hub } from './hub.svelte';
import { drawsRaw, mostPoints, type Range, stepFor, windowOf } from './range';
import { fromPoints, fromSteps, merge, noSeries, type Point, replaceFrom, type Series, trim } from './series';

export interface MetricView {
  metric: Metric;
  series: Series;
  gaps: readonly Gap[];
  loading: boolean;
  /** Why there is nothing to show, empty if all is well. */
  error: string;
  /** Said by the hub if something in the range is damaged. */
  damage: string;
}

/** What is known of a metric besides what is shown. */
interface Backlog {
  /** Came from the feed and is not shown yet. */
  points: Point[];
  /** From here on history must be read again. */
  dirty: number;
  timer: ReturnType<typeof setTimeout> | undefined;
  abort: AbortController;
}

const flushEvery = 250;
const clean = Number.POSITIVE_INFINITY;

export class Watch {
  info: DeviceInfo | undefined = $state.raw();
  views: ReadonlyMap<string, MetricView> = $state.raw(new Map());
  error = $state('');
  /** Whether the feed of this device brings every reading now. */
  live = $state(false);

  private range: Range;
  private readonly backlogs = new Map<string, Backlog>();
  private readonly lanes = new Lanes(4);
  private readonly ended = new AbortController();
  private readonly feed: Feed;
  private flushing: ReturnType<typeof setTimeout> | undefined;
  private begun = false;
  private liveUntil = 0;
  private asking = false;

  constructor(
    private readonly hub: Hub,
    private readonly id: string,
    range: Range,
  ) {
    this.range = range;
    this.feed = hub.open(
      { devices: [id], mode: 'all', tick: 200 },
      {
        frame: (frame) => this.take(frame),
        status: (status) => this.changed(status.phase === 'live'),
        reset: () => {
          this.begun = false;
        },
      },
    );
  }

  close(): void {
    this.ended.abort();
    this.feed.close();
    clearTimeout(this.flushing);
    for (const b of this.backlogs.values()) stop(b);
  }

  wake(): void {
    this.feed.wake();
  }

  setRange(range: Range): void {
    const same = JSON.stringify(range) === JSON.stringify(this.range);
    this.range = range;
    if (!same && this.begun) for (const name of this.views.keys()) void this.load(name);
  }

  private changed(live: boolean): void {
    const was = this.live;
    this.live = live;
    if (was && !live) this.liveUntil = this.hub.time();
    if (!live || was) return;
    if (!this.begun) {
      this.begun = true;
      void this.learn(true);
      return;
    }
    void this.learn(false);
    for (const [name, view] of this.views) {
      if (view.error === '') this.soil(name, this.liveUntil - 60_000, 0);
      else void this.load(name);
    }
  }

  // Asks what there is to know about the device, and begins with the metrics that are new.
  private async learn(anew: boolean): Promise<void> {
    if (this.asking) return;
    this.asking = true;
    try {
      this.info = await this.hub.api.device(this.id, this.ended.signal);
      this.error = '';
      const views = new Map(this.views);
      const fresh: string[] = [];
      for (const metric of this.info.metrics) {
        const view = views.get(metric.name);
        // Another unit or kind is another version of the metric, which is not joined with the one before.
        const other = view !== undefined && (view.metric.unit !== metric.unit || view.metric.kind !== metric.kind);
        if (view === undefined || other || anew) fresh.push(metric.name);
        if (other) {
          views.set(metric.name, newView(metric));
          continue;
        }
        views.set(metric.name, view === undefined ? newView(metric) : { ...view, metric });
      }
      this.views = views;
      for (const name of fresh) void this.load(name);
    } catch (err) {
      if (!this.ended.signal.aborted) this.error = words(err);
    } finally {
      this.asking = false;
    }
  }

  private take(frame: Frame): void {
    if (frame.type !== 'readings') return;
    let unknown = false;
    for (const r of frame.readings) {
      if (!this.views.has(r.metric)) unknown = true;
      this.remember(r);
    }
    if (unknown) void this.learn(false);
    this.flushing ??= setTimeout(() => this.flush(), flushEvery);
  }

  private remember(r: Reading): void {
    this.backlog(r.metric).points.push([r.t, r.v]);
  }

  private backlog(name: string): Backlog {
    let b = this.backlogs.get(name);
    if (b === undefined) {
      b = { points: [], dirty: clean, timer: undefined, abort: new AbortController() };
      this.backlogs.set(name, b);
    }
    return b;
  }

  private flush(): void {
    this.flushing = undefined;
    const views = new Map(this.views);
    const window = windowOf(this.range, this.hub.time());
    const known = this.hub.fleet.devices.get(this.id)?.metrics;
    for (const [name, view] of views) {
      const unit = known?.get(name)?.unit;
      if (unit !== undefined && unit !== view.metric.unit) void this.learn(false);
    }
    for (const [name, b] of this.backlogs) {
      const view = views.get(name);
      if (view === undefined || view.loading || b.points.length === 0) continue;
      const points = this.within(b.points);
      b.points = [];
      if (view.series.step > 0) {
        const first = Math.min(...points.map(([t]) => t));
        if (Number.isFinite(first)) this.soil(name, first, Math.min(Math.max(view.series.step / 4, 2000), 30_000));
        continue;
      }
      const before = view.series.t[view.series.t.length - 1] ?? 0;
      const series = trim(merge(view.series, points), window.from);
      views.set(name, { ...view, series });
      // The hub may know why there was a pause.
      const interval = view.metric.intervalMs || this.info?.intervalMs || 0;
      const next = points[0]?.[0] ?? 0;
      if (interval > 0 && before > 0 && next - before > 2.5 * interval) this.soil(name, before, 1500);
    }
    this.views = views;
  }

  private within(points: Point[]): Point[] {
    const { range } = this;
    return range.live ? points : points.filter(([t]) => t >= range.from && t < range.to);
  }

  /** History from there on is read again, after a while in which more may come together. */
  private soil(name: string, from: number, delay: number): void {
    const b = this.backlog(name);
    b.dirty = Math.min(b.dirty, from);
    b.timer ??= setTimeout(() => {
      b.timer = undefined;
      void this.reload(name);
    }, delay);
  }

  private async load(name: string): Promise<void> {
    const b = this.backlog(name);
    stop(b);
    b.dirty = clean;
    b.abort = new AbortController();
    const { signal } = b.abort;
    const window = windowOf(this.range, this.hub.time());
    this.update(name, { loading: true, error: '' });
    try {
      const found = await this.read(name, window.from, this.end(window.to), undefined, signal);
      const points = found.series.step > 0 ? [] : this.within(b.points);
      if (found.series.step === 0) b.points = [];
      this.update(name, { ...found, series: merge(found.series, points), loading: false });
    } catch (err) {
      if (!signal.aborted) this.update(name, { loading: false, error: words(err) });
    }
  }

  private async reload(name: string): Promise<void> {
    const view = this.views.get(name);
    const b = this.backlog(name);
    if (view === undefined || b.dirty === clean) return;
    if (view.loading) {
      this.soil(name, b.dirty, 500);
      return;
    }
    const window = windowOf(this.range, this.hub.time());
    const { step } = view.series;
    let from = Math.max(b.dirty, window.from);
    if (step > 0) from = Math.floor(from / step) * step;
    b.dirty = clean;
    if (from >= window.to) return;
    b.abort = new AbortController();
    const { signal } = b.abort;
    this.update(name, { loading: true });
    try {
      const found = await this.read(name, from, this.end(window.to), step, signal);
      const points = step > 0 ? [] : this.within(b.points);
      b.points = [];
      const gaps = view.gaps.filter((g) => g.to < from);
      this.update(name, {
        series: trim(replaceFrom(view.series, from, merge(found.series, points)), window.from),
        gaps: [...gaps, ...found.gaps],
        damage: found.damage || view.damage,
        loading: false,
        error: '',
      });
    } catch {
      if (signal.aborted) return;
      // It is asked for again when the connection is back.
      b.dirty = Math.min(b.dirty, from);
      this.update(name, { loading: false });
    }
  }

  // Devices whose clock is ahead a little are in the window too.
  private end(to: number): number {
    return this.range.live ? to + 300_000 : to;
  }

  private async read(
    name: string,
    from: number,
    to: number,
    step: number | undefined,
    signal: AbortSignal,
  ): Promise<{ series: Series; gaps: readonly Gap[]; damage: string }> {
    const view = this.views.get(name);
    const base = { device: this.id, metric: name, from, to };
    const window = windowOf(this.range, this.hub.time());
    const span = window.to - window.from;
    const raw = step === undefined ? drawsRaw(span, view?.metric.intervalMs || this.info?.intervalMs || 0) : step === 0;
    if (raw !== false) {
      const limit = step === undefined ? { limit: mostPoints * 2 } : {};
      const h = await this.ask({ ...base, step: 0, ...limit }, signal);
      if (h.next === undefined) return { series: fromPoints(h.points), gaps: h.gaps, damage: h.damage };
    }
    const width = step || stepFor(span);
    const steps = { ...base, from: Math.floor(from / width) * width, step: width };
    if (view?.metric.kind === 'text') {
      const h = await this.ask({ ...steps, agg: 'last' }, signal);
      return { series: fromPoints(h.points), gaps: h.gaps, damage: h.damage };
    }
    const [avg, min, max] = await Promise.all([
      this.ask({ ...steps, agg: 'avg' }, signal),
      this.ask({ ...steps, agg: 'min' }, signal),
      this.ask({ ...steps, agg: 'max' }, signal),
    ]);
    return { series: fromSteps(width, avg.points, min.points, max.points), gaps: avg.gaps, damage: avg.damage };
  }

  private ask(q: HistoryQuery, signal: AbortSignal): Promise<History> {
    const either = AbortSignal.any([signal, this.ended.signal]);
    return this.lanes.run(() => this.hub.api.history(q, either), either);
  }

  private update(name: string, change: Partial<MetricView>): void {
    const view = this.views.get(name);
    if (view === undefined || this.ended.signal.aborted) return;
    this.views = new Map(this.views).set(name, { ...view, ...change });
  }
}

function newView(metric: Metric): MetricView {
  return { metric, series: noSeries, gaps: [], loading: true, error: '', damage: '' };
}

function stop(b: Backlog): void {
  clearTimeout(b.timer);
  b.timer = undefined;
  b.abort.abort();
}

function words(err: unknown): string {
  return err instanceof ApiError ? err.message : 'The hub gave an answer that this page does not understand.';
}
