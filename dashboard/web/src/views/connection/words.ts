// What the page says about each check. Pure, so that it can be tested.

import type { Check, CheckKey } from '../../state/diagnosis.svelte';

export const titles: Record<CheckKey, string> = {
  websocket: 'WebSocket',
  sse: 'Server-sent events',
  longpoll: 'Long polling',
  poll: 'Polling',
};

export const purposes: Record<CheckKey, string> = {
  websocket: 'One connection both ways. The best, where it passes.',
  sse: 'One answer that never ends, and arrives piece by piece.',
  longpoll: 'A request that the hub holds until there is something to tell.',
  poll: 'A request that is answered at once.',
};

/** What to do about a check that has failed. */
export function advice(check: Check): string {
  const { code, reason } = check.proof?.end ?? { code: 0, reason: '' };
  if (reason !== '') return `The hub answers: ${reason}`;
  const status = code === 0 ? '' : ` It was answered with the status ${code}.`;
  switch (check.key) {
    case 'websocket':
      return (
        'Something on the way does not pass on the upgrade of a connection. Let the proxy hand on the headers Upgrade and ' +
        'Connection as below, and start the hub with --public-url: it refuses sockets from pages at another address.'
      );
    case 'sse':
      return code === 0
        ? 'The answer is held back until it is whole. Switch off the buffering of answers in the proxy, as below.'
        : `Something on the way refuses answers that do not end.${status}`;
    case 'longpoll':
      return `A request may not wait for 25 seconds. Let the proxy wait for an answer for 75 seconds, as below.${status}`;
    case 'poll':
      return `The hub was not reached.${status}`;
  }
}

/** What there is to say about all checks together. */
export function summary(checks: readonly Check[], connected: boolean): string {
  const failed = checks.filter((c) => c.state === 'failed').length;
  if (checks.some((c) => c.state === 'waiting' || c.state === 'running')) return 'Testing…';
  if (unreachable(checks))
    return 'The hub was not reached. Check that it runs, and that this device is on its network.';
  if (failed === 0) return 'Everything passes.';
  const count = failed === 1 ? 'One way does not pass' : `${failed} ways do not pass`;
  return connected ? `${count}; the page uses another.` : `${count}.`;
}

/** Whether there is nothing more to say of a single check. */
export function unreachable(checks: readonly Check[]): boolean {
  return checks.every((c) => c.state === 'failed' && c.proof?.end.reason === '');
}
