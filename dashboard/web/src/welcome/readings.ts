// The table of readings: the newest of the whole fleet. Pure.

import type { Newest, Presence } from '../frames/live';
import type { Fleet } from '../state/fleet';

export interface Row {
  key: string;
  device: string;
  name: string;
  presence: Presence;
  metric: string;
  newest: Newest;
}

/** More than that nobody reads here: the hub's page has them all. */
export const mostRows = 50;

/** The newest rows, newest first, and how many there are in all. */
export function newestRows(fleet: Fleet, most = mostRows): { rows: Row[]; all: number } {
  let rows: Row[] = [];
  let all = 0;
  for (const d of fleet.devices.values()) {
    for (const [metric, newest] of d.metrics) {
      all++;
      rows.push({
        key: `${d.id}\n${metric}`,
        device: d.id,
        name: d.name === '' ? d.id : d.name,
        presence: d.presence,
        metric,
        newest,
      });
    }
    // A fleet of ten thousand is not sorted whole.
    if (rows.length > 20 * most) rows = rows.sort(newestFirst).slice(0, most);
  }
  return { rows: rows.sort(newestFirst).slice(0, most), all };
}

function newestFirst(a: Row, b: Row): number {
  return b.newest.t - a.newest.t || a.device.localeCompare(b.device) || a.metric.localeCompare(b.metric);
}

/** The order to show: the rows as they come, or, while somebody holds the table, those that were there where they were. */
export function arrange(rows: readonly Row[], shown: readonly string[], held: boolean): Row[] {
  if (!held) return [...rows];
  const left = new Map(rows.map((r) => [r.key, r]));
  const before = shown.flatMap((key) => {
    const row = left.get(key);
    left.delete(key);
    return row === undefined ? [] : [row];
  });
  return [...before, ...left.values()];
}
