// The live feed over WebSocket.

import { type Json, parseJson } from '../frames/check';
import { broken, type Link, type Listener, type Socket, type Subscription, type World } from './transport';

/** The first of the close codes that are the hub's own. Others come from browsers and proxies. */
const firstOwn = 4000;

export function openSocket(world: World, subscription: Subscription, after: string, listener: Listener): Link {
  let socket: Socket | undefined;
  let closed = false;
  const end = (code: number, reason: string) => {
    if (socket === undefined) return;
    socket.close();
    socket = undefined;
    listener.ended(code < firstOwn ? broken : { code, reason, retry: 0 });
  };
  const subscribe = (wanted: Subscription, from: string) => {
    socket?.send(JSON.stringify({ subscribe: { ...wanted, ...(from === '' ? {} : { after: from }) } }));
  };
  const url = new URL('api/v1/live', world.base).href.replace(/^http/, 'ws');
  try {
    const opened = world.socket(url, world.headers);
    socket = opened;
    opened.onopen = () => subscribe(subscription, after);
    opened.onmessage = (event: { data: unknown }) => {
      if (socket === undefined) return;
      let frame: Json;
      try {
        frame = parseJson(String(event.data));
      } catch {
        end(0, '');
        return;
      }
      listener.frame(frame);
    };
    opened.onclose = (event: { code: number; reason: string }) => end(event.code, event.reason);
    opened.onerror = () => {}; // onclose follows
  } catch {
    // There is no WebSocket here, or none that can send a token.
    queueMicrotask(() => {
      if (!closed) listener.ended(broken);
    });
  }
  return {
    change: subscribe,
    close: () => {
      closed = true;
      const left = socket;
      socket = undefined;
      left?.close();
    },
  };
}
