// The frames of the live feed, as hub/frames.go documents them.

import { asArray, asFlag, asNumber, asObject, asText, type Json, optional, ShapeError } from './check';

export type Value = number | boolean | string;

export const presences = ['never', 'live', 'stale', 'offline'] as const;
export type Presence = (typeof presences)[number];

/** The newest reading of a metric. Times are Unix milliseconds of the hub. */
export interface Newest {
  t: number;
  v: Value;
  unit: string;
  quality: number;
}

export interface DeviceState {
  id: string;
  name: string;
  presence: Presence;
  /** When the last reading arrived, 0 if none ever did. */
  seen: number;
  /** When one last differed from the one before. */
  changed: number;
  gone: boolean;
  /** Those that changed; the others are as they were. */
  metrics: ReadonlyMap<string, Newest>;
}

export interface Reading {
  device: string;
  metric: string;
  t: number;
  v: Value;
  quality: number;
}

export type Frame =
  | { type: 'welcome'; text: string; version: string; started: number }
  | { type: 'snapshot'; token: string; now: number; more: boolean; devices: DeviceState[] }
  /** With now, it lists every device that there is, as an answer to a token. */
  | { type: 'changes'; token: string; now: number | undefined; more: boolean; devices: DeviceState[] }
  | { type: 'readings'; token: string; readings: Reading[] }
  /** A newer hub may say more than this page knows. */
  | { type: 'unknown' };

export function asValue(v: Json | undefined, what: string): Value {
  if (typeof v === 'number' || typeof v === 'boolean' || typeof v === 'string') return v;
  throw new ShapeError(`${what} is not a value`);
}

export function asPresence(v: Json | undefined, what: string): Presence {
  const found = presences.find((p) => p === v);
  if (found === undefined) throw new ShapeError(`${what} is not a presence`);
  return found;
}

/** Reads one frame, or throws a ShapeError. */
export function decodeFrame(json: Json): Frame {
  const f = asObject(json, 'frame');
  switch (asText(f.type, 'type')) {
    case 'welcome':
      return {
        type: 'welcome',
        text: asText(f.text, 'text'),
        version: asText(f.version, 'version'),
        started: asNumber(f.started, 'started'),
      };
    case 'snapshot':
      return { type: 'snapshot', now: asNumber(f.now, 'now'), ...listing(f) };
    case 'changes':
      return { type: 'changes', now: f.now === undefined ? undefined : asNumber(f.now, 'now'), ...listing(f) };
    case 'readings':
      return {
        type: 'readings',
        token: asText(f.token, 'token'),
        readings: asArray(f.readings, 'readings').map(reading),
      };
    default:
      return { type: 'unknown' };
  }
}

function listing(f: { [key: string]: Json }): { token: string; more: boolean; devices: DeviceState[] } {
  const more = optional(f.more, asFlag, 'more', false);
  return {
    // A part of a listing cannot be resumed after, so it has no token.
    token: more ? '' : asText(f.token, 'token'),
    more,
    devices: asArray(f.devices, 'devices').map(readDevice),
  };
}

export function readDevice(json: Json): DeviceState {
  const d = asObject(json, 'device');
  const metrics = new Map<string, Newest>();
  for (const [name, m] of Object.entries(optional(d.metrics, asObject, 'metrics', {}))) metrics.set(name, newest(m));
  return {
    id: asText(d.id, 'id'),
    name: optional(d.name, asText, 'name', ''),
    presence: asPresence(d.presence, 'presence'),
    seen: optional(d.seen, asNumber, 'seen', 0),
    changed: optional(d.changed, asNumber, 'changed', 0),
    gone: optional(d.gone, asFlag, 'gone', false),
    metrics,
  };
}

function newest(json: Json): Newest {
  const m = asObject(json, 'metric');
  return {
    t: asNumber(m.t, 't'),
    v: asValue(m.v, 'v'),
    unit: optional(m.u, asText, 'u', ''),
    quality: optional(m.q, asNumber, 'q', 0),
  };
}

function reading(json: Json): Reading {
  const r = asArray(json, 'reading');
  return {
    device: asText(r[0], 'device'),
    metric: asText(r[1], 'metric'),
    t: asNumber(r[2], 't'),
    v: asValue(r[3], 'v'),
    quality: optional(r[4], asNumber, 'quality', 0),
  };
}
