// uPlot, set up the way every chart of the page is. Colours come from the page, so that they follow its theme.

import uPlot from 'uplot';
import 'uplot/dist/uPlot.min.css';
import { columns, type Hole, type Series } from '../../state/series';
import { formatNumber, scale } from '../../state/units';

export interface ChartData {
  series: Series;
  holes: readonly Hole[];
  unit: string;
  /** Drawn as steps: a state stays what it is until it changes. */
  stepped: boolean;
  /** It is on or off. */
  flag: boolean;
  from: number;
  to: number;
}

export interface ChartHandlers {
  /** The time under the cursor in ms, undefined when it leaves. */
  hover(at: number | undefined): void;
  /** Somebody dragged over a range. */
  selected(from: number, to: number): void;
}

/** The distances between the lines of the scale: 1, 2 and 5 read best. */
const increments = Array.from({ length: 31 }, (_, i) => i - 15).flatMap((e) =>
  [1, 2, 5].map((n) => Number(`${n}e${e}`)),
);

/** One for all charts of the page: their cursors move together. */
const sync = uPlot.sync('device');

const clock = new Intl.DateTimeFormat(undefined, { hour: 'numeric', minute: '2-digit' });
const seconds = new Intl.DateTimeFormat(undefined, { hour: 'numeric', minute: '2-digit', second: '2-digit' });
const dayMonth = new Intl.DateTimeFormat(undefined, { day: 'numeric', month: 'short' });

function timeLabels(splits: number[], step: number): string[] {
  let day = '';
  return splits.map((s) => {
    const date = new Date(s * 1000);
    const today = date.toDateString();
    const midnight = date.getHours() === 0 && date.getMinutes() === 0;
    const first = day !== '' && today !== day;
    day = today;
    if (midnight || first || step >= 86_400) return dayMonth.format(date);
    return (step < 60 ? seconds : clock).format(date);
  });
}

/** A label that would be cut at the right edge is left out. */
function fitting(u: uPlot, splits: number[], labels: string[]): string[] {
  const edge = u.bbox.width / devicePixelRatio + right;
  return labels.map((label, i) => (u.valToPos(splits[i] ?? 0, 'x') + 3.5 * label.length > edge ? '' : label));
}

/** Theme colours as the canvas needs them: resolved. */
function colours(host: HTMLElement): (name: string) => string {
  const probe = document.createElement('span');
  probe.hidden = true;
  host.append(probe);
  const known = new Map<string, string>();
  return (name) => {
    let value = known.get(name);
    if (value === undefined) {
      probe.style.color = `var(--${name})`;
      value = getComputedStyle(probe).color;
      known.set(name, value);
    }
    return value;
  };
}

function fade(colour: string, alpha: number): string {
  return colour.replace(/^rgb\(([^)]*)\)$/, `rgba($1, ${alpha})`);
}

export interface Chart {
  set(data: ChartData): void;
  resize(width: number): void;
  destroy(): void;
}

const height = 200;
/** Room beside the plot, for half a label. */
const right = 18;

export function makeChart(host: HTMLElement, first: ChartData, handlers: ChartHandlers): Chart {
  let data = first;
  let colour = colours(host);
  let last = { series: undefined as Series | undefined, holes: undefined as readonly Hole[] | undefined };

  const options: uPlot.Options = {
    width: Math.max(host.clientWidth, 50),
    height,
    padding: [8, right, 0, 0],
    legend: { show: false },
    scales: {
      x: { time: true, auto: false, range: () => [data.from / 1000, data.to / 1000] },
      y: { range: (_, min, max) => yRange(min, max, data.flag) },
    },
    axes: [
      {
        stroke: () => colour('muted'),
        grid: { stroke: () => colour('line'), width: 1 },
        ticks: { show: false },
        font: '12px system-ui, sans-serif',
        size: 26,
        space: 70,
        values: (u, splits, _, __, step) => fitting(u, splits, timeLabels(splits, step)),
      },
      {
        stroke: () => colour('muted'),
        grid: { stroke: () => colour('line'), width: 1 },
        ticks: { show: false },
        font: '12px system-ui, sans-serif',
        size: (_, values) => 14 + 7 * Math.max(2, ...(values ?? []).map((v) => v.length)),
        space: 34,
        incrs: increments,
        ...(first.flag ? { splits: () => [0, 1] } : {}),
        values: (_, splits, __, ___, step) => {
          if (first.flag) return ['off', 'on'];
          const digits = Math.max(0, Math.ceil(-Math.log10(step || 1) - 1e-9));
          const f = new Intl.NumberFormat(undefined, { minimumFractionDigits: digits, maximumFractionDigits: digits });
          return splits.map((v) => (Math.abs(v) >= 1e7 || digits > 6 ? formatNumber(v, '') : f.format(v)));
        },
      },
    ],
    series: [
      {},
      {
        stroke: () => colour('accent'),
        width: 1.75,
        spanGaps: false,
        points: { show: (u, i) => lonely(u, i) || (u.data[0].length < 40 && !data.stepped), size: 5 },
        ...(first.stepped && uPlot.paths.stepped !== undefined ? { paths: uPlot.paths.stepped({ align: 1 }) } : {}),
      },
      { stroke: 'transparent', width: 0, spanGaps: false, points: { show: false } },
      { stroke: 'transparent', width: 0, spanGaps: false, points: { show: false } },
    ],
    bands: [{ series: [3, 2], fill: () => fade(colour('accent'), 0.18) }],
    cursor: {
      sync: { key: sync.key, setSeries: false },
      drag: { x: true, y: false, setScale: false, dist: 8 },
      points: { size: 7 },
      y: false,
    },
    hooks: {
      drawClear: [(u) => shade(u, data.holes, colour)],
      setCursor: [
        (u) => {
          const { left } = u.cursor;
          handlers.hover(left === undefined || left < 0 ? undefined : u.posToVal(left, 'x') * 1000);
        },
      ],
      setSelect: [
        (u) => {
          if (u.select.width > 0) {
            handlers.selected(
              u.posToVal(u.select.left, 'x') * 1000,
              u.posToVal(u.select.left + u.select.width, 'x') * 1000,
            );
            u.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
          }
        },
      ],
    },
  };
  const plot = new uPlot(options, drawn(first), host);

  const dark = window.matchMedia('(prefers-color-scheme: dark)');
  const repaint = () => {
    colour = colours(host);
    plot.redraw(false, true);
  };
  dark.addEventListener('change', repaint);

  return {
    set(next) {
      data = next;
      if (last.series !== next.series || last.holes !== next.holes) {
        last = { series: next.series, holes: next.holes };
        plot.setData(drawn(next), false);
      }
      plot.setScale('x', { min: next.from / 1000, max: next.to / 1000 });
    },
    resize(width) {
      if (width !== plot.width && width > 0) plot.setSize({ width, height });
    },
    destroy() {
      dark.removeEventListener('change', repaint);
      plot.destroy();
    },
  };
}

function drawn(data: ChartData): uPlot.AlignedData {
  const c = columns(data.series, data.holes, (v) => scale(v, data.unit));
  return [c.x, c.y, c.lo, c.hi];
}

function yRange(min: number | null, max: number | null, flag: boolean): [number, number] {
  if (flag) return [-0.15, 1.15];
  if (min === null || max === null) return [0, 1];
  const space = max === min ? Math.max(Math.abs(max) * 0.05, 0.5) : (max - min) * 0.12;
  return [min - space, max + space];
}

/** A point between two gaps has no line to be seen by. */
function lonely(u: uPlot, series: number): boolean {
  const values = u.data[series];
  if (values === undefined || values.length > 5000) return false;
  for (let i = 0; i < values.length; i++) {
    if (values[i] != null && values[i - 1] == null && values[i + 1] == null) return true;
  }
  return false;
}

/** Shades the stretches without readings. */
function shade(u: uPlot, holes: readonly Hole[], colour: (name: string) => string): void {
  const { ctx, bbox } = u;
  ctx.save();
  ctx.beginPath();
  ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
  ctx.clip();
  for (const h of holes) {
    const left = u.valToPos(h.from / 1000, 'x', true);
    const right = u.valToPos(h.to / 1000, 'x', true);
    if (right < bbox.left || left > bbox.left + bbox.width) continue;
    const width = Math.max(right - left, 2 * devicePixelRatio);
    ctx.fillStyle = fade(colour('stale'), 0.1);
    ctx.fillRect(left, bbox.top, width, bbox.height);
    ctx.strokeStyle = fade(colour('stale'), 0.28);
    ctx.lineWidth = devicePixelRatio;
    ctx.save();
    ctx.beginPath();
    ctx.rect(left, bbox.top, width, bbox.height);
    ctx.clip();
    ctx.beginPath();
    const pitch = 9 * devicePixelRatio;
    const start = Math.floor((Math.max(left, bbox.left) - bbox.height) / pitch) * pitch;
    for (let x = start; x < Math.min(right, bbox.left + bbox.width); x += pitch) {
      ctx.moveTo(x, bbox.top + bbox.height);
      ctx.lineTo(x + bbox.height, bbox.top);
    }
    ctx.stroke();
    ctx.restore();
  }
  ctx.restore();
}
