// Reads JSON into types, and refuses what does not fit: what comes over the network is nobody's word.

export type Json = null | boolean | number | string | Json[] | { [key: string]: Json };
export type JsonObject = { [key: string]: Json };

/** Says which part of a message is not as it should be. */
export class ShapeError extends Error {
  override name = 'ShapeError';
}

export function parseJson(text: string): Json {
  try {
    return JSON.parse(text) as Json;
  } catch {
    throw new ShapeError('not JSON');
  }
}

function wrong(what: string, want: string): never {
  throw new ShapeError(`${what} is not ${want}`);
}

export function asObject(v: Json | undefined, what: string): JsonObject {
  if (v === null || typeof v !== 'object' || Array.isArray(v)) return wrong(what, 'an object');
  return v;
}

export function asArray(v: Json | undefined, what: string): Json[] {
  return Array.isArray(v) ? v : wrong(what, 'an array');
}

export function asText(v: Json | undefined, what: string): string {
  return typeof v === 'string' ? v : wrong(what, 'a text');
}

export function asNumber(v: Json | undefined, what: string): number {
  return typeof v === 'number' && Number.isFinite(v) ? v : wrong(what, 'a number');
}

export function asFlag(v: Json | undefined, what: string): boolean {
  return typeof v === 'boolean' ? v : wrong(what, 'true or false');
}

/** What is absent has a default; what is there must fit. */
export function optional<T>(v: Json | undefined, read: (v: Json, what: string) => T, what: string, absent: T): T {
  return v === undefined || v === null ? absent : read(v, what);
}
