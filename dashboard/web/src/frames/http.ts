// The answers of the HTTP API that the page asks for.

import { asArray, asFlag, asNumber, asObject, asText, type Json, optional, ShapeError } from './check';
import { asPresence, asValue, type Newest, type Presence, type Value } from './live';

export const roles = ['viewer', 'operator', 'admin'] as const;
export type Role = (typeof roles)[number];

export interface Me {
  kind: string;
  name: string;
  role: Role | undefined;
}

export function decodeMe(json: Json): Me {
  const m = asObject(json, 'me');
  return { kind: asText(m.kind, 'kind'), name: asText(m.name, 'name'), role: roles.find((r) => r === m.role) };
}

/** An error of the API, RFC 9457. detail says what to do. */
export interface Problem {
  status: number;
  detail: string;
}

export function decodeProblem(status: number, json: Json): Problem {
  const p = asObject(json, 'problem');
  return { status, detail: optional(p.detail, asText, 'detail', '') || optional(p.title, asText, 'title', '') };
}

export const kinds = ['gauge', 'counter', 'state', 'text'] as const;
export type Kind = (typeof kinds)[number];

export interface Metric {
  name: string;
  unit: string;
  kind: Kind;
  intervalMs: number;
  lo: number | undefined;
  hi: number | undefined;
  latest: Newest | undefined;
}

export interface DeviceInfo {
  id: string;
  name: string;
  presence: Presence;
  connected: boolean;
  lastSeen: number;
  intervalMs: number;
  firmware: string;
  model: string;
  metrics: Metric[];
}

export function decodeDevice(json: Json): DeviceInfo {
  const d = asObject(json, 'device');
  return {
    id: asText(d.id, 'id'),
    name: optional(d.name, asText, 'name', ''),
    presence: asPresence(d.presence, 'presence'),
    connected: asFlag(d.connected, 'connected'),
    lastSeen: optional(d.last_seen, asNumber, 'last_seen', 0),
    intervalMs: optional(d.interval_ms, asNumber, 'interval_ms', 0),
    firmware: optional(d.firmware, asText, 'firmware', ''),
    model: optional(d.model, asText, 'model', ''),
    metrics: asArray(d.metrics, 'metrics').map(metric),
  };
}

function metric(json: Json): Metric {
  const m = asObject(json, 'metric');
  const kind = kinds.find((k) => k === m.kind);
  if (kind === undefined) throw new ShapeError('kind is not one');
  const unit = asText(m.unit, 'unit');
  let latest: Newest | undefined;
  if (m.latest !== undefined) {
    const l = asObject(m.latest, 'latest');
    latest = {
      t: asNumber(l.t, 't'),
      v: asValue(l.value, 'value'),
      unit,
      quality: optional(l.quality, asNumber, 'quality', 0),
    };
  }
  return {
    name: asText(m.name, 'name'),
    unit,
    kind,
    intervalMs: optional(m.interval_ms, asNumber, 'interval_ms', 0),
    lo: m.lo === undefined ? undefined : asNumber(m.lo, 'lo'),
    hi: m.hi === undefined ? undefined : asNumber(m.hi, 'hi'),
    latest,
  };
}

/** A device that was just added, with the token that is never shown again. */
export interface Added {
  id: string;
  token: string;
}

export function decodeAdded(json: Json): Added {
  const d = asObject(json, 'device');
  return { id: asText(d.id, 'id'), token: asText(d.token, 'token') };
}

/** A range without readings that the hub knows about. Times are 0 where they are not known. */
export interface Gap {
  from: number;
  to: number;
  count: number;
  cause: string;
}

export interface History {
  unit: string;
  points: [t: number, v: Value][];
  gaps: Gap[];
  /** Where to go on if the limit has cut the answer short. */
  next: number | undefined;
  /** Said by the hub if something of the range is damaged. */
  damage: string;
}

export function decodeHistory(json: Json): History {
  const h = asObject(json, 'history');
  return {
    unit: optional(h.unit, asText, 'unit', ''),
    points: asArray(h.points, 'points').map((p) => {
      const pair = asArray(p, 'point');
      return [asNumber(pair[0], 't'), asValue(pair[1], 'value')];
    }),
    gaps: asArray(h.gaps, 'gaps').map((g) => {
      const gap = asObject(g, 'gap');
      return {
        from: optional(gap.from, asNumber, 'from', 0),
        to: optional(gap.to, asNumber, 'to', 0),
        count: optional(gap.count, asNumber, 'count', 0),
        cause: asText(gap.cause, 'cause'),
      };
    }),
    next: h.next === undefined ? undefined : asNumber(h.next, 'next'),
    damage: optional(h.damage, asText, 'damage', ''),
  };
}

/** How the hub itself is doing, as far as people at the page must know. */
export interface Status {
  ready: boolean;
  reason: string;
  fingerprint: string;
  plaintext: string[];
}

export function decodeStatus(json: Json): Status {
  const s = asObject(json, 'status');
  return {
    ready: asFlag(s.ready, 'ready'),
    reason: optional(s.reason, asText, 'reason', ''),
    fingerprint: optional(s.fingerprint, asText, 'fingerprint', ''),
    plaintext: optional(s.plaintext, asArray, 'plaintext', []).map((p) => asText(p, 'address')),
  };
}
