// The live feed as server-sent events. It is read by fetch, not by EventSource, which can send no token, comes back by its
// own rules, and is missing in Node.

import { type Json, parseJson } from '../frames/check';
import { EventReader, type ServerEvent } from './events';
import {
  ask,
  broken,
  type End,
  farewell,
  isType,
  type Link,
  type Listener,
  queryOf,
  refusal,
  type Subscription,
  type World,
} from './transport';

export function openStream(world: World, subscription: Subscription, after: string, listener: Listener): Link {
  const abort = new AbortController();
  const { signal } = abort;
  const end = (e: End) => {
    if (signal.aborted) return;
    abort.abort();
    listener.ended(e);
  };
  void follow(world, subscription, after, signal, listener, end);
  return { close: () => abort.abort() };
}

async function follow(
  world: World,
  subscription: Subscription,
  after: string,
  signal: AbortSignal,
  listener: Listener,
  end: (e: End) => void,
): Promise<void> {
  let answer: Response;
  try {
    answer = await ask(world, 'api/v1/live/sse', queryOf(subscription, after), signal);
  } catch {
    return end(broken);
  }
  if (!answer.ok || !isType(answer, 'text/event-stream') || answer.body === null) return end(await refusal(answer));
  const take = ({ name, data }: ServerEvent) => {
    if (signal.aborted) return;
    let json: Json;
    try {
      json = parseJson(data);
      if (name === 'bye') return end(farewell(json));
    } catch {
      return end(broken);
    }
    if (name === 'reset') listener.reset();
    else if (name === 'message') listener.frame(json);
  };
  const events = new EventReader(take, () => {
    if (!signal.aborted) listener.alive();
  });
  const reader = answer.body.getReader();
  const decoder = new TextDecoder();
  while (!signal.aborted) {
    let piece: ReadableStreamReadResult<Uint8Array>;
    try {
      piece = await reader.read();
    } catch {
      return end(broken);
    }
    if (piece.done) return end(broken);
    events.push(decoder.decode(piece.value, { stream: true }));
  }
}
