// What the transports of the live feed have in common. A link is one connection over one of them; it knows nothing of
// resuming, of other transports, or of when to try again.

import { asNumber, asObject, asText, type Json, optional } from '../frames/check';

/** The transports, best first. */
export const transports = ['websocket', 'sse', 'poll'] as const;
export type Transport = (typeof transports)[number];

/** What to follow. Patterns are names, or beginnings with a star behind; none means everything. */
export interface Subscription {
  devices?: readonly string[];
  metrics?: readonly string[];
  /** latest (the default) has the newest value of each metric, all has every reading in order. */
  mode?: 'latest' | 'all';
  /** Least time between two frames in ms. None or 0 means 100, a negative number at once. */
  tick?: number;
}

/** No device can have this id, so this brings a welcome and an empty snapshot: the proof that a way to the hub is open. */
export const nothing: Subscription = { devices: ['-'] };

/** Why a link has ended. */
export interface End {
  /** A close code of the hub (4001 and on), an HTTP status, or 0 if the connection broke without a word. */
  code: number;
  /** What the hub says, empty if it was not the hub. */
  reason: string;
  /** How long the hub asks to be left alone, in ms. */
  retry: number;
}

export const broken: End = { code: 0, reason: '', retry: 0 };

/** What a link tells. Nothing comes after ended, nor after the link was closed. */
export interface Listener {
  frame(frame: Json): void;
  /** A sign of life that is no frame. */
  alive(): void;
  /** The hub does not know what came after the token: a snapshot follows. */
  reset(): void;
  ended(end: End): void;
}

export interface Link {
  /** Replaces the subscription without a new connection. Transports that cannot do that have no such method. */
  change?(subscription: Subscription, after: string): void;
  close(): void;
}

/** As much of a WebSocket as is needed; that of browsers, of Node from 22 on, and of the package ws fit. */
export interface Socket {
  onopen: ((event: never) => void) | null;
  onmessage: ((event: never) => void) | null;
  onclose: ((event: never) => void) | null;
  onerror: ((event: never) => void) | null;
  send(text: string): void;
  close(): void;
}

/** What a link needs of the world. */
export interface World {
  /** The address of the hub, with a slash at the end. */
  base: string;
  /** Sent with each request: the token, where no cookie says who asks. */
  headers: Record<string, string>;
  socket(url: string, headers: Record<string, string>): Socket;
  fetch: typeof globalThis.fetch;
}

/** Opens a link that follows a subscription after a token, or from a snapshot on if that is empty. */
export type Open = (world: World, subscription: Subscription, after: string, listener: Listener) => Link;

/** A subscription as the parameters of an address. */
export function queryOf(subscription: Subscription, after: string): URLSearchParams {
  const query = new URLSearchParams();
  const { devices, metrics, mode, tick } = subscription;
  if (devices !== undefined) query.set('devices', devices.join(','));
  if (metrics !== undefined) query.set('metrics', metrics.join(','));
  if (mode !== undefined) query.set('mode', mode);
  if (tick !== undefined) query.set('tick', `${tick}`);
  if (after !== '') query.set('after', after);
  return query;
}

/** Asks by HTTP. It rejects if there is no answer, or the signal is aborted. */
export function ask(world: World, path: string, query: URLSearchParams, signal: AbortSignal): Promise<Response> {
  const url = new URL(path, world.base);
  url.search = query.toString();
  return world.fetch(url, { headers: world.headers, credentials: 'same-origin', cache: 'no-store', signal });
}

/** What an answer means that is not the one asked for. */
export async function refusal(answer: Response): Promise<End> {
  const retry = Number(answer.headers.get('Retry-After') ?? 0) * 1000 || 0;
  let reason = '';
  if (isType(answer, 'application/problem+json')) {
    try {
      reason = optional(asObject((await answer.json()) as Json, 'problem').detail, asText, 'detail', '');
    } catch {
      // It broke off: the status says enough.
    }
  } else {
    void answer.body?.cancel().catch(() => {});
  }
  return { code: answer.status, reason, retry };
}

export function isType(answer: Response, type: string): boolean {
  return (answer.headers.get('Content-Type') ?? '').startsWith(type);
}

/** Reads why the hub ends a stream. */
export function farewell(json: Json): End {
  const bye = asObject(json, 'bye');
  return { code: asNumber(bye.code, 'code'), reason: optional(bye.reason, asText, 'reason', ''), retry: 0 };
}
