// The HTTP API of the hub. Every address is relative to the page, so that it works under a prefix.

import { asArray, asObject, type Json } from '../frames/check';
import {
  type Added,
  type DeviceInfo,
  decodeAdded,
  decodeDevice,
  decodeHistory,
  decodeMe,
  decodeProblem,
  decodeStatus,
  type History,
  type Me,
  type Status,
} from '../frames/http';

/** An answer that is not the one asked for. status 0 means that the hub was not reached. */
export class ApiError extends Error {
  override name = 'ApiError';
  constructor(
    readonly status: number,
    message: string,
  ) {
    super(message);
  }
}

export interface HistoryQuery {
  device: string;
  metric: string;
  from: number;
  to: number;
  /** Width of a step in ms, 0 for the readings themselves. */
  step: number;
  agg?: 'avg' | 'min' | 'max' | 'last';
  limit?: number;
}

export class Api {
  constructor(
    readonly base: string,
    private readonly fetch: typeof globalThis.fetch = globalThis.fetch.bind(globalThis),
  ) {}

  /** The address of something in the API. */
  url(path: string): string {
    return new URL(path, this.base).href;
  }

  me(signal?: AbortSignal): Promise<Me> {
    return this.get('api/v1/me', decodeMe, signal);
  }

  login(name: string, password: string): Promise<void> {
    return this.post('api/v1/login', { name, password }, ignore);
  }

  claim(link: string, password: string): Promise<void> {
    return this.post('api/v1/links/claim', password === '' ? { link } : { link, password }, ignore);
  }

  logout(): Promise<void> {
    return this.post('api/v1/logout', undefined, ignore);
  }

  status(signal?: AbortSignal): Promise<Status> {
    return this.get('api/v1/status', decodeStatus, signal);
  }

  devices(signal?: AbortSignal): Promise<DeviceInfo[]> {
    return this.get(
      'api/v1/devices',
      (json) => asArray(asObject(json, 'list').devices, 'devices').map(decodeDevice),
      signal,
    );
  }

  device(id: string, signal?: AbortSignal): Promise<DeviceInfo> {
    return this.get(`api/v1/devices/${encodeURIComponent(id)}`, decodeDevice, signal);
  }

  addDevice(id: string, name: string): Promise<Added> {
    return this.post('api/v1/devices', name === '' ? { id } : { id, name }, decodeAdded);
  }

  history(q: HistoryQuery, signal?: AbortSignal): Promise<History> {
    return this.get(historyPath(q), decodeHistory, signal);
  }

  csvUrl(device: string, from: number, to: number, zone: string): string {
    const query = new URLSearchParams({ format: 'csv', from: `${Math.floor(from)}`, to: `${Math.ceil(to)}`, tz: zone });
    return this.url(`api/v1/devices/${encodeURIComponent(device)}/readings?${query}`);
  }

  /** The page itself as the hub has it now, to see whether it is a newer one. */
  page(): Promise<string> {
    return this.request('', { method: 'GET' }).then((r) => r.text());
  }

  private async get<T>(path: string, decode: (json: Json) => T, signal?: AbortSignal): Promise<T> {
    const answer = await this.request(path, signal === undefined ? { method: 'GET' } : { method: 'GET', signal });
    return decode((await answer.json()) as Json);
  }

  private async post<T>(path: string, body: Json | undefined, decode: (json: Json) => T): Promise<T> {
    const init: RequestInit =
      body === undefined
        ? { method: 'POST' }
        : { method: 'POST', body: JSON.stringify(body), headers: { 'Content-Type': 'application/json' } };
    const answer = await this.request(path, init);
    return decode(answer.status === 204 ? null : ((await answer.json()) as Json));
  }

  private async request(path: string, init: RequestInit): Promise<Response> {
    let answer: Response;
    try {
      answer = await this.fetch(this.url(path), { credentials: 'same-origin', cache: 'no-store', ...init });
    } catch (err) {
      if (err instanceof DOMException && err.name === 'AbortError') throw err;
      throw new ApiError(0, 'The hub does not answer. Check the network, and whether the hub is running.');
    }
    if (answer.ok) return answer;
    throw await refusal(answer);
  }
}

function ignore(): void {}

async function refusal(answer: Response): Promise<ApiError> {
  const plain = new ApiError(answer.status, `The hub answered ${answer.status}.`);
  try {
    const problem = decodeProblem(answer.status, (await answer.json()) as Json);
    return problem.detail === '' ? plain : new ApiError(answer.status, problem.detail);
  } catch {
    return plain; // whatever stands between us and the hub has its own words
  }
}

export function historyPath(q: HistoryQuery): string {
  const query = new URLSearchParams({ metric: q.metric, from: `${Math.floor(q.from)}`, to: `${Math.ceil(q.to)}` });
  if (q.step > 0) {
    query.set('step', `${q.step}ms`);
    query.set('agg', q.agg ?? 'avg');
  }
  if (q.limit !== undefined) query.set('limit', `${q.limit}`);
  return `api/v1/devices/${encodeURIComponent(q.device)}/readings?${query}`;
}
