import { describe, expect, test } from 'vitest';
import type { Json } from '../frames/check';
import { type DeviceState, decodeFrame, type Newest, readDevice } from '../frames/live';
import { emptyFleet, type Fleet, reduceFleet } from '../state/fleet';
import { type Link, type LinkEvent, notice, reduceLink, transportLine, unlinked } from './link';
import { fate, mostText, readGreeting, readMessage, readPeople } from './lobby';
import { arrange, newestRows } from './readings';

const greeting = {
  text: 'web Socket Works',
  id: 'a',
  version: '1',
  started: 5,
  name: 'admin',
  role: 'admin',
  resumed: false,
};

function after(...events: [LinkEvent, number][]): Link {
  return events.reduce((link, [e, at]) => reduceLink(link, e, at), unlinked);
}

describe('the connection', () => {
  const upgraded: [LinkEvent, number][] = [
    [{ type: 'opened', transport: 'polling' }, 1000],
    [{ type: 'welcome', greeting }, 1010],
    [{ type: 'probed', transport: 'websocket' }, 1020],
    [{ type: 'upgraded', transport: 'websocket' }, 1031],
    [{ type: 'heard' }, 1031],
  ];

  test('tells how the transport came to be what it is', () => {
    expect(transportLine(unlinked)).toBe('No transport yet.');
    expect(transportLine(after(...upgraded.slice(0, 2)))).toMatch(/In use: HTTP long polling.*being tried/);
    const link = after(...upgraded);
    expect(transportLine(link)).toBe('In use: WebSocket, 31 ms after the session was opened.');
    expect(link.steps.map((s) => s.text)).toEqual([
      'Session opened over HTTP long polling',
      'WebSocket answers the probe',
      'Upgraded to WebSocket',
    ]);
    const again = reduceLink(
      reduceLink(link, { type: 'closed', why: 'transport close' }, 2000),
      { type: 'broken', detail: '' },
      2000,
    );
    expect(transportLine(again)).toBe('No transport now.');
    // The upgrade of the session before is not that of this one.
    expect(transportLine(reduceLink(again, { type: 'opened', transport: 'websocket' }, 3000))).toBe(
      'In use: WebSocket.',
    );
    expect(transportLine(after(...upgraded.slice(0, 2), [{ type: 'stuck' }, 2000]))).toContain('did not get through');
  });

  test('remembers few steps', () => {
    let link = unlinked;
    for (let i = 0; i < 50; i++) link = reduceLink(link, { type: 'opened', transport: 'polling' }, i);
    expect(link.steps.length).toBe(8);
    expect(link.steps.at(-1)?.at).toBe(49);
  });

  test('says how old what is shown is once it is broken, and when the hub has gone quiet', () => {
    const live = after(...upgraded);
    expect(notice(live, 2000)).toBeUndefined();
    expect(notice(live, 1031 + 31_000)).toMatchObject({ tone: 'warn', detail: 'What you see is 31 s old.' });
    const broken = reduceLink(live, { type: 'broken', detail: '' }, 2000);
    expect(notice(broken, 1031 + 125_000)).toMatchObject({ detail: 'What you see is 2 min old.', button: 'Try now' });
    // A hub that answers, and lets nobody in yet, does not make what is shown any younger.
    const half = reduceLink(
      reduceLink(broken, { type: 'opened', transport: 'polling' }, 100_000),
      { type: 'heard' },
      100_000,
    );
    expect(notice(half, 1031 + 125_000)).toMatchObject({ detail: 'What you see is 2 min old.' });
    expect(notice(after([{ type: 'broken', detail: 'Another origin.' }, 5]), 6)).toMatchObject({
      text: 'The hub does not answer. It is asked again every few seconds.',
      detail: 'Another origin.',
    });
    expect(notice(after([{ type: 'missing' }, 5]), 6)).toMatchObject({ tone: 'bad', button: 'Reload' });
  });

  test('notices that the hub was restarted or updated', () => {
    const again = reduceLink(after(...upgraded), { type: 'welcome', greeting: { ...greeting, started: 6 } }, 3000);
    expect(notice(again, 3000)).toMatchObject({ button: 'Dismiss' });
    expect(notice(reduceLink(again, { type: 'read' }, 3000), 3000)).toBeUndefined();
    const newer = reduceLink(again, { type: 'welcome', greeting: { ...greeting, version: '2' } }, 4000);
    expect(notice(newer, 4000)).toMatchObject({ button: 'Reload' });
  });

  test('is refused until somebody tries anew', () => {
    const refused = after(...upgraded, [{ type: 'refused', code: 'unauthorized', detail: 'Log in.' }, 2000]);
    expect(refused).toMatchObject({ phase: 'refused', code: 'unauthorized', detail: 'Log in.' });
    expect(notice(refused, 2000)).toBeUndefined();
    expect(reduceLink(refused, { type: 'retry' }, 3000)).toMatchObject({ phase: 'refused', detail: 'Asking the hub…' });
    expect(reduceLink(after(...upgraded), { type: 'retry' }, 3000).phase).toBe('connecting');
  });
});

describe('what others send', () => {
  const sender = { from: 'b', name: 'vera', room: 'lobby', at: 7 };

  test('has the sender that the hub names, not the one that the sender names', () => {
    const forged = { from: 'x', name: 'admin', room: 'lobby', at: 1 };
    for (const args of [
      ['hi', forged, sender, 'offset'],
      ['hi', forged, sender],
    ] as Json[][]) {
      expect(readMessage(args)).toEqual({ from: 'b', name: 'vera', at: 7, text: `hi ${JSON.stringify(forged)}` });
    }
    expect(readMessage([sender, 'offset'])).toMatchObject({ text: '', name: 'vera' });
  });

  test('is bounded, and must have the right shape', () => {
    expect(readMessage(['x'.repeat(5000), sender, 'o']).text.length).toBe(mostText + 1);
    for (const args of [[], ['hi'], ['hi', null, 'o'], ['hi', { from: 1 }, 'o']] as Json[][]) {
      expect(() => readMessage(args)).toThrow(/is not/);
    }
    expect(() => readPeople({ connected: 1, count: 1, people: [{ id: 'a' }] })).toThrow('name');
    expect(() => readGreeting(['hi'])).toThrow('welcome');
  });

  test('comes with the hub’s word on what became of it', () => {
    expect(fate({ sent: 1 })).toEqual({ text: 'delivered to 1 other', failed: false });
    expect(fate({ sent: 3 })).toEqual({ text: 'delivered to 3 others', failed: false });
    expect(fate({ sent: 0 })).toEqual({ text: 'nobody else is here to get it', failed: false });
    expect(fate({ error: 'too many messages' })).toEqual({ text: 'not delivered: too many messages', failed: true });
  });
});

describe('readings', () => {
  const newest = (t: number): Newest => ({ t, v: 1, unit: '', quality: 0 });

  function fleet(devices: [string, [string, number][]][]): Fleet {
    const states = devices.map(
      ([id, metrics]): DeviceState => ({
        id,
        name: '',
        presence: 'live',
        seen: 0,
        changed: 0,
        gone: false,
        metrics: new Map(metrics.map(([name, t]) => [name, newest(t)])),
      }),
    );
    return reduceFleet(emptyFleet, { type: 'snapshot', token: '', now: 0, more: false, devices: states });
  }

  test('have the newest on top, and no more than can be read', () => {
    const { rows, all } = newestRows(
      fleet([
        [
          'b',
          [
            ['y', 1],
            ['x', 3],
          ],
        ],
        ['a', [['z', 3]]],
      ]),
    );
    expect(rows.map((r) => [r.device, r.metric])).toEqual([
      ['a', 'z'],
      ['b', 'x'],
      ['b', 'y'],
    ]);
    expect(all).toBe(3);
    const many = fleet(Array.from({ length: 5000 }, (_, i) => [`d${i}`, [['m', (i * 7919) % 5000]]]));
    const some = newestRows(many, 50);
    expect(some.all).toBe(5000);
    expect(some.rows.map((r) => r.newest.t)).toEqual(Array.from({ length: 50 }, (_, i) => 4999 - i));
  });

  test('stay where they are while somebody points at them', () => {
    const { rows } = newestRows(
      fleet([
        [
          'a',
          [
            ['x', 1],
            ['y', 2],
            ['z', 3],
          ],
        ],
      ]),
    );
    const keys = (list: typeof rows) => list.map((r) => r.metric).join('');
    expect(keys(rows)).toBe('zyx');
    expect(keys(arrange(rows, ['a\nx', 'a\nz', 'gone\nm'], true))).toBe('xzy');
    expect(keys(arrange(rows, ['a\nx', 'a\nz'], false))).toBe('zyx');
  });

  test('come in the frames of the feed, parsed already', () => {
    const d: Json = { id: 'a', presence: 'offline', metrics: { x: { t: 1, v: 'on' } } };
    expect(readDevice(d)).toMatchObject({ id: 'a', presence: 'offline' });
    expect(decodeFrame({ type: 'changes', token: 't', devices: [d] })).toMatchObject({
      type: 'changes',
      now: undefined,
    });
  });
});
