// What comes of others: who is here, and what they write. Nobody's word: it is checked, bounded, and only ever shown as text.

import { asArray, asNumber, asObject, asText, type Json, optional } from '../frames/check';
import type { Greeting } from './link';

export interface Person {
  id: string;
  name: string;
  role: string;
  transport: string;
}

const roles: Record<string, string> = { admin: 'administrator' };

export function roleName(role: string): string {
  return roles[role] ?? role;
}

export interface People {
  connected: number;
  count: number;
  list: Person[];
}

/** What the event people says, or a ShapeError. */
export function readPeople(json: Json): People {
  const p = asObject(json, 'people');
  return {
    connected: asNumber(p.connected, 'connected'),
    count: asNumber(p.count, 'count'),
    list: asArray(p.people, 'people').map((each) => {
      const one = asObject(each, 'person');
      return {
        id: asText(one.id, 'id'),
        name: asText(one.name, 'name'),
        role: asText(one.role, 'role'),
        transport: asText(one.transport, 'transport'),
      };
    }),
  };
}

/** What the event welcome says, or a ShapeError. */
export function readGreeting(args: readonly Json[]): Greeting {
  const hub = asObject(args[1], 'welcome');
  return {
    text: asText(args[0], 'text'),
    id: asText(hub.id, 'id'),
    version: asText(hub.version, 'version'),
    started: asNumber(hub.started, 'started'),
    name: asText(hub.name, 'name'),
    role: asText(hub.role, 'role'),
    resumed: hub.resumed === true,
  };
}

export interface Message {
  from: string;
  name: string;
  at: number;
  text: string;
}

/** The longest text that is shown of a message. */
export const mostText = 1000;

/**
 * What the event message says, or a ShapeError. The hub puts who sent it behind what was sent, and a string behind that: what
 * looks like a sender earlier on was written by whoever sent it.
 */
export function readMessage(args: readonly Json[]): Message {
  const last = args.length - (typeof args[args.length - 1] === 'string' ? 2 : 1);
  const sender = asObject(args[last], 'sender');
  const text = args
    .slice(0, last)
    .map((a) => (typeof a === 'string' ? a : JSON.stringify(a)))
    .join(' ');
  return {
    from: asText(sender.from, 'from'),
    name: asText(sender.name, 'name'),
    at: asNumber(sender.at, 'at'),
    text: text.length > mostText ? `${text.slice(0, mostText)}…` : text,
  };
}

/** What has become of a message, by the hub's answer. */
export function fate(answer: Json): { text: string; failed: boolean } {
  const a = asObject(answer, 'answer');
  const error = optional(a.error, asText, 'error', '');
  if (error !== '') return { text: `not delivered: ${error}`, failed: true };
  const sent = asNumber(a.sent, 'sent');
  if (sent === 0) return { text: 'nobody else is here to get it', failed: false };
  return { text: sent === 1 ? 'delivered to 1 other' : `delivered to ${sent} others`, failed: false };
}
