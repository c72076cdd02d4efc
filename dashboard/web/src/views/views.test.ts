import { expect, test } from 'vitest';
import { unconnected } from '../state/connection';
import type { Check } from '../state/diagnosis.svelte';
import { fromPoints, holes } from '../state/series';
import { slug, snippets } from './add/snippets';
import { hostFor, proxies, startCommand } from './connection/proxies';
import { advice, summary } from './connection/words';
import { mostRows, tableRows } from './device/table';
import { notices } from './frame/banner';

const ready = { ready: true, reason: '', fingerprint: '', plaintext: [] };

test('the banner says what is wrong, and nothing if nothing is', () => {
  const live = { ...unconnected, phase: 'live', trueAt: 1000 } as const;
  expect(notices(live, ready, false, 2000)).toEqual([]);
  expect(notices(unconnected, undefined, false, 2000).map((n) => n.key)).toEqual(['connecting']);
  const lost = notices({ ...live, phase: 'waiting', retryAt: 17_500 }, ready, false, 15_000);
  expect(lost).toMatchObject([{ key: 'reconnecting', detail: 'What you see is 14 s old. Next attempt in 3 s.' }]);
  expect(notices({ ...live, phase: 'denied', reason: 'Because.' }, ready, false, 0)).toMatchObject([
    { key: 'stopped', detail: 'Because.' },
  ]);
  expect(notices({ ...live, restarted: true }, ready, false, 0).map((n) => n.key)).toEqual(['restarted']);
  expect(notices(live, { ...ready, ready: false, reason: 'Full.' }, false, 0)).toMatchObject([
    { key: 'notready', detail: 'Full.' },
  ]);
  expect(notices(live, { ...ready, plaintext: ['0.0.0.0:1'] }, true, 0).map((n) => n.key)).toEqual([
    'outdated',
    'plaintext',
  ]);
});

test('what does not pass is said once, with what to do', () => {
  const broken = { code: 0, reason: '', retry: 0 };
  const check = (key: Check['key'], passes: boolean, end = broken): Check => ({
    key,
    state: passes ? 'passed' : 'failed',
    began: 0,
    proof: { passes, ms: 5, end },
  });
  const some = [check('websocket', false), check('sse', true), check('longpoll', true), check('poll', true)];
  expect(summary(some, true)).toBe('One way does not pass; the page uses another.');
  expect(advice(check('websocket', false))).toContain('--public-url');
  expect(advice(check('sse', false, { ...broken, code: 502 }))).toContain('502');
  expect(advice(check('sse', false, { ...broken, code: 401, reason: 'Log in.' }))).toBe('The hub answers: Log in.');
  expect(summary([check('websocket', false), check('poll', false)], false)).toContain('Check that it runs');
  expect(summary([{ ...check('poll', true), state: 'running' }], true)).toBe('Testing…');
});

test('the snippets for proxies carry the name of the page, if a proxy can have it', () => {
  expect(hostFor('telemetry.example.net')).toBe('telemetry.example.net');
  for (const own of ['127.0.0.1', '[::1]', 'localhost', 'pi.local']) expect(hostFor(own)).toBe('hub.example.org');
  for (const s of proxies('a.example')) expect(s.code).toContain('a.example');
  expect(startCommand('a.example')).toContain('--trusted-proxy 127.0.0.1');
});

test('names become ids', () => {
  expect(slug('Gewächshaus, Nord')).toBe('gewachshaus-nord');
  expect(slug('  Straße 5 ')).toBe('strasse-5');
  expect(slug('温室')).toBe('');
  expect(slug('x'.repeat(99)).length).toBe(64);
});

test('commands carry address and token, and the pin where there is one', () => {
  const place = { base: 'http://127.0.0.1:8080/hub/', id: 'porch', token: 'thd_abc', pin: '' };
  for (const s of snippets(place)) {
    expect(s.code).toContain('thd_abc');
    expect(s.code).toContain('127.0.0.1:8080/hub');
    expect(s.code).not.toContain('pin');
  }
  const own = snippets({ ...place, base: 'https://hub.local/', pin: 'sha256//AAA=' });
  expect(own[0]?.code).toContain("--pinnedpubkey 'sha256//AAA='");
  expect(own[3]?.code).toContain('\npin: sha256//AAA=\ndevice: ');
  for (const s of own.slice(1, 3)) expect(s.code).toContain('wss://hub.local/device/v1');
});

test('the table has the newest first, with the gaps between', () => {
  const s = fromPoints([
    [10_000, 1],
    [20_000, 2],
    [90_000, 3],
  ]);
  const { rows, total } = tableRows(s, holes(s, 10_000, []), '', 0, 100_000);
  expect(total).toBe(3);
  expect(rows.map((r) => [r.t, r.value, r.hole !== ''])).toEqual([
    [90_000, '3', false],
    [20_000, '', true],
    [20_000, '2', false],
    [10_000, '1', false],
  ]);
  const many = fromPoints(Array.from({ length: 1000 }, (_, i) => [i, i]));
  expect(tableRows(many, [], '', 0, 1000).rows.length).toBe(mostRows);
});
