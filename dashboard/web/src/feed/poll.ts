// The live feed by long polling: one request after the other, each answered when there is something to tell.

import { asArray, asFlag, asObject, asText, type Json, optional } from '../frames/check';
import {
  ask,
  broken,
  type End,
  isType,
  type Link,
  type Listener,
  queryOf,
  refusal,
  type Subscription,
  type World,
} from './transport';

/** How long the hub holds a request, in seconds: less than proxies wait for an answer. */
export const hold = 25;
/** An answer that is later than this is not coming. */
const tooLate = (hold + 15) * 1000;
const usualTick = 100;

interface Answer {
  reset: boolean;
  frames: Json[];
  token: string;
}

export function openPoll(world: World, subscription: Subscription, after: string, listener: Listener): Link {
  const poll = new Poll(world, subscription, listener);
  void poll.follow(after);
  return poll;
}

class Poll implements Link {
  private closed = false;
  private request = new AbortController();
  private timer: ReturnType<typeof setTimeout> | undefined;

  constructor(
    private readonly world: World,
    private readonly subscription: Subscription,
    private readonly listener: Listener,
  ) {}

  close(): void {
    this.closed = true;
    clearTimeout(this.timer);
    this.request.abort();
  }

  async follow(from: string): Promise<void> {
    let after = from;
    // The first is answered at once, so that one knows where one stands.
    for (let wait = 0; !this.closed; wait = hold) {
      const answer = await this.once(after, wait);
      if (this.closed) return;
      if ('code' in answer) {
        this.close();
        this.listener.ended(answer);
        return;
      }
      if (answer.reset) this.listener.reset();
      for (const frame of answer.frames) if (!this.closed) this.listener.frame(frame);
      if (this.closed) return;
      this.listener.alive();
      after = answer.token;
      if (answer.frames.length > 0) await this.pause(Math.max(0, this.subscription.tick || usualTick));
    }
  }

  private async once(after: string, wait: number): Promise<Answer | End> {
    const query = queryOf(this.subscription, after);
    query.set('wait', `${wait}s`);
    this.request = new AbortController();
    this.timer = setTimeout(() => this.request.abort(), tooLate);
    try {
      const answer = await ask(this.world, 'api/v1/live/poll', query, this.request.signal);
      if (!answer.ok || !isType(answer, 'application/json')) return await refusal(answer);
      const body = asObject((await answer.json()) as Json, 'answer');
      return {
        reset: optional(body.reset, asFlag, 'reset', false),
        frames: asArray(body.frames, 'frames'),
        token: asText(body.token, 'token'),
      };
    } catch {
      return broken;
    } finally {
      clearTimeout(this.timer);
    }
  }

  // Nobody waits for it any more once the link is closed.
  private pause(ms: number): Promise<void> {
    return new Promise((resolve) => {
      this.timer = setTimeout(resolve, ms);
    });
  }
}
