import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { backoff } from './backoff';
import { Feed, type FeedStatus, type Subscription } from './feed';

class FakeSocket {
  static all: FakeSocket[] = [];
  sent: string[] = [];
  closed = false;
  onopen: (() => void) | null = null;
  onmessage: ((e: { data: string }) => void) | null = null;
  onclose: ((e: { code: number }) => void) | null = null;
  constructor() {
    FakeSocket.all.push(this);
  }
  send(text: string): void {
    this.sent.push(text);
  }
  close(): void {
    this.closed = true;
  }
  static get last(): FakeSocket {
    const s = FakeSocket.all[FakeSocket.all.length - 1];
    if (s === undefined) throw new Error('no socket');
    return s;
  }
}

const newest: Subscription = { devices: ['*'], mode: 'latest', tick: 1000 };
const every: Subscription = { devices: ['a'], mode: 'all', tick: 200 };
const welcome = '{"type":"welcome","text":"web Socket Works","version":"1","started":1}';
const snapshot = (token: string) => `{"type":"snapshot","now":1,"devices":[],"token":"${token}"}`;
const part = '{"type":"snapshot","now":1,"devices":[],"more":true}';

function rig(subscription: Subscription, allowed = true) {
  const states: FeedStatus['phase'][] = [];
  const seen: string[] = [];
  let resets = 0;
  const feed = new Feed(
    'ws://hub/api/v1/live',
    subscription,
    { frame: (f) => seen.push(f.type), status: (s) => states.push(s.phase), reset: () => resets++ },
    {
      open: () => new FakeSocket() as unknown as WebSocket,
      allowed: async () => allowed,
      random: () => 1,
      now: Date.now,
    },
  );
  feed.open();
  return { feed, states, seen, resets: () => resets };
}

function live(token = 'e-1'): void {
  FakeSocket.last.onopen?.();
  FakeSocket.last.onmessage?.({ data: welcome });
  FakeSocket.last.onmessage?.({ data: snapshot(token) });
}

beforeEach(() => {
  vi.useFakeTimers();
  FakeSocket.all = [];
});
afterEach(() => {
  vi.useRealTimers();
});

test('waits at random within a bound that grows and has an end', () => {
  expect(backoff(0, () => 1)).toBe(500);
  expect(backoff(3, () => 1)).toBe(4000);
  expect(backoff(1000, () => 1)).toBe(15_000);
  expect(backoff(9, () => 0)).toBe(100);
});

test('resumes after the last frame that was whole', async () => {
  const r = rig(newest);
  live('e-1');
  expect(r.states).toEqual(['connecting', 'live']);
  expect(JSON.parse(FakeSocket.last.sent[0] ?? '')).toEqual({
    subscribe: { devices: ['*'], mode: 'latest', tick: 1000 },
  });
  FakeSocket.last.onmessage?.({ data: '{"type":"changes","token":"e-2","devices":[]}' });
  FakeSocket.last.onmessage?.({ data: part }); // breaks off before its end
  FakeSocket.last.onclose?.({ code: 1006 });
  await vi.advanceTimersByTimeAsync(600);
  FakeSocket.last.onopen?.();
  expect(FakeSocket.last.sent[0]).toContain('"after":"e-2"');
});

test('comes back for ever, and at once when it is woken', async () => {
  const r = rig(newest);
  for (let i = 0; i < 50; i++) {
    FakeSocket.last.onclose?.({ code: 1006 });
    const n = FakeSocket.all.length;
    let waited = 0;
    for (; FakeSocket.all.length === n; waited += 100) await vi.advanceTimersByTimeAsync(100);
    expect(waited).toBeLessThanOrEqual(15_000);
  }
  expect(FakeSocket.all.length).toBe(51);
  FakeSocket.last.onclose?.({ code: 1006 });
  expect(r.states.at(-1)).toBe('waiting');
  r.feed.wake();
  expect(FakeSocket.all.length).toBe(52);
});

test('gives up a connection that never opens', async () => {
  rig(newest);
  await vi.advanceTimersByTimeAsync(10_000);
  expect(FakeSocket.all[0]?.closed).toBe(true);
  await vi.advanceTimersByTimeAsync(500);
  expect(FakeSocket.all.length).toBe(2);
});

test('asks when it was quiet for long, and leaves a connection that does not answer', async () => {
  const r = rig(newest);
  live();
  await vi.advanceTimersByTimeAsync(30_000);
  expect(FakeSocket.last.sent.length).toBe(2);
  expect(FakeSocket.last.sent[1]).toContain('"after":"e-1"');
  FakeSocket.last.onmessage?.({ data: '{"type":"changes","token":"e-1","now":2,"devices":[]}' });
  await vi.advanceTimersByTimeAsync(29_000);
  expect(FakeSocket.last.sent.length).toBe(2);
  await vi.advanceTimersByTimeAsync(1000);
  await vi.advanceTimersByTimeAsync(10_000);
  expect(r.states.at(-1)).toBe('waiting');
  expect(FakeSocket.all[0]?.closed).toBe(true);
});

test('stops when the session is over', async () => {
  const r = rig(newest);
  live();
  FakeSocket.last.onclose?.({ code: 4503 });
  await vi.advanceTimersByTimeAsync(60_000);
  expect(r.states.at(-1)).toBe('denied');
  expect(FakeSocket.all.length).toBe(1);

  const refused = rig(newest, false);
  FakeSocket.last.onclose?.({ code: 1006 }); // a refused upgrade does not say why
  await vi.advanceTimersByTimeAsync(60_000);
  expect(refused.states.at(-1)).toBe('denied');
});

test('begins anew when the hub cannot go back so far', async () => {
  const r = rig(every);
  live('e-1');
  FakeSocket.last.onclose?.({ code: 4010 });
  expect(r.resets()).toBe(1);
  await vi.advanceTimersByTimeAsync(600);
  FakeSocket.last.onopen?.();
  expect(FakeSocket.last.sent[0]).not.toContain('after');
});

test('a resumed subscription to everything is live with the welcome, as nothing else may come', async () => {
  const r = rig(every);
  live('e-1');
  FakeSocket.last.onclose?.({ code: 1006 });
  await vi.advanceTimersByTimeAsync(600);
  FakeSocket.last.onopen?.();
  FakeSocket.last.onmessage?.({ data: welcome });
  expect(r.states.at(-1)).toBe('live');
});

test('a frame that makes no sense begins everything anew', async () => {
  rig(newest);
  live('e-1');
  FakeSocket.last.onmessage?.({ data: '{"type":"changes"}' });
  await vi.advanceTimersByTimeAsync(600);
  FakeSocket.last.onopen?.();
  expect(FakeSocket.last.sent[0]).not.toContain('after');
});

test('what arrives from a connection that was left is not heard', async () => {
  const r = rig(newest);
  live();
  const old = FakeSocket.last;
  old.onclose?.({ code: 1006 });
  const n = r.seen.length;
  old.onmessage?.({ data: snapshot('e-7') });
  old.onclose?.({ code: 4503 });
  expect(r.seen.length).toBe(n);
  expect(r.states.at(-1)).toBe('waiting');
  r.feed.close();
  expect(r.states.at(-1)).toBe('closed');
});
