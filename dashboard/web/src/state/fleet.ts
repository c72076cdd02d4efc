// What the live feed has told about all devices. Pure: a frame and the state before give the state after.

import type { DeviceState, Frame, Newest, Presence } from '../frames/live';

export interface Device {
  id: string;
  name: string;
  presence: Presence;
  seen: number;
  changed: number;
  metrics: ReadonlyMap<string, Newest>;
}

export interface Fleet {
  devices: ReadonlyMap<string, Device>;
  /** Changes when devices come, go, are renamed or change their presence: when a list must be sorted again. */
  shape: number;
  /** A listing under way: it replaces what is shown once it is whole. */
  listing: ReadonlyMap<string, Device> | undefined;
  /** Whether a listing was ever whole. */
  known: boolean;
}

export const emptyFleet: Fleet = { devices: new Map(), shape: 0, listing: undefined, known: false };

export function reduceFleet(fleet: Fleet, frame: Frame): Fleet {
  switch (frame.type) {
    case 'welcome':
      return { ...fleet, listing: undefined }; // one that broke off is begun anew
    case 'snapshot':
      return list(fleet, frame.devices, frame.more, false);
    case 'changes':
      return frame.now === undefined ? change(fleet, frame.devices) : list(fleet, frame.devices, frame.more, true);
    default:
      return fleet;
  }
}

// A listing names every device that there is. After a token it holds of each only what changed.
function list(fleet: Fleet, devices: DeviceState[], more: boolean, resumed: boolean): Fleet {
  const listing = new Map(fleet.listing);
  for (const d of devices) {
    if (!d.gone) listing.set(d.id, merge(resumed ? fleet.devices.get(d.id) : undefined, d));
  }
  return more ? { ...fleet, listing } : { devices: listing, shape: fleet.shape + 1, listing: undefined, known: true };
}

function change(fleet: Fleet, changed: DeviceState[]): Fleet {
  const devices = new Map(fleet.devices);
  let shape = fleet.shape;
  for (const d of changed) {
    const before = devices.get(d.id);
    if (d.gone) {
      devices.delete(d.id);
      shape++;
      continue;
    }
    const after = merge(before, d);
    if (before?.presence !== after.presence || before.name !== after.name) shape++;
    devices.set(d.id, after);
  }
  return { ...fleet, devices, shape };
}

function merge(before: Device | undefined, d: DeviceState): Device {
  const metrics = before === undefined || before.metrics.size === 0 ? d.metrics : new Map(before.metrics);
  if (metrics instanceof Map && metrics !== d.metrics)
    for (const [name, newest] of d.metrics) metrics.set(name, newest);
  return {
    id: d.id,
    name: d.name || before?.name || '',
    presence: d.presence,
    seen: Math.max(d.seen, before?.seen ?? 0),
    changed: Math.max(d.changed, before?.changed ?? 0),
    metrics,
  };
}

export const orders = ['attention', 'name'] as const;
export type Order = (typeof orders)[number];

export type Filter = { text: string; presence: Presence | undefined; order: Order };

const urgency: Record<Presence, number> = { stale: 0, offline: 1, live: 2, never: 3 };

/** What a device is called: its name, or its id. */
export function title(d: { id: string; name: string }): string {
  return d.name || d.id;
}

const collator = new Intl.Collator(undefined, { numeric: true, sensitivity: 'base' });

/** The ids of the devices to show, in order. */
export function select(fleet: Fleet, filter: Filter): string[] {
  const words = filter.text.toLowerCase().split(/\s+/).filter(Boolean);
  const found: Device[] = [];
  for (const d of fleet.devices.values()) {
    if (filter.presence !== undefined && d.presence !== filter.presence) continue;
    const text = `${d.id} ${d.name}`.toLowerCase();
    if (words.every((w) => text.includes(w))) found.push(d);
  }
  const byName = (a: Device, b: Device) => collator.compare(title(a), title(b)) || (a.id < b.id ? -1 : 1);
  found.sort(filter.order === 'name' ? byName : (a, b) => urgency[a.presence] - urgency[b.presence] || byName(a, b));
  return found.map((d) => d.id);
}

export function count(fleet: Fleet): Record<Presence, number> {
  const n = { live: 0, stale: 0, offline: 0, never: 0 };
  for (const d of fleet.devices.values()) n[d.presence]++;
  return n;
}
