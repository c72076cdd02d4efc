// The window of time that is looked at, and its place in the address.

const minute = 60_000;
const hour = 60 * minute;
const day = 24 * hour;

/** A window that ends now and moves, or one that stays. */
export type Range = { live: true; span: number } | { live: false; from: number; to: number };

export interface Window {
  from: number;
  to: number;
}

export const spans: readonly { span: number; label: string; key: string }[] = [
  { span: 15 * minute, label: '15 min', key: '15m' },
  { span: hour, label: '1 h', key: '1h' },
  { span: 6 * hour, label: '6 h', key: '6h' },
  { span: day, label: '24 h', key: '24h' },
  { span: 7 * day, label: '7 d', key: '7d' },
];

/** Short enough that what moves is seen to move, also in the first minute of a hub. */
export const defaultRange: Range = { live: true, span: 15 * minute };

const leastSpan = 10_000;
const mostSpan = 3660 * day;

export function windowOf(range: Range, now: number): Window {
  return range.live ? { from: now - range.span, to: now } : { from: range.from, to: range.to };
}

export function rangeQuery(range: Range): string {
  if (!range.live) return `from=${Math.round(range.from)}&to=${Math.round(range.to)}`;
  return `range=${spans.find((s) => s.span === range.span)?.key ?? `${Math.round(range.span / 1000)}s`}`;
}

export function parseRange(query: URLSearchParams): Range {
  const from = Number(query.get('from') ?? Number.NaN);
  const to = Number(query.get('to') ?? Number.NaN);
  if (from > 0 && to - from >= leastSpan && to - from <= mostSpan) return { live: false, from, to };
  const key = query.get('range') ?? '';
  const known = spans.find((s) => s.key === key);
  if (known !== undefined) return { live: true, span: known.span };
  const seconds = /^(\d{1,9})s$/.exec(key)?.[1];
  if (seconds === undefined) return defaultRange;
  return { live: true, span: Math.min(Math.max(Number(seconds) * 1000, leastSpan), mostSpan) };
}

/** Half the window or twice of it. A live window stays live. */
export function zoom(range: Range, factor: number): Range {
  if (range.live) return { live: true, span: clampSpan(range.span * factor) };
  const span = clampSpan((range.to - range.from) * factor);
  const middle = (range.from + range.to) / 2;
  return { live: false, from: middle - span / 2, to: middle + span / 2 };
}

function clampSpan(span: number): number {
  return Math.min(Math.max(Math.round(span), leastSpan), mostSpan);
}

/** Half a window back (-1) or on (1). Whoever comes to the present is live again. */
export function pan(range: Range, direction: -1 | 1, now: number): Range {
  const w = windowOf(range, now);
  const span = w.to - w.from;
  const shift = (direction * span) / 2;
  if (w.to + shift >= now) return { live: true, span };
  return { live: false, from: w.from + shift, to: w.to + shift };
}

/** A window that was dragged over. */
export function selectRange(from: number, to: number): Range | undefined {
  return to - from >= leastSpan ? { live: false, from, to } : undefined;
}

/** How many readings are drawn as they are; beyond that the hub makes one of many. */
export const mostPoints = 4000;
/** About how many steps a window has. */
const wantedSteps = 400;

const steps = [
  1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400, 604_800,
].map((s) => s * 1000);

/** The width of a step for a window, in ms. */
export function stepFor(span: number): number {
  return steps.find((s) => span / s <= wantedSteps) ?? 7 * day;
}

/** Whether the readings themselves are few enough, as far as the expected interval tells. undefined: nobody knows. */
export function drawsRaw(span: number, intervalMs: number): boolean | undefined {
  return intervalMs > 0 ? span / intervalMs <= mostPoints : undefined;
}
