// The stock client of Socket.IO, as a script of the hub brings it, and what it tells about itself.

import type { ManagerOptions, Socket, SocketOptions } from 'socket.io-client';
import type { Json } from '../frames/check';
import type { LinkEvent } from './link';

declare const io: ((options: Partial<ManagerOptions & SocketOptions>) => Socket) | undefined;

/** Whether the script came. */
export function hasClient(): boolean {
  return typeof io !== 'undefined';
}

/** The hub says it in words for programs. */
const stranger = 'The hub shows readings to those whom it knows. Log in, or paste a token: this page goes on at once.';

export interface Told {
  link(e: LinkEvent): void;
  /** An event of the hub or of somebody in the lobby. */
  event(name: string, args: Json[]): void;
  /** The hub has ended the connection for good: it says why when it is asked again. */
  ended(): void;
}

/** Opens a connection of its own, as the token's owner or with the session of this browser. */
export function open(token: string, told: Told): Socket {
  if (io === undefined) throw new Error('the client of Socket.IO is missing');
  const subscribe = { devices: ['*'], mode: 'latest', tick: 500 };
  const socket = io({
    path: new URL('../socket.io/', document.baseURI).pathname,
    auth: token === '' ? { subscribe } : { token, subscribe },
    forceNew: true,
    reconnectionDelay: 500,
    reconnectionDelayMax: 5000,
  });
  socket.on('connect', () => socket.emit('join', 'lobby'));
  socket.onAny((name: string, ...args: Json[]) => told.event(name, args));
  socket.on('connect_error', (err) => {
    const { data, context } = err as { data?: unknown; context?: unknown };
    // A client that has given up was refused by the hub; otherwise it tries again by itself.
    if (socket.active) told.link({ type: 'broken', detail: said(context) });
    else
      told.link({
        type: 'refused',
        code: err.message,
        detail: token === '' && err.message === 'unauthorized' ? stranger : detailOf(data),
      });
  });
  socket.on('disconnect', (why) => {
    if (why === 'io client disconnect') return;
    told.link({ type: 'broken', detail: '' });
    if (why === 'io server disconnect') told.ended();
  });
  socket.io.on('open', () => {
    const { engine } = socket.io;
    told.link({ type: 'opened', transport: engine.transport.name });
    engine.on('upgrading', (t) => told.link({ type: 'probed', transport: t.name }));
    engine.on('upgrade', (t) => told.link({ type: 'upgraded', transport: t.name }));
    engine.on('upgradeError', () => {
      // A session that ends while it is being upgraded says nothing about the network.
      if (engine.readyState === 'open') told.link({ type: 'stuck' });
    });
    engine.on('packet', () => told.link({ type: 'heard' }));
    engine.on('close', (why) => told.link({ type: 'closed', why }));
  });
  return socket;
}

function detailOf(data: unknown): string {
  const detail = (data as { detail?: unknown } | undefined)?.detail;
  return typeof detail === 'string' ? detail : '';
}

/** What the hub says in an answer that was not the one hoped for, such as that the page is not one of its own. */
function said(context: unknown): string {
  const text = (context as { responseText?: unknown } | undefined)?.responseText;
  if (typeof text !== 'string' || text === '') return '';
  try {
    const { message, detail } = JSON.parse(text) as { message?: unknown; detail?: unknown };
    return String(detail ?? message ?? '').slice(0, 300);
  } catch {
    return '';
  }
}
