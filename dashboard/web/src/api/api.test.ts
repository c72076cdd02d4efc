import { expect, test } from 'vitest';
import { Api, ApiError, historyPath } from './api';
import { Lanes } from './lanes';

function api(base: string, answer: () => Response): { api: Api; asked: string[] } {
  const asked: string[] = [];
  const fetch = async (url: string | URL | Request) => {
    asked.push(String(url));
    return answer();
  };
  return { api: new Api(base, fetch), asked };
}

test('works under a prefix', async () => {
  const { api: a, asked } = api('https://proxy.test/hub/', () => Response.json({ kind: 'person', name: 'x' }));
  await a.me();
  expect(asked).toEqual(['https://proxy.test/hub/api/v1/me']);
});

test('says what the hub says, or that it was not reached', async () => {
  const refused = api('http://h/', () => Response.json({ status: 409, detail: 'It exists.' }, { status: 409 }));
  await expect(refused.api.addDevice('a', '')).rejects.toEqual(new ApiError(409, 'It exists.'));
  const proxy = api('http://h/', () => new Response('<html>', { status: 502 }));
  await expect(proxy.api.me()).rejects.toMatchObject({ status: 502, message: 'The hub answered 502.' });
  const down = new Api('http://h/', async () => {
    throw new TypeError('fetch failed');
  });
  await expect(down.me()).rejects.toMatchObject({ status: 0 });
});

test('asks for whole milliseconds', () => {
  expect(historyPath({ device: 'a.b', metric: 'rain/total', from: 1.5, to: 2.5, step: 0 })).toBe(
    'api/v1/devices/a.b/readings?metric=rain%2Ftotal&from=1&to=3',
  );
  expect(historyPath({ device: 'a', metric: 'm', from: 0, to: 9, step: 60_000, agg: 'max', limit: 5 })).toBe(
    'api/v1/devices/a/readings?metric=m&from=0&to=9&step=60000ms&agg=max&limit=5',
  );
});

test('lanes run so many at a time, and nothing that was given up', async () => {
  const lanes = new Lanes(2);
  const order: string[] = [];
  let release = () => {};
  const gate = new Promise<void>((resolve) => {
    release = resolve;
  });
  const job = (name: string) => async () => {
    order.push(name);
    await gate;
  };
  const abort = new AbortController();
  const go = new AbortController().signal;
  const all = [
    lanes.run(job('a'), go),
    lanes.run(job('b'), go),
    lanes.run(job('c'), abort.signal),
    lanes.run(job('d'), go),
  ];
  const given = expect(all[2]).rejects.toThrow();
  abort.abort();
  expect(order).toEqual(['a', 'b']);
  release();
  await Promise.allSettled(all);
  await given;
  expect(order).toEqual(['a', 'b', 'd']);
});
