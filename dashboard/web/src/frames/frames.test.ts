import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { parseJson, ShapeError } from './check';
import { decodeAdded, decodeDevice, decodeHistory, decodeMe, decodeProblem, decodeStatus } from './http';
import { decodeFrame as decode, type Frame } from './live';

const decodeFrame = (text: string): Frame => decode(parseJson(text));

test('a frame becomes what hub/frames.go says', () => {
  expect(decodeFrame('{"type":"welcome","text":"web Socket Works","version":"1.0","started":1766000000123}')).toEqual({
    type: 'welcome',
    text: 'web Socket Works',
    version: '1.0',
    started: 1766000000123,
  });
  const snapshot = decodeFrame(
    '{"type":"snapshot","token":"e-1","now":5,"devices":[{"id":"a","name":"A","presence":"live","seen":3,"changed":2,' +
      '"metrics":{"temperature":{"t":1,"v":21.4,"u":"Cel","q":16},"door":{"t":1,"v":true}}},{"id":"b","presence":"never","metrics":{}}]}',
  );
  expect(snapshot).toMatchObject({ type: 'snapshot', token: 'e-1', now: 5, more: false });
  if (snapshot.type !== 'snapshot') throw new Error();
  expect(snapshot.devices[0]).toMatchObject({ id: 'a', name: 'A', presence: 'live', seen: 3, changed: 2, gone: false });
  expect([...(snapshot.devices[0]?.metrics ?? [])]).toEqual([
    ['temperature', { t: 1, v: 21.4, unit: 'Cel', quality: 16 }],
    ['door', { t: 1, v: true, unit: '', quality: 0 }],
  ]);
  expect(snapshot.devices[1]).toMatchObject({ id: 'b', name: '', presence: 'never', seen: 0 });
  expect(
    decodeFrame(
      '{"type":"changes","token":"e-2","devices":[{"id":"a","presence":"offline","gone":true,"metrics":{}}]}',
    ),
  ).toMatchObject({ now: undefined, more: false, devices: [{ gone: true }] });
  expect(decodeFrame('{"type":"readings","token":"e-3","readings":[["a","m",7,"on"],["a","m",8,1,2]]}')).toEqual({
    type: 'readings',
    token: 'e-3',
    readings: [
      { device: 'a', metric: 'm', t: 7, v: 'on', quality: 0 },
      { device: 'a', metric: 'm', t: 8, v: 1, quality: 2 },
    ],
  });
});

test('a frame of a newer hub is passed over, and unknown keys too', () => {
  expect(decodeFrame('{"type":"alert","level":3}')).toEqual({ type: 'unknown' });
  expect(decodeFrame('{"type":"readings","token":"t","readings":[],"new":1}')).toMatchObject({ token: 't' });
});

test.each([
  '',
  'null',
  '[]',
  '{"type":7}',
  '{"type":"welcome"}',
  '{"type":"snapshot","token":"t","devices":[]}',
  '{"type":"snapshot","token":"t","now":1,"devices":{}}',
  '{"type":"snapshot","token":"t","now":1,"devices":[{"id":"a","presence":"asleep"}]}',
  '{"type":"snapshot","token":"t","now":1,"devices":[{"presence":"live"}]}',
  '{"type":"snapshot","token":"t","now":1,"devices":[{"id":"a","presence":"live","metrics":{"m":{"t":"1","v":1}}}]}',
  '{"type":"snapshot","token":"t","now":1,"devices":[{"id":"a","presence":"live","metrics":{"m":{"t":1,"v":null}}}]}',
  '{"type":"readings","token":"t","readings":[["a","m",7]]}',
  '{"type":"readings","token":"t","readings":[["a","m","7",1]]}',
  '{"type":"readings","readings":[]}',
])('%s is refused', (text) => {
  expect(() => decodeFrame(text)).toThrow(ShapeError);
});

test('a name like __proto__ is a name like any other', () => {
  const f = decodeFrame(
    '{"type":"changes","token":"t","devices":[{"id":"a","presence":"live","metrics":{"__proto__":{"t":1,"v":2}}}]}',
  );
  if (f.type !== 'changes') throw new Error();
  expect(f.devices[0]?.metrics.get('__proto__')).toMatchObject({ v: 2 });
});

test('answers of the API are read and checked', () => {
  expect(decodeMe({ kind: 'person', name: 'admin', role: 'admin' })).toEqual({
    kind: 'person',
    name: 'admin',
    role: 'admin',
  });
  expect(decodeMe({ kind: 'person', name: 'x', role: 'emperor' }).role).toBeUndefined();
  expect(decodeProblem(403, { detail: 'No.', title: 'Forbidden' })).toEqual({ status: 403, detail: 'No.' });
  expect(decodeProblem(403, { title: 'Forbidden' }).detail).toBe('Forbidden');
  expect(decodeAdded({ id: 'a', token: 'thd_x', metrics: [] })).toEqual({ id: 'a', token: 'thd_x' });
  expect(
    decodeDevice({
      id: 'a',
      presence: 'live',
      connected: true,
      created: 1,
      interval_ms: 10_000,
      metrics: [{ name: 't', unit: 'Cel', kind: 'gauge', lo: -40, latest: { t: 1, value: 2 } }],
    }),
  ).toMatchObject({
    name: '',
    intervalMs: 10_000,
    metrics: [{ lo: -40, hi: undefined, latest: { v: 2, unit: 'Cel' } }],
  });
  expect(
    decodeHistory({
      device: 'a',
      metric: 't',
      unit: 'Cel',
      points: [[1, 2]],
      gaps: [{ from: 1, to: 2, cause: 'jump' }],
      next: 3,
    }),
  ).toEqual({
    unit: 'Cel',
    points: [[1, 2]],
    gaps: [{ from: 1, to: 2, count: 0, cause: 'jump' }],
    next: 3,
    damage: '',
  });
  expect(decodeStatus({ ready: false, reason: 'Full.', plaintext: ['0.0.0.0:1'] })).toEqual({
    ready: false,
    reason: 'Full.',
    fingerprint: '',
    plaintext: ['0.0.0.0:1'],
  });
  for (const bad of [null, [], {}, { points: [[1]], gaps: [] }, { points: [], gaps: [{}] }]) {
    expect(() => decodeHistory(bad)).toThrow(ShapeError);
  }
});

// The values of devices come through unchanged: the golden vectors of the device protocol hold every sort there is.
test('values of the golden vectors pass the decoder', () => {
  const dir = join(import.meta.dirname, '../../../../device/wire/testdata');
  let found = 0;
  for (const name of readdirSync(dir)) {
    if (!/^data.*\.json$/.test(name)) continue;
    const text = readFileSync(join(dir, name), 'utf8');
    for (const [, v] of text.matchAll(/\[\d+,\d+,(-?[\d.]+(?:e-?\d+)?|true|false|"[^"\\]*")\]/g)) {
      const f = decodeFrame(`{"type":"readings","token":"t","readings":[["a","m",1,${v}]]}`);
      if (f.type !== 'readings') throw new Error();
      expect(f.readings[0]?.v).toBe(JSON.parse(v ?? ''));
      found++;
    }
  }
  expect(found).toBeGreaterThan(0);
});
