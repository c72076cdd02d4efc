// The page that says what passes through a network, in networks that do not let everything through.

import { request } from 'node:http';
import type { Page } from 'playwright-core';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { proxies } from '../src/views/connection/proxies';
import { Gateway } from './gateway';
import { missingNginx, Nginx } from './nginx';
import { Browser, enter, freePort, HubProcess, hook, missing, shot, sideways, until, violations } from './rig';

const why = missing();
const whyNot = why ?? missingNginx();
if (whyNot !== undefined && process.env.CI !== undefined) throw new Error(whyNot);

/** Opens the page, on which a request is held for a second only. */
async function diagnose(page: Page, hub: HubProcess, url: string): Promise<void> {
  await page.route(/wait=25s/, (route) =>
    route.continue({ url: route.request().url().replace('wait=25s', 'wait=1s') }),
  );
  await enter(page, hub, '#/connection', url);
  await results(page);
}

/** What each check has come to. */
async function results(page: Page): Promise<Record<string, string | null>> {
  await page.waitForSelector('[data-hook="summary"][data-busy="false"]');
  const found: Record<string, string | null> = {};
  for (const key of ['websocket', 'sse', 'longpoll', 'poll']) {
    found[key] = await page.getAttribute(`[data-check="${key}"]`, 'data-state');
  }
  return found;
}

const everything = { websocket: 'passed', sse: 'passed', longpoll: 'passed', poll: 'passed' };

async function liveBy(page: Page, transport: string): Promise<void> {
  await page.waitForSelector(`${hook('transport')}[data-transport="${transport}"]`);
}

describe.skipIf(why !== undefined)('the page about the connection', () => {
  let hub: HubProcess;
  let gateway: Gateway;
  let browser: Browser;

  beforeAll(async () => {
    hub = await HubProcess.make();
    await hub.start();
    gateway = await Gateway.start('', hub.port);
  });
  afterAll(async () => {
    gateway.close();
    await hub.remove();
  });
  beforeEach(async () => {
    browser = await Browser.start(gateway);
  });
  afterEach(async () => {
    await browser.stop();
    expect(browser.foreign).toEqual([]);
    expect(browser.complaints).toEqual([]);
  });

  async function clean(page: Page): Promise<void> {
    for (const colorScheme of ['light', 'dark'] as const) {
      await page.emulateMedia({ colorScheme, reducedMotion: 'reduce' });
      expect(await violations(page)).toEqual([]);
    }
    await page.setViewportSize({ width: 360, height: 740 });
    expect(await sideways(page)).toBe(0);
  }

  test('says what passes, what does not, and what to do', async () => {
    const page = await browser.page();
    await diagnose(page, hub, gateway.url);
    expect(await results(page)).toEqual(everything);
    await liveBy(page, 'websocket');
    await shot(page, 'connection-passes');

    gateway.upgrades = 'refused';
    gateway.answers = 'held';
    gateway.cut();
    await page.click(hook('again'));
    expect(await results(page)).toEqual({ ...everything, websocket: 'failed', sse: 'failed' });
    expect(await page.textContent('[data-check="websocket"]')).toContain('Upgrade');
    expect(await page.textContent('[data-check="sse"]')).toContain('buffering');
    await liveBy(page, 'poll');
    expect(await page.textContent(hook('in-use'))).toBe('long polling');
    await clean(page);

    // The page goes on over what is left.
    await hub.addDevice('valve').send({ open: true });
    await page.click('nav a');
    await page.click('[data-device="valve"] a');
    await page.waitForSelector(`[data-metric="open"] ${hook('newest')}`);
  });

  test('says so when nothing passes', async () => {
    gateway.upgrades = 'pass';
    gateway.answers = 'pass';
    const page = await browser.page();
    await diagnose(page, hub, gateway.url);
    await hub.kill();
    await page.click(hook('again'));
    await results(page);
    await until('it says so', async () => (await page.textContent(hook('summary')))?.includes('reached') ?? false);
    await page.waitForSelector(`${hook('banner')}[data-key="reconnecting"]`);
    await clean(page);
  });
});

/** Logs in by a link, from another address of this machine. */
function claim(url: string, link: string, from: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const { origin } = new URL(url);
    const options = {
      method: 'POST',
      localAddress: from,
      headers: { 'Content-Type': 'application/json', Origin: origin },
    };
    const req = request(`${url}api/v1/links/claim`, options, (answer) => {
      answer.resume();
      if (answer.statusCode === 200 || answer.statusCode === 204) resolve();
      else reject(new Error(`the link is answered ${answer.statusCode}`));
    });
    req.on('error', reject);
    req.end(JSON.stringify({ link }));
  });
}

describe.skipIf(whyNot !== undefined)('nginx', () => {
  test('lets everything through with the configuration that the page shows', async () => {
    const hub = await HubProcess.make();
    const port = await freePort();
    const address = `http://127.0.0.1:${port}`;
    await hub.start('--public-url', address, '--trusted-proxy', '127.0.0.1');
    const shown = proxies('127.0.0.1').find((s) => s.key === 'nginx')?.code ?? '';
    const http = shown
      .replace('listen 443 ssl;', `listen 127.0.0.1:${port};`)
      .replace(/ +ssl_certificate.*\n/g, '')
      .replace('127.0.0.1:8080', `127.0.0.1:${hub.port}`);
    expect(http).not.toMatch(/ssl|8080/);
    let nginx = await Nginx.start(port, http);
    const browser = await Browser.start(nginx);
    try {
      const page = await browser.page();
      await diagnose(page, hub, nginx.url);
      expect(await results(page)).toEqual(everything);
      await liveBy(page, 'websocket');

      // The hub learns where people come from.
      const made = hub.command('user', 'link', 'admin', '--login');
      await claim(nginx.url, String(made.link), '127.0.0.9');
      const token = String(hub.command('token', 'create', '--role', 'admin').token);
      const known = await fetch(`${hub.url}api/v1/users/admin/sessions`, {
        headers: { Authorization: `Bearer ${token}` },
      });
      expect(await known.text()).toContain('"source":"127.0.0.9"');

      // Without it there is no WebSocket; the hub itself forbids nginx to hold events back.
      await nginx.stop();
      const bare = `server { listen 127.0.0.1:${port}; location / { proxy_pass http://127.0.0.1:${hub.port}; } }`;
      nginx = await Nginx.start(port, bare);
      await liveBy(page, 'sse');
      await page.click(hook('again'));
      expect(await results(page)).toEqual({ ...everything, websocket: 'failed' });
      expect(browser.complaints).toEqual([]);
      expect(browser.foreign).toEqual([]);
    } finally {
      await browser.stop();
      await nginx.stop();
      await hub.remove();
    }
  });
});
