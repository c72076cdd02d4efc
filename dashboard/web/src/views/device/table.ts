// The rows of the table behind a chart, newest first.

import { precise } from '../../state/age';
import { type Hole, lowerBound, type Series } from '../../state/series';
import { formatLine } from '../../state/units';

/** More would make the page slow and help nobody: the CSV has them all. */
export const mostRows = 300;

export interface TableRow {
  t: number;
  value: string;
  lo: string;
  hi: string;
  /** Why there is nothing, empty for a reading. */
  hole: string;
}

export function tableRows(
  s: Series,
  gaps: readonly Hole[],
  unit: string,
  from: number,
  to: number,
): { rows: TableRow[]; total: number } {
  const first = lowerBound(s.t, from);
  const end = lowerBound(s.t, to + 1);
  const rows: TableRow[] = [];
  let gap = gaps.length - 1;
  const gapsAfter = (t: number) => {
    for (; gap >= 0 && (gaps[gap] as Hole).from >= t; gap--) {
      const g = gaps[gap] as Hole;
      if (g.to > from && g.from < to)
        rows.push({ t: g.from, value: '', lo: '', hi: '', hole: `${g.cause} (${precise(g.to - g.from)})` });
    }
  };
  for (let i = end - 1; i >= first && rows.length < mostRows; i--) {
    const t = s.t[i] as number;
    gapsAfter(t);
    const v = s.v[i];
    rows.push({
      t,
      value: v === undefined ? '' : formatLine(v, unit),
      lo: s.step > 0 ? formatLine(s.lo[i] ?? 0, unit) : '',
      hi: s.step > 0 ? formatLine(s.hi[i] ?? 0, unit) : '',
      hole: '',
    });
  }
  return { rows, total: end - first };
}
