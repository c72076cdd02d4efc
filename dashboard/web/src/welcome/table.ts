// The table of readings on the page. Rows are kept as long as they are shown, so that links keep the focus.

import { ago, clock } from '../state/age';
import { formatLine, metricTitle, qualityWords } from '../state/units';
import { make, say } from './dom';
import { arrange, type Row } from './readings';

interface Line {
  row: HTMLTableRowElement;
  device: HTMLAnchorElement;
  metric: HTMLElement;
  value: HTMLElement;
  quality: HTMLElement;
  age: HTMLTimeElement;
  state: HTMLElement;
}

/** What is younger is marked as new. */
const fresh = 2000;

export class Table {
  private readonly lines = new Map<string, Line>();
  private order: string[] = [];

  constructor(private readonly body: HTMLElement) {}

  /** Shows the rows. now is the hub's time; frozen says that nobody knows whether they are still so. */
  draw(rows: readonly Row[], now: number, frozen: boolean): void {
    const arranged = arrange(rows, this.order, this.body.matches(':hover, :focus-within'));
    const order = arranged.map((r) => r.key);
    const kept = new Set(order);
    for (const [key, line] of this.lines) {
      if (kept.has(key)) continue;
      line.row.remove();
      this.lines.delete(key);
    }
    for (const [i, r] of arranged.entries()) {
      const line = this.lines.get(r.key) ?? this.add(r);
      const there = this.body.children[i];
      if (there !== line.row) this.body.insertBefore(line.row, there ?? null);
      fill(line, r, now, frozen);
    }
    this.order = order;
  }

  private add(r: Row): Line {
    const device = make('a', '');
    const metric = make('span', 'metric');
    const value = make('span', 'number');
    const quality = make('span', 'quality');
    const age = make('time', '');
    const state = make('span', 'state');
    const head = make('th', '', make('div', 'what', device, metric));
    head.scope = 'row';
    const row = make('tr', '', head, make('td', 'right', value, quality), make('td', 'right', age, state));
    row.dataset.device = r.device;
    row.dataset.metric = r.metric;
    device.href = `../#/devices/${encodeURIComponent(r.device)}`;
    const line = { row, device, metric, value, quality, age, state };
    this.lines.set(r.key, line);
    return line;
  }
}

function fill(line: Line, r: Row, now: number, frozen: boolean): void {
  const age = now - r.newest.t;
  say(line.device, r.name);
  say(line.metric, metricTitle(r.metric));
  say(line.value, formatLine(r.newest.v, r.newest.unit));
  say(line.quality, qualityWords(r.newest.quality));
  say(line.age, ago(age));
  line.age.dateTime = new Date(r.newest.t).toISOString();
  line.age.title = clock(r.newest.t, now);
  say(line.state, r.presence === 'live' ? '' : frozen ? `was ${r.presence}` : r.presence);
  line.row.classList.toggle('old', frozen || r.presence !== 'live');
  line.row.classList.toggle('fresh', !frozen && age < fresh);
}
