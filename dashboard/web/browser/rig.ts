// A real hub and a real browser for the tests, each on a folder of its own.

import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type BrowserContext, chromium, type Page } from 'playwright-core';

const root = join(import.meta.dirname, '../../..');

/** The hub under test: built by make, or here. */
const program = process.env.HUB_BINARY ?? join(root, 'bin/hub');

export const chromiumPath = process.env.CHROMIUM ?? '/usr/bin/chromium';

/** Why tests that need a hub can not run, or nothing. */
export function missingHub(): string | undefined {
  return existsSync(program) ? undefined : `${program} is missing: run make build`;
}

/** Why tests that need a browser too can not run, or nothing. */
export function missing(): string | undefined {
  if (missingHub() !== undefined) return missingHub();
  if (!existsSync(chromiumPath)) return `${chromiumPath} is missing: apt-get install chromium`;
  return undefined;
}

/**
 * A port that nobody listens at. It is none of those that the system gives to whoever asks for any or calls out: else somebody
 * may have it while a hub is down.
 */
export async function freePort(): Promise<number> {
  for (;;) {
    const port = 20_000 + Math.floor(Math.random() * 12_000);
    const server = createServer();
    const free = await new Promise<boolean>((resolve) => {
      server.once('error', () => resolve(false));
      server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)));
    });
    if (free) return port;
  }
}

/** A hub process on a data folder that outlives it. */
export class HubProcess {
  private process: ChildProcess | undefined;
  private output = '';

  private constructor(
    readonly dir: string,
    readonly port: number,
    private readonly flags: string[],
  ) {}

  static async make(...flags: string[]): Promise<HubProcess> {
    return new HubProcess(mkdtempSync(join(tmpdir(), 'hub-page-')), await freePort(), flags);
  }

  get url(): string {
    return `http://127.0.0.1:${this.port}/`;
  }

  async start(...more: string[]): Promise<void> {
    this.output = '';
    const child = spawn(
      program,
      ['serve', '--data', this.dir, '--http', `127.0.0.1:${this.port}`, '--log-level', 'warn', ...this.flags, ...more],
      {
        stdio: ['ignore', 'pipe', 'pipe'],
      },
    );
    this.process = child;
    const take = (chunk: Buffer) => {
      this.output += chunk.toString();
    };
    child.stdout?.on('data', take);
    child.stderr?.on('data', take);
    await until(`the hub is ready\n${this.output}`, async () => {
      if (child.exitCode !== null) throw new Error(`the hub ended: ${this.output}`);
      try {
        return (await fetch(`${this.url}readyz`)).ok;
      } catch {
        return false;
      }
    });
  }

  /** Ends the process without a warning, as a power cut would. */
  async kill(): Promise<void> {
    const child = this.process;
    if (child === undefined) return;
    this.process = undefined;
    const ended = new Promise<void>((resolve) => child.once('exit', () => resolve()));
    child.kill('SIGKILL');
    await ended;
  }

  async remove(): Promise<void> {
    await this.kill();
    rmSync(this.dir, { recursive: true, force: true });
  }

  /** Runs a command of the hub program on the same data. */
  command(...args: string[]): Record<string, unknown> {
    const text = execFileSync(program, [...args, '--data', this.dir, '--output', 'json'], { encoding: 'utf8' });
    return (text === '' ? {} : JSON.parse(text)) as Record<string, unknown>;
  }

  /** The one-time link that the hub has printed at its start. */
  async setupLink(): Promise<string> {
    let link: string | undefined;
    await until('the hub prints its link', async () => {
      link = /http\S+#link=\S+/.exec(this.output)?.[0];
      return link !== undefined;
    });
    return link ?? '';
  }

  /** Makes an API token for somebody who only looks. */
  viewerToken(): string {
    return String(this.command('token', 'create', '--role', 'viewer').token);
  }

  addDevice(id: string, name = ''): Device {
    const made = this.command('device', 'add', id, ...(name === '' ? [] : ['--name', name]));
    return new Device(this, id, String(made.token));
  }
}

/** A device that sends by HTTP: an answer means that the reading is on disk. */
export class Device {
  constructor(
    private readonly hub: HubProcess,
    readonly id: string,
    readonly token: string,
  ) {}

  async send(body: unknown): Promise<void> {
    const answer = await fetch(`${this.hub.url}api/v1/devices/${this.id}/readings`, {
      method: 'POST',
      headers: { Authorization: `Bearer ${this.token}`, 'Content-Type': 'application/json' },
      body: JSON.stringify(body),
    });
    if (answer.status !== 204) throw new Error(`${this.id} is answered ${answer.status} ${await answer.text()}`);
  }

  /** Sends readings of one metric at these times. */
  async series(metric: string, unit: string, points: readonly (readonly [number, number])[]): Promise<void> {
    for (let i = 0; i < points.length; i += 500) {
      await this.send(points.slice(i, i + 500).map(([t, v]) => ({ n: metric, u: unit, t: t / 1000, v })));
    }
  }
}

/** Waits for a condition. Nothing here waits for a time. */
export async function until(what: string, holds: () => Promise<boolean>, timeout = 60_000): Promise<void> {
  const end = Date.now() + timeout;
  while (!(await holds())) {
    if (Date.now() > end) throw new Error(`it did not come about that ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

export interface Look {
  scheme?: 'light' | 'dark';
  width?: number;
  height?: number;
}

/** A browser with a fresh profile. Requests beyond the hub are refused, and remembered. */
export class Browser {
  readonly foreign: string[] = [];
  readonly complaints: string[] = [];

  private constructor(
    private readonly profile: string,
    readonly context: BrowserContext,
  ) {}

  static async start(hub: { url: string }, look: Look = {}): Promise<Browser> {
    const profile = mkdtempSync(join(tmpdir(), 'hub-browser-'));
    const context = await chromium.launchPersistentContext(profile, {
      executablePath: chromiumPath,
      headless: true,
      args: [
        '--headless',
        '--no-sandbox',
        '--disable-gpu',
        '--disable-quic',
        '--no-first-run',
        '--disable-background-networking',
        '--disable-component-update',
        '--disable-sync',
        '--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1',
      ],
      viewport: { width: look.width ?? 1280, height: look.height ?? 800 },
      colorScheme: look.scheme ?? 'light',
      locale: 'en-GB',
      timezoneId: 'Europe/Berlin',
      reducedMotion: 'reduce',
    });
    const b = new Browser(profile, context);
    const host = new URL(hub.url).host;
    await context.route(
      (url) => url.host !== host,
      (route) => {
        b.foreign.push(route.request().url());
        return route.abort();
      },
    );
    context.on('console', (message) => {
      const text = message.text();
      // The network going away is what some tests are about, and a login that fails is no fault of the page.
      if (message.type() === 'error' && !/net::ERR_|WebSocket connection|status of 4\d\d/.test(text))
        b.complaints.push(text);
    });
    context.on('weberror', (e) => b.complaints.push(String(e.error())));
    return b;
  }

  async page(): Promise<Page> {
    const page = this.context.pages()[0] ?? (await this.context.newPage());
    page.setDefaultTimeout(60_000);
    return page;
  }

  async stop(): Promise<void> {
    await this.context.close();
    rmSync(this.profile, { recursive: true, force: true });
  }
}

export function hook(name: string): string {
  return `[data-hook="${name}"]`;
}

/** Logs in without a form, for tests that are about something else; url is where the hub is seen from. */
export async function enter(page: Page, hub: HubProcess, to = '', url = hub.url): Promise<void> {
  const made = hub.command('user', 'link', 'admin', '--login');
  await page.goto(`${url}#link=${String(made.link)}`);
  await page.waitForSelector(hook('connection'));
  if (to !== '') await page.evaluate((hash) => location.assign(hash), to);
}

const axeSource = readFileSync(join(import.meta.dirname, '../node_modules/axe-core/axe.min.js'), 'utf8');

interface AxeResult {
  violations: { id: string; help: string; nodes: { target: string[]; failureSummary?: string }[] }[];
}

/** What axe finds wrong, one line each. It is put in by the debugger, which the policy of the page does not concern. */
export async function violations(page: Page): Promise<string[]> {
  await page.evaluate(axeSource);
  const result = await page.evaluate(async () => {
    const { axe } = globalThis as unknown as { axe: { run(options: unknown): Promise<unknown> } };
    return await axe.run({ runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'] });
  });
  return (result as AxeResult).violations.map(
    (v) => `${v.id}: ${v.help}: ${v.nodes.map((n) => `${n.target.join(' ')} (${n.failureSummary ?? ''})`).join('; ')}`,
  );
}

const shots = process.env.SHOTS;

/** Keeps a picture, if somebody wants to look at them. */
export async function shot(page: Page, name: string): Promise<void> {
  if (shots === undefined) return;
  mkdirSync(shots, { recursive: true });
  await page.screenshot({ path: join(shots, `${name}.png`) });
}

/** How far the page can be scrolled sideways. */
export function sideways(page: Page): Promise<number> {
  return page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
}
