// The page in a real browser, against a real hub.

import { execFile, spawn } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Page } from 'playwright-core';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { makeFleet } from './fixture';
import { Gateway } from './gateway';
import { Browser, type Device, enter, HubProcess, hook, missing, shot, sideways, until, violations } from './rig';
import type { SocketDevice } from './socket';

const why = missing();
if (why !== undefined && process.env.CI !== undefined) throw new Error(why);

const root = join(import.meta.dirname, '../../..');

/** The values in the table behind a chart, oldest first, as numbers. */
async function tableValues(page: Page, metric: string): Promise<number[]> {
  const card = page.locator(`[data-metric="${metric}"]`);
  if ((await card.locator(hook('data-table')).count()) === 0) await card.locator('summary').click();
  await card.locator(hook('data-table')).waitFor();
  const cells = await card.locator('tbody tr:not(.hole) td:nth-child(2)').allTextContents();
  return cells.map((c) => Number.parseFloat(c.replace(/,/g, ''))).reverse();
}

describe.skipIf(why !== undefined)('the page', () => {
  let hub: HubProcess;
  let browser: Browser;

  beforeAll(async () => {
    hub = await HubProcess.make();
    await hub.start();
  });
  afterAll(() => hub.remove());

  beforeEach(async () => {
    browser = await Browser.start(hub);
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
    const size = page.viewportSize();
    await page.setViewportSize({ width: 360, height: 740 });
    expect(await sideways(page)).toBe(0);
    if (size !== null) await page.setViewportSize(size);
  }

  test('a one-time link leaves the address, sets a password and counts once', async () => {
    const page = await browser.page();
    const link = await hub.setupLink();
    await page.goto(link);
    await page.waitForSelector('[data-step="choose"]');
    expect(page.url()).toBe(hub.url);
    await clean(page);
    await page.fill('#password', 'short');
    await page.click('button[type="submit"]');
    await page.waitForSelector('#login-error');
    await page.fill('#password', 'a longer password');
    await page.keyboard.press('Enter');
    await page.waitForSelector(`${hook('connection')}[data-phase="live"]`);
    await until('the hub greets', async () => (await page.textContent(hook('welcome'))) === 'web Socket Works');
    await page.waitForSelector(hook('empty'));
    await clean(page);

    await page.click(hook('logout'));
    await page.waitForSelector('[data-step="login"]');
    await clean(page);
    await page.fill('#name', 'admin');
    await page.fill('#password', 'not the password');
    await page.keyboard.press('Enter');
    await page.waitForSelector('#login-error');
    await page.fill('#password', 'a longer password');
    await page.keyboard.press('Enter');
    await page.waitForSelector(hook('connection'));

    await page.goto('about:blank');
    await page.goto(link);
    await page.waitForSelector('[data-step="void"]');
    expect(page.url()).toBe(hub.url);
    await clean(page);
  });

  test('a device is added, and its first reading appears by itself', async () => {
    const page = await browser.page();
    await enter(page, hub);
    await page.click(`${hook('empty')} a`);
    await page.fill('#name', 'Front porch');
    expect(await page.inputValue('#id')).toBe('front-porch');
    await clean(page);
    await page.click('button[type="submit"]');
    await page.waitForSelector(hook('token'));
    await clean(page);
    const command = await page.textContent(hook('snippet'));
    expect(command).toContain(`${hub.url}api/v1/devices/front-porch/readings`);
    await new Promise<void>((resolve, reject) =>
      execFile('sh', ['-c', command ?? ''], (err) => (err === null ? resolve() : reject(err))),
    );
    await page.waitForSelector(`${hook('waiting')}[data-arrived="true"]`);
    expect(await page.textContent(hook('first-value'))).toBe('21.4');
    await clean(page);

    // The last tab is for a Raspberry Pi: here a simulated board stands in for its hardware.
    await page.keyboard.press('Tab');
    await page.focus('#tab-curl');
    await page.keyboard.press('ArrowLeft');
    const script = ((await page.textContent(hook('snippet'))) ?? '').replace('every: 10s', 'every: 1s');
    const dir = mkdtempSync(join(tmpdir(), 'hub-agent-'));
    const socket = join(dir, 'board.sock');
    const env = { ...process.env, PATH: `${join(root, 'bin')}:${process.env.PATH}`, PERIPH_SIM: socket };
    const board = spawn(join(root, 'bin/firmware-sim'), ['board', '--socket', socket], { stdio: 'ignore' });
    await until('the board is there', async () => existsSync(socket));
    const agent = spawn('sh', ['-c', script.replace(/\ndevice run/, '\nexec device run')], {
      cwd: dir,
      env,
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    let said = '';
    agent.stderr.on('data', (chunk) => {
      said += String(chunk);
    });
    try {
      await page.click(hook('open-device'));
      await page.waitForSelector(`[data-metric="temperature"] ${hook('newest')}`);
      await until('readings of the agent arrive', async () => {
        if (agent.exitCode !== null) throw new Error(`the agent ended: ${said}`);
        // It sends in degrees, and the reading by hand had no unit: another version of the metric.
        return /°C/.test((await page.textContent('[data-metric="temperature"]')) ?? '');
      });
    } finally {
      for (const child of [agent, board]) {
        if (child.exitCode !== null) continue;
        const ended = new Promise((resolve) => child.once('exit', resolve));
        child.kill();
        await ended;
      }
      rmSync(dir, { recursive: true });
    }
  }, 60_000);

  test('keyboard alone leads through the list', async () => {
    const page = await browser.page();
    for (const id of ['a1', 'a2', 'a3']) await hub.addDevice(id).send({ x: 1 });
    await enter(page, hub);
    await page.waitForSelector('[data-device="a3"]');
    await page.selectOption(hook('order'), 'name');
    await page.locator('[data-device="a1"] a').focus();
    await page.keyboard.press('ArrowDown');
    await until(
      'the focus moves',
      async () => (await page.evaluate(() => document.activeElement?.textContent)) === 'a2',
    );
    await page.keyboard.press('Enter');
    await until(
      'the heading is read',
      async () => (await page.evaluate(() => document.activeElement?.textContent)) === 'a2',
    );
  });
});

describe.skipIf(why !== undefined)('a fleet', () => {
  let hub: HubProcess;
  let browser: Browser;
  let page: Page;
  let sockets: SocketDevice[];

  beforeAll(async () => {
    hub = await HubProcess.make();
    await hub.start();
    sockets = (await makeFleet(hub, Date.now())).sockets;
  });
  afterAll(async () => {
    for (const s of sockets) s.close();
    await hub.remove();
  });
  beforeEach(async () => {
    browser = await Browser.start(hub);
    page = await browser.page();
    await enter(page, hub);
  });
  afterEach(async () => {
    await browser.stop();
    expect(browser.foreign).toEqual([]);
    expect(browser.complaints).toEqual([]);
  });

  async function clean(): Promise<void> {
    for (const colorScheme of ['light', 'dark'] as const) {
      await page.emulateMedia({ colorScheme, reducedMotion: 'reduce' });
      expect(await violations(page)).toEqual([]);
    }
    const size = page.viewportSize();
    await page.setViewportSize({ width: 360, height: 740 });
    expect(await sideways(page)).toBe(0);
    if (size !== null) await page.setViewportSize(size);
  }

  test('the list shows state in words, values with units, and an age that moves', async () => {
    await page.waitForSelector('[data-device="greenhouse-1"]');
    const row = page.locator('[data-device="greenhouse-1"]');
    expect(await row.textContent()).toMatch(
      /Greenhouse, north side.*greenhouse-1.*(Live|Stale).*Temperature.*°C.*Pressure.*hPa/,
    );
    expect(await page.locator('[data-device="garage"]').textContent()).toContain('Never seen');
    await until('a curve is drawn', async () => (await row.locator('path[d*="L"]').count()) === 1);
    const first = await row.locator(hook('age')).textContent();
    await until('the age moves', async () => (await row.locator(hook('age')).textContent()) !== first);
    await clean();
    await page.fill(hook('filter'), 'METER');
    await until('one is left', async () => (await page.locator(hook('row')).count()) === 1);
    await page.fill(hook('filter'), 'no such thing');
    await page.waitForSelector(hook('none'));
    await clean();
  });

  test('history is drawn with its gaps and their cause, and stands in the address', async () => {
    await page.goto(`${hub.url}#/devices/greenhouse-1?range=1h`);
    const card = page.locator('[data-metric="temperature"]');
    await until(
      'the gaps are drawn',
      async () => Number(await card.locator(hook('chart')).getAttribute('data-holes')) >= 2,
    );
    const box = await card.locator(hook('chart')).boundingBox();
    if (box === null) throw new Error('no chart');
    // Where the device has lost readings: about 35 of 60 minutes ago, behind the scale.
    const found = new Set<string>();
    for (let x = 0.3; x < 0.95 && found.size < 2; x += 0.02) {
      await page.mouse.move(box.x + box.width * x, box.y + 80);
      const text = (await card.locator(hook('readout')).textContent()) ?? '';
      if (text.includes('its store was full (216 readings)')) found.add('recorded');
      if (text.includes('No readings for')) found.add('silence');
    }
    expect([...found].sort()).toEqual(['recorded', 'silence']);
    // The cursors of all charts move together.
    expect(await page.locator(`[data-metric="humidity"] ${hook('readout')}`).textContent()).not.toContain('avg');
    await card.locator('summary').click();
    await card.locator(hook('data-table')).waitFor();
    await clean();

    await page.click(hook('range-24h'));
    await until('the range is in the address', async () => page.url().endsWith('range=24h'));
    await page.waitForSelector('[data-metric="temperature"][data-step="300000"][data-loading="false"]');
    expect(Number(await card.locator(hook('chart')).getAttribute('data-points'))).toBeGreaterThan(270);
    await clean();
    await page.click(hook('earlier'));
    await page.waitForSelector(hook('back-to-live'));
    expect(page.url()).toMatch(/from=\d+&to=\d+$/);
    const shown = await page.textContent(hook('window'));
    await page.reload();
    await page.waitForSelector('[data-metric="temperature"][data-loading="false"]');
    expect(await page.textContent(hook('window'))).toBe(shown);
    const download = page.waitForEvent('download');
    await page.click(hook('csv'));
    expect((await download).suggestedFilename()).toBe('greenhouse-1.csv');
    await page.click(hook('back-to-live'));
    await until('it is live again', async () => page.url().endsWith('range=24h'));
  });

  test('a device that is not there is said to be', async () => {
    await page.goto(`${hub.url}#/devices/nowhere`);
    await page.waitForSelector(hook('error'));
    await clean();
  });

  test('a drag over a chart chooses a range', async () => {
    await page.goto(`${hub.url}#/devices/greenhouse-1?range=1h`);
    await page.waitForSelector('[data-metric="temperature"][data-loading="false"]');
    const box = await page.locator(`[data-metric="temperature"] ${hook('chart')}`).boundingBox();
    if (box === null) throw new Error('no chart');
    await page.mouse.move(box.x + box.width * 0.5, box.y + 60);
    await page.mouse.down();
    await page.mouse.move(box.x + box.width * 0.6, box.y + 60, { steps: 4 });
    await page.mouse.move(box.x + box.width * 0.8, box.y + 60, { steps: 4 });
    await page.mouse.up();
    await page.waitForSelector(hook('back-to-live'));
    expect(page.url()).toMatch(/from=\d+&to=\d+$/);
  });
});

describe.skipIf(why !== undefined)('a hub that dies', () => {
  let hub: HubProcess;
  let browser: Browser;

  beforeAll(async () => {
    hub = await HubProcess.make();
    await hub.start();
    browser = await Browser.start(hub);
  });
  afterAll(async () => {
    await browser.stop();
    await hub.remove();
  });

  test('is waited for, and no point is missing afterwards', async () => {
    const page = await browser.page();
    const pump: Device = hub.addDevice('pump', 'Pump');
    const sent: number[] = [];
    const start = Date.now() - 100_000;
    let t = start;
    const send = async (n: number) => {
      const points: (readonly [number, number])[] = [];
      for (let i = 0; i < n; i++) {
        t += 1000;
        points.push([t, sent.length + 1]);
        sent.push(sent.length + 1);
      }
      await pump.series('count', '', points);
    };
    await send(30);
    await enter(page, hub, '#/devices/pump?range=15m');
    await page.waitForSelector('[data-hook="charts"][data-live="true"]');
    await until('the history is shown', async () => (await tableValues(page, 'count')).length === 30);
    for (let i = 0; i < 10; i++) await send(1);
    await until('what came live is shown', async () => (await tableValues(page, 'count')).length === 40);

    await hub.kill();
    await page.waitForSelector(`${hook('banner')}[data-key="reconnecting"]`);
    expect(await page.textContent(hook('banner-detail'))).toMatch(/What you see is \d+ s old/);
    expect(await violations(page)).toEqual([]);
    await shot(page, 'reconnecting');
    await hub.start();
    // Comes while the page is still away.
    await send(20);
    await page.waitForSelector(`${hook('banner')}[data-key="restarted"]`);
    await page.waitForSelector(`${hook('connection')}[data-phase="live"]`);
    await send(20);
    await until('everything is shown', async () => (await tableValues(page, 'count')).length === sent.length);
    expect(await tableValues(page, 'count')).toEqual(sent);

    // Once more, with the reading that came last before the end, and late ones after it.
    await send(1);
    await hub.kill();
    await hub.start();
    t = start - 60_000;
    await send(20);
    await until('the late ones are shown too', async () => (await tableValues(page, 'count')).length === sent.length);
    expect([...(await tableValues(page, 'count'))].sort((a, b) => a - b)).toEqual(sent);
    await page.reload();
    await until(
      'it is all there after a reload too',
      async () => (await tableValues(page, 'count')).length === sent.length,
    );

    // A hub that comes back with another page hands that page on by itself.
    await page.waitForSelector('[data-hook="charts"][data-live="true"]');
    await page.route(hub.url, (route) =>
      route.fulfill({ contentType: 'text/html', body: '<title>A newer page</title>' }),
    );
    await hub.kill();
    await hub.start();
    await until('the newer page is loaded', async () => (await page.title()) === 'A newer page');
    expect(browser.foreign).toEqual([]);
    expect(browser.complaints).toEqual([]);
  });
});

describe.skipIf(why !== undefined)('a proxy with a prefix', () => {
  test('leads to the same page', async () => {
    const hub = await HubProcess.make();
    await hub.start();
    await hub.addDevice('pump').send({ pressure: 7 });
    const proxy = await Gateway.start('/site/hub', hub.port);
    const browser = await Browser.start(proxy);
    try {
      const page = await browser.page();
      const link = new URL(await hub.setupLink());
      await page.goto(`${proxy.url}${link.hash}`);
      await page.waitForSelector('[data-step="choose"]');
      expect(page.url()).toBe(proxy.url);
      await page.fill('#password', 'a longer password');
      await page.keyboard.press('Enter');
      await page.waitForSelector(`${hook('connection')}[data-phase="live"]`);
      await page.click('[data-device="pump"] a');
      await page.waitForSelector(`[data-metric="pressure"] ${hook('newest')}`);
      expect(await page.getAttribute(hook('csv'), 'href')).toContain('/site/hub/api/v1/devices/pump/readings');
      expect(browser.complaints).toEqual([]);
      expect(browser.foreign).toEqual([]);
    } finally {
      await browser.stop();
      proxy.close();
      await hub.remove();
    }
  });
});

describe.skipIf(why !== undefined)('ten thousand devices', () => {
  test('are a list like any other', async () => {
    const hub = await HubProcess.make();
    await hub.start();
    const dir = mkdtempSync(join(tmpdir(), 'hub-fleet-'));
    writeFileSync(join(dir, 'fleet.txt'), Array.from({ length: 10_000 }, (_, i) => `sensor-${i}`).join('\n'));
    await new Promise<void>((resolve, reject) =>
      execFile(
        process.env.HUB_BINARY ?? join(root, 'bin/hub'),
        ['device', 'add', '--from', join(dir, 'fleet.txt'), '--data', hub.dir, '--output', 'json'],
        { maxBuffer: 64 << 20 },
        (err) => (err === null ? resolve() : reject(err)),
      ),
    );
    const browser = await Browser.start(hub);
    try {
      const page = await browser.page();
      await enter(page, hub);
      await until('all are counted', async () => (await page.textContent(hook('count'))) === '10000 of 10000 devices');
      expect(await page.locator(hook('row')).count()).toBeLessThan(40);
      await page.evaluate(() => window.scrollTo(0, document.documentElement.scrollHeight));
      await page.waitForSelector('[data-device="sensor-9999"]');
      await page.evaluate(() => window.scrollTo(0, 0));
      await page.locator('[data-device="sensor-0"] a').focus();
      await page.keyboard.press('End');
      await until(
        'the last has the focus',
        async () => (await page.evaluate(() => document.activeElement?.textContent)) === 'sensor-9999',
      );
      await page.fill(hook('filter'), 'sensor-777');
      await until('some are left', async () => (await page.textContent(hook('count'))) === '11 of 10000 devices');
      expect(browser.complaints).toEqual([]);
    } finally {
      await browser.stop();
      await hub.remove();
      rmSync(dir, { recursive: true });
    }
  }, 600_000); // most of it is adding them
});
