// A little fleet with a day of history, as somebody would have it after a day.

import type { Device, HubProcess } from './rig';
import { SocketDevice } from './socket';

const minute = 60_000;

const room = [
  { a: 1, n: 'temperature', u: 'Cel', lo: -40, hi: 85, iv: 10_000 },
  { a: 2, n: 'humidity', u: '%RH', iv: 10_000 },
  { a: 3, n: 'pressure', u: 'Pa', iv: 10_000 },
  { a: 4, n: 'heating', k: 'state', iv: 10_000 },
];

type Row = [number, number, number | boolean];

function weather(t: number, seed: number): [number, number, number, boolean] {
  const day = Math.sin(((t / 3_600_000 + seed) / 24) * 2 * Math.PI);
  const wobble = Math.sin(t / 700_000 + seed) * 0.4 + Math.sin(t / 91_000 + seed * 3) * 0.15;
  const temperature = 20.5 + seed * 0.6 + 2 * day + wobble;
  return [
    Math.round(temperature * 100) / 100,
    Math.round((47 - 6 * day + wobble * 4 + seed) * 10) / 10,
    Math.round(101_300 + 240 * Math.sin(t / 21_000_000 + seed) + wobble * 12),
    Math.sin(t / 1_900_000 + seed) > 0.3,
  ];
}

/** Sends a day up to now every ten seconds, without the stretches that are left out. */
export async function sendDay(
  d: SocketDevice,
  seed: number,
  now: number,
  hours: number,
  out: [number, number][] = [],
): Promise<void> {
  const times: number[] = [];
  for (let t = now - hours * 60 * minute; t <= now; t += 10_000) {
    if (!out.some(([from, to]) => t >= from && t < to)) times.push(t);
  }
  for (let i = 0; i < times.length; i += 120) {
    const part = times.slice(i, i + 120);
    const base = part[0] ?? now;
    await d.data(
      base,
      part.flatMap((t): Row[] => weather(t, seed).map((v, k): Row => [k + 1, t - base, v])),
    );
  }
}

export interface Fleet {
  greenhouse: Device;
  sockets: SocketDevice[];
}

/** Five devices: two live, one that is overdue, one that has gone, one that never came. */
export async function makeFleet(hub: HubProcess, now: number): Promise<Fleet> {
  const greenhouse = hub.addDevice('greenhouse-1', 'Greenhouse, north side');
  const living = hub.addDevice('living-room', 'Living room');
  const meter = hub.addDevice('meter', 'Electricity meter');
  hub.addDevice('garage');
  const g = await SocketDevice.connect(hub, greenhouse, room);
  await sendDay(g, 1, now, 24, [
    [now - 40 * minute, now - 31 * minute],
    [now - 15 * minute, now - 12 * minute],
  ]);
  await g.gap(now - 40 * minute, now - 31 * minute, 216, 'spool_full');
  const l = await SocketDevice.connect(hub, living, room, 'rpi-zero-2');
  await sendDay(l, 3, now, 2);
  const points = Array.from({ length: 60 }, (_, i): [number, number] => [
    now - (60 - i) * 30_000,
    230 + Math.sin(i / 5) * 2,
  ]);
  await meter.series('voltage', 'V', points);
  return { greenhouse, sockets: [g, l] };
}
