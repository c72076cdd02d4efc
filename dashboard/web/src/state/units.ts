// How stored values are shown: SenML units as people write them. What is not in the table is shown as it is.

import type { Value } from '../frames/live';

interface Shown {
  label: string;
  factor: number;
  digits: number;
}

const units: Record<string, Shown> = {
  Cel: { label: '°C', factor: 1, digits: 1 },
  '%RH': { label: '%', factor: 1, digits: 1 },
  '%EL': { label: '%', factor: 1, digits: 0 },
  Pa: { label: 'hPa', factor: 0.01, digits: 1 },
  lx: { label: 'lx', factor: 1, digits: 0 },
  'W/m2': { label: 'W/m²', factor: 1, digits: 0 },
  ppm: { label: 'ppm', factor: 1, digits: 0 },
  ppb: { label: 'ppb', factor: 1, digits: 0 },
  'ug/m3': { label: 'µg/m³', factor: 1, digits: 1 },
  V: { label: 'V', factor: 1, digits: 2 },
  A: { label: 'A', factor: 1, digits: 3 },
  W: { label: 'W', factor: 1, digits: 1 },
  kWh: { label: 'kWh', factor: 1, digits: 2 },
  Ohm: { label: 'Ω', factor: 1, digits: 0 },
  'm/s2': { label: 'm/s²', factor: 1, digits: 2 },
  'deg/s': { label: '°/s', factor: 1, digits: 2 },
  T: { label: 'µT', factor: 1e6, digits: 1 },
  m3: { label: 'm³', factor: 1, digits: 3 },
  deg: { label: '°', factor: 1, digits: 0 },
  dBm: { label: 'dBm', factor: 1, digits: 0 },
  s: { label: 's', factor: 1, digits: 1 },
};

const formats = new Map<string, Intl.NumberFormat>();

function fixed(digits: number): Intl.NumberFormat {
  let f = formats.get(`d${digits}`);
  if (f === undefined) {
    f = new Intl.NumberFormat(undefined, { minimumFractionDigits: digits, maximumFractionDigits: digits });
    formats.set(`d${digits}`, f);
  }
  return f;
}

const free = new Intl.NumberFormat(undefined, { maximumSignificantDigits: 5 });
const whole = new Intl.NumberFormat(undefined, { maximumFractionDigits: 0 });
const tiny = new Intl.NumberFormat(undefined, { notation: 'scientific', maximumSignificantDigits: 4 });

export function unitLabel(unit: string): string {
  return units[unit]?.label ?? unit;
}

/** The value in the unit that is shown. */
export function scale(v: number, unit: string): number {
  const shown = units[unit];
  return shown === undefined ? v : v * shown.factor;
}

/** A number without its unit. */
export function formatNumber(v: number, unit: string): string {
  const shown = units[unit];
  const x = shown === undefined ? v : v * shown.factor;
  if (shown !== undefined && (x === 0 || Math.abs(x) >= 10 ** -shown.digits)) return fixed(shown.digits).format(x);
  if (x !== 0 && (Math.abs(x) < 1e-3 || Math.abs(x) >= 1e9)) return tiny.format(x);
  return Math.abs(x) >= 1e5 ? whole.format(x) : free.format(x);
}

export interface Formatted {
  text: string;
  unit: string;
}

export function format(v: Value, unit: string): Formatted {
  if (typeof v === 'number') return { text: formatNumber(v, unit), unit: unitLabel(unit) };
  if (typeof v === 'boolean') return { text: v ? 'on' : 'off', unit: '' };
  return { text: v, unit: '' };
}

export function formatLine(v: Value, unit: string): string {
  const f = format(v, unit);
  return f.unit === '' ? f.text : `${f.text}\u00a0${f.unit}`;
}

/** A metric's name for people: rain/total is Rain total. */
export function metricTitle(name: string): string {
  const words = name.replace(/[/_.:-]+/g, ' ').trim();
  return words === '' ? name : words.charAt(0).toUpperCase() + words.slice(1);
}

/** What the bits of the quality say, empty if all is well. */
export function qualityWords(quality: number): string {
  const words = ['suspect', 'bad', 'stale', 'simulated', 'out of range'];
  return words.filter((_, i) => (quality & (1 << i)) !== 0).join(', ');
}
