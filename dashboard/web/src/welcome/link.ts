// What the page knows of its connection. Pure: an event and the state before give the state after, and the state gives the words.

import { ago, duration } from '../state/age';

export interface Step {
  at: number;
  /** For what follows the opening of a session by moments: how many ms after it. */
  after: number | undefined;
  text: string;
}

export interface Greeting {
  text: string;
  id: string;
  version: string;
  started: number;
  name: string;
  role: string;
  resumed: boolean;
}

export interface Link {
  /** refused: only a person can go on. missing: the client itself did not come. */
  phase: 'connecting' | 'live' | 'broken' | 'refused' | 'missing';
  /** What the hub says why it refused, or why it does not answer. */
  code: string;
  detail: string;
  greeting: Greeting | undefined;
  /** The hub has another version than the page began with. */
  updated: boolean;
  /** The hub was started anew since the page began, and nobody has read that yet. */
  restarted: boolean;
  transport: string;
  /** WebSocket was tried, and did not get through. */
  stuck: boolean;
  /** When the session of the transport was opened, by this machine's clock. */
  opened: number;
  /** What the transport did, oldest first. */
  steps: readonly Step[];
  /** When the hub was last heard of, by this machine's clock; 0 if it never was. */
  heard: number;
  /** When what is shown was last known to be true: it was heard of while the page followed it. 0 if it never was. */
  trueAt: number;
}

export const unlinked: Link = {
  phase: 'connecting',
  code: '',
  detail: '',
  greeting: undefined,
  updated: false,
  restarted: false,
  transport: '',
  stuck: false,
  opened: 0,
  steps: [],
  heard: 0,
  trueAt: 0,
};

export type LinkEvent =
  | { type: 'missing' }
  | { type: 'opened'; transport: string }
  | { type: 'probed'; transport: string }
  | { type: 'upgraded'; transport: string }
  | { type: 'stuck' }
  | { type: 'closed'; why: string }
  | { type: 'heard' }
  | { type: 'welcome'; greeting: Greeting }
  | { type: 'broken'; detail: string }
  | { type: 'refused'; code: string; detail: string }
  | { type: 'retry' }
  | { type: 'read' };

/** Enough for two sessions. */
const mostSteps = 8;

/** The hub sends something every 25 s: after that long without, the connection is in doubt. */
const silence = 30_000;

const lanes: Record<string, string> = { polling: 'HTTP long polling', websocket: 'WebSocket' };

export function laneName(transport: string): string {
  return lanes[transport] ?? transport;
}

function step(link: Link, at: number, text: string, after?: number): Pick<Link, 'steps'> {
  return { steps: [...link.steps, { at, after, text }].slice(-mostSteps) };
}

const endings: Record<string, string> = {
  'forced close': 'Closed by this page',
  'ping timeout': 'Lost: the hub did not answer in time',
  'transport close': 'Lost: the connection was closed',
  'transport error': 'Lost: the connection failed',
};

export function reduceLink(link: Link, e: LinkEvent, now: number): Link {
  switch (e.type) {
    case 'missing':
      return { ...link, phase: 'missing' };
    case 'opened':
      return {
        ...link,
        ...step(link, now, `Session opened over ${laneName(e.transport)}`),
        transport: e.transport,
        stuck: false,
        opened: now,
        heard: now,
      };
    case 'probed':
      return {
        ...link,
        ...step(link, now, `${laneName(e.transport)} answers the probe`, now - link.opened),
        heard: now,
      };
    case 'upgraded':
      return {
        ...link,
        ...step(link, now, `Upgraded to ${laneName(e.transport)}`, now - link.opened),
        transport: e.transport,
        heard: now,
      };
    case 'stuck':
      return { ...link, ...step(link, now, 'WebSocket did not get through'), stuck: true };
    case 'closed':
      return { ...link, ...step(link, now, endings[e.why] ?? `Lost: ${e.why}`), transport: '' };
    case 'heard':
      return { ...link, heard: now, trueAt: link.phase === 'live' ? now : link.trueAt };
    case 'welcome': {
      const before = link.greeting;
      return {
        ...link,
        phase: 'live',
        code: '',
        detail: '',
        greeting: e.greeting,
        updated: link.updated || (before !== undefined && before.version !== e.greeting.version),
        restarted: link.restarted || (before !== undefined && before.started !== e.greeting.started),
        heard: now,
        trueAt: now,
      };
    }
    case 'broken':
      return { ...link, phase: 'broken', code: '', detail: e.detail };
    case 'refused':
      return { ...link, phase: 'refused', code: e.code, detail: e.detail };
    case 'retry':
      // The panel that says how to get in stays until the hub has answered: somebody may be typing in it.
      if (link.phase === 'refused') return { ...link, detail: 'Asking the hub…' };
      return link.phase === 'live' ? { ...link, phase: 'connecting' } : link;
    case 'read':
      return { ...link, restarted: false };
  }
}

export interface Notice {
  tone: 'warn' | 'bad' | 'note';
  text: string;
  /** What changes every second: it is shown, but not read aloud. */
  detail: string;
  button: 'Try now' | 'Dismiss' | 'Reload';
}

/** What the strip above the page says, if anything. */
export function notice(link: Link, now: number): Notice | undefined {
  const age = link.trueAt === 0 ? '' : `What you see is ${duration(now - link.trueAt)} old.`;
  switch (link.phase) {
    case 'missing':
      return {
        tone: 'bad',
        text: 'The Socket.IO client did not load: the hub was built without it, or something on the way holds it back.',
        detail: '',
        button: 'Reload',
      };
    case 'broken':
      return {
        tone: 'warn',
        text:
          link.trueAt === 0
            ? 'The hub does not answer. It is asked again every few seconds.'
            : 'Reconnecting to the hub.',
        detail: [link.detail, age].filter((t) => t !== '').join(' '),
        button: 'Try now',
      };
    case 'live':
      if (now - link.trueAt > silence) {
        return { tone: 'warn', text: 'The hub has gone quiet.', detail: age, button: 'Try now' };
      }
      if (link.updated)
        return {
          tone: 'note',
          text: 'The hub was updated: this page may be an old one.',
          detail: '',
          button: 'Reload',
        };
      if (link.restarted)
        return {
          tone: 'note',
          text: 'The hub was restarted. This page is up to date again.',
          detail: '',
          button: 'Dismiss',
        };
      return undefined;
    default:
      return undefined;
  }
}

/** Which transport is in use, and how it came to that. */
export function transportLine(link: Link): string {
  if (link.transport === '') return link.opened === 0 ? 'No transport yet.' : 'No transport now.';
  if (link.stuck)
    return 'Stays on HTTP long polling, as WebSocket did not get through: somewhat slower, and nothing is lost.';
  if (link.transport === 'polling') return 'In use: HTTP long polling. WebSocket is being tried.';
  const upgraded = link.steps.at(-1);
  const after = upgraded?.after === undefined ? '' : `, ${upgraded.after} ms after the session was opened`;
  return `In use: ${laneName(link.transport)}${after}.`;
}

/** How long ago something was, of which 0 means that it never was. */
export function since(at: number, now: number): string {
  return at === 0 ? 'never' : ago(now - at);
}

/** The heading of the panel that says how to get in. */
export function doorTitle(link: Link): string {
  switch (link.code) {
    case 'unauthorized':
      return 'Log in to go on';
    case 'forbidden':
      return 'Not allowed to see readings';
    default:
      return 'The hub refused the connection';
  }
}
