// What the strip above the page says. Pure, so that it can be tested.

import type { Status } from '../../frames/http';
import { duration } from '../../state/age';
import type { Connection } from '../../state/connection';

export interface Notice {
  key: 'connecting' | 'stopped' | 'reconnecting' | 'restarted' | 'outdated' | 'notready' | 'plaintext';
  tone: 'warn' | 'bad' | 'note';
  text: string;
  /** What moves every second: it is shown, but not read aloud again and again. */
  detail: string;
}

export function notices(c: Connection, status: Status | undefined, outdated: boolean, now: number): Notice[] {
  const list: Notice[] = [];
  if (c.phase === 'denied') {
    list.push({ key: 'stopped', tone: 'bad', text: 'This page gets nothing new. Reload it.', detail: c.reason });
  } else if (c.phase !== 'live' && c.trueAt === 0) {
    list.push({ key: 'connecting', tone: 'note', text: 'Connecting to the hub…', detail: '' });
  } else if (c.phase !== 'live') {
    const next = c.retryAt > now ? ` Next attempt in ${duration(c.retryAt - now + 999)}.` : '';
    list.push({
      key: 'reconnecting',
      tone: 'warn',
      text: 'Reconnecting to the hub.',
      detail: `What you see is ${duration(now - c.trueAt)} old.${next}`,
    });
  } else {
    if (c.restarted) {
      list.push({
        key: 'restarted',
        tone: 'note',
        text: 'The hub was restarted. This page is up to date again.',
        detail: '',
      });
    }
    if (status !== undefined && !status.ready) {
      list.push({ key: 'notready', tone: 'bad', text: 'The hub takes no readings now.', detail: status.reason });
    }
  }
  if (outdated) {
    list.push({ key: 'outdated', tone: 'note', text: 'There is a newer version of this page.', detail: '' });
  }
  if (status !== undefined && status.plaintext.length > 0) {
    list.push({
      key: 'plaintext',
      tone: 'bad',
      text: `Devices at ${status.plaintext.join(', ')} are served without encryption: everybody on that network can read and act as them.`,
      detail: '',
    });
  }
  return list;
}
