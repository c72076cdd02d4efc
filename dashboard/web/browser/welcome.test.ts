// The page at /welcome/ and pages of the hub's owner, with the stock client of Socket.IO, in a real browser against a real hub.

import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Page } from 'playwright-core';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { makeFleet } from './fixture';
import { Gateway } from './gateway';
import { Browser, type Device, enter, HubProcess, hook, missing, shot, sideways, until, violations } from './rig';

const why = missing();
if (why !== undefined && process.env.CI !== undefined) throw new Error(why);

const text = 'web Socket Works';

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

async function greeted(page: Page): Promise<void> {
  await page.waitForSelector(`${hook('link')}[data-phase="live"]`);
  expect(await page.textContent(hook('welcome'))).toBe(text);
}

async function upgraded(page: Page): Promise<void> {
  await page.waitForSelector(`${hook('transport')}[data-transport="websocket"]`);
}

async function write(page: Page, words: string): Promise<void> {
  await page.fill(hook('message'), words);
  await page.press(hook('message'), 'Enter');
}

function line(words: string): string {
  return `${hook('messages')} .entry:has-text("${words}")`;
}

describe.skipIf(why !== undefined)('the page for Socket.IO', () => {
  let hub: HubProcess;
  let browser: Browser;
  let pump: Device;

  beforeAll(async () => {
    hub = await HubProcess.make();
    await hub.start();
    pump = hub.addDevice('pump', 'Pump');
    await pump.send([{ n: 'pressure', u: 'Pa', v: 101_300 }]);
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

  test('two of it greet, upgrade, see each other and readings, and go on after the hub was killed', async () => {
    const one = await browser.page();
    await enter(one, hub);
    await one.goto(`${hub.url}welcome`);
    expect(one.url()).toBe(`${hub.url}welcome/`);
    await greeted(one);
    await upgraded(one);
    expect(await one.textContent(hook('transport'))).toMatch(
      /^In use: WebSocket, \d+ ms after the session was opened\.$/,
    );
    expect(await one.locator(`${hook('steps')} li`).allTextContents()).toEqual([
      expect.stringContaining('Session opened over HTTP long polling'),
      expect.stringContaining('WebSocket answers the probe'),
      expect.stringContaining('Upgraded to WebSocket'),
    ]);
    expect(await one.textContent(hook('whoami'))).toBe('You are admin (administrator).');
    await until('it sees itself', async () => (await one.locator(`${hook('people')} li`).count()) === 1);
    await write(one, 'is somebody there?');
    await one.waitForSelector(`${line('is somebody there?')} >> text=nobody else is here`);

    const two = await browser.context.newPage();
    await two.goto(`${hub.url}welcome/`);
    await greeted(two);
    await upgraded(two);
    const [a, b] = [await one.textContent(hook('id')), await two.textContent(hook('id'))];
    expect(a).not.toBe(b);
    for (const page of [one, two]) {
      for (const id of [a, b]) await page.waitForSelector(`${hook('people')} [data-id="${id}"]:has-text("WebSocket")`);
    }

    await write(one, 'hello <b>two</b>');
    await one.waitForSelector(`${line('hello <b>two</b>')} >> text=delivered to 1 other`);
    await two.waitForSelector(`${line('hello <b>two</b>')}[data-from="${a}"]`);
    expect(await two.locator(`${hook('messages')} b`).count()).toBe(0);
    await write(two, 'hello one');
    await one.waitForSelector(`${line('hello one')}[data-from="${b}"]`);

    const value = `[data-device="pump"][data-metric="pressure"] .number`;
    for (const page of [one, two]) {
      await until('the newest reading is there', async () => (await page.textContent(value)) === '1,013.0\u00a0hPa');
    }
    await pump.send([{ n: 'pressure', u: 'Pa', v: 101_400 }]);
    await pump.send([{ n: 'rain/total', u: 'mm', v: 3 }]);
    for (const page of [one, two]) {
      await until('it changes as it comes', async () => (await page.textContent(value)) === '1,014.0\u00a0hPa');
      await page.waitForSelector('[data-metric="rain/total"]:has-text("Rain total")');
    }
    expect(
      await one
        .locator(`${hook('rows')} tr`)
        .first()
        .getAttribute('data-metric'),
    ).toBe('rain/total');
    await clean(one);

    await hub.kill();
    await one.waitForSelector(`${hook('link')}[data-phase="broken"]`);
    await until('it says how old that is', async () =>
      /What you see is \d+ s old/.test((await one.textContent(hook('notice-detail'))) ?? ''),
    );
    expect(await one.textContent(hook('readings-note'))).toMatch(/as they were/);
    await one.waitForSelector('tr.old[data-device="pump"]');
    await write(one, 'into the void');
    await until(
      'nothing is sent',
      async () => (await one.textContent(hook('message-note')))?.startsWith('Not sent') === true,
    );
    expect(await one.inputValue(hook('message'))).toBe('into the void');
    await clean(one);
    await shot(one, 'welcome-broken');
    await hub.start();
    await pump.send([{ n: 'pressure', u: 'Pa', v: 101_500 }]);
    for (const page of [one, two]) {
      await greeted(page);
      await upgraded(page);
      await page.waitForSelector(`${hook('notice')}:has-text("The hub was restarted")`);
      await until('it goes on', async () => (await page.textContent(value)) === '1,015.0\u00a0hPa');
      await until('both are here', async () => (await page.locator(`${hook('people')} li`).count()) === 2);
    }
    await one.press(hook('message'), 'Enter');
    await two.waitForSelector(line('into the void'));
    await one.click(hook('notice-button'));
    await one.waitForSelector(hook('notice'), { state: 'hidden' });
    await clean(one);
  });

  test('says what to do to whoever is not logged in, and takes a token', async () => {
    const page = await browser.page();
    await page.goto(`${hub.url}welcome/`);
    await page.waitForSelector(hook('door'));
    expect(await page.textContent(hook('door-detail'))).toContain('Log in, or paste a token');
    expect(await page.textContent(hook('spoken'))).toContain('Log in to go on');
    expect(await page.locator(`${hook('rows')} tr`).count()).toBe(0);
    await clean(page);

    const connect = async (token: string) => {
      await page.fill(hook('token'), token);
      await page.press(hook('token'), 'Enter');
    };
    await connect('tha_0123456789abcdefghjkmnpqrstvwxyz');
    await until(
      'it is told',
      async () => (await page.textContent(hook('door-detail')))?.includes('not in force') === true,
    );
    await connect(pump.token);
    await until(
      'it is told',
      async () => (await page.textContent(hook('door-detail')))?.includes('viewer token') === true,
    );
    await clean(page);

    const made = hub.command('token', 'create', '--role', 'viewer');
    await connect(String(made.token));
    await greeted(page);
    await upgraded(page);
    expect(await page.isVisible(hook('door'))).toBe(false);
    expect(await page.textContent(hook('whoami'))).toContain('(viewer)');
    expect(await page.inputValue(hook('token'))).toBe('');
    await page.waitForSelector('[data-device="pump"]');
    await write(page, 'a viewer may speak');
    await page.waitForSelector(`${line('a viewer may speak')} >> text=nobody else is here`);
    await clean(page);
    expect(await page.evaluate(() => [localStorage.length, sessionStorage.length, document.cookie])).toEqual([
      0,
      0,
      '',
    ]);

    // What the token let in is not shown to whoever comes after it.
    await page.click(hook('forget'));
    await page.waitForSelector(hook('door'));
    expect(await page.locator(`${hook('rows')} tr`).count()).toBe(0);
    await connect(String(made.token));
    await greeted(page);
    hub.command('token', 'revoke', String(made.id));
    await page.waitForSelector(hook('door'));
    expect(await page.locator(`${hook('rows')} tr`).count()).toBe(0);

    // Somebody logs in beside it, and comes back.
    const beside = await browser.context.newPage();
    await enter(beside, hub);
    await page.evaluate(() => document.dispatchEvent(new Event('visibilitychange')));
    await greeted(page);
    expect(await page.textContent(hook('whoami'))).toContain('You are admin');
  });

  test('says so when the client or WebSocket does not get through', async () => {
    const page = await browser.page();
    await enter(page, hub);
    await page.routeWebSocket(/\/socket\.io\//, (ws) => ws.close());
    await page.goto(`${hub.url}welcome/`);
    await greeted(page);
    await until(
      'it stays',
      async () => (await page.textContent(hook('transport')))?.startsWith('Stays on HTTP') === true,
    );
    await page.waitForSelector('[data-device="pump"]');
    await clean(page);
    await page.route('**/socket.io.min.js', (route) => route.abort());
    await page.reload();
    await page.waitForSelector(`${hook('notice')}[data-tone="bad"]`);
    await clean(page);
  });

  test('works under a prefix', async () => {
    const proxy = await Gateway.start('/site/hub', hub.port);
    const there = await Browser.start(proxy);
    try {
      const page = await there.page();
      const made = hub.command('user', 'link', 'admin', '--login');
      await page.goto(`${proxy.url}#link=${String(made.link)}`);
      await page.waitForSelector(hook('connection'));
      await page.goto(`${proxy.url}welcome`);
      expect(page.url()).toBe(`${proxy.url}welcome/`);
      await greeted(page);
      await upgraded(page);
      await page.click('[data-device="pump"] a');
      await page.waitForSelector(hook('charts'));
      expect(page.url()).toBe(`${proxy.url}#/devices/pump`);
      expect(there.complaints).toEqual([]);
      expect(there.foreign).toEqual([]);
    } finally {
      await there.stop();
      proxy.close();
    }
  });
});

// In the style of the many tutorials for Socket.IO: markup that is none too tidy, and the welcome as markup too.
const tutorial = `<!doctype html>
<html>
<head><meta charset="UTF-8"><title>Tutorial</title></head>
<body><h1 id="message"></h1></body>
<script src="socket.io/socket.io.js"></script>
<script>
  const socket = io();
  socket.on('welcome', data => { document.getElementById('message').innerHTML = data; });
</script>
</html>
`;

/** The first whole page in the text of an article. */
function pageIn(article: string): string {
  const found = /<!doctype html>[\s\S]*?<\/html>/i.exec(article);
  if (found === null) throw new Error('the article has no page');
  return `${found[0]}\n`;
}

describe.skipIf(why !== undefined)('a page of the owner', () => {
  async function shows(page: string): Promise<void> {
    const dir = mkdtempSync(join(tmpdir(), 'hub-public-'));
    mkdirSync(join(dir, 'public'));
    writeFileSync(join(dir, 'public', 'index.html'), page);
    const hub = await HubProcess.make('--public', join(dir, 'public'));
    const browser = await Browser.start(hub);
    try {
      await hub.start();
      const tab = await browser.page();
      await enter(tab, hub);
      const said: string[] = [];
      tab.on('console', (m) => said.push(m.text()));
      await tab.goto(`${hub.url}public/`);
      await until('the welcome is shown', async () => (await tab.textContent('#message')) === text);
      await shot(tab, 'public');
      await hub.kill();
      await hub.start();
      await tab.evaluate(() => {
        const message = document.getElementById('message');
        if (message !== null) message.textContent = '';
      });
      await until('it comes again', async () => (await tab.textContent('#message')) === text);
      expect(said.filter((s) => /Content Security|Refused/.test(s))).toEqual([]);
      expect(browser.complaints).toEqual([]);
      expect(browser.foreign).toEqual([]);
    } finally {
      await browser.stop();
      await hub.remove();
      rmSync(dir, { recursive: true });
    }
  }

  test('made after a tutorial shows the welcome', () => shows(tutorial));

  // HUB_ARTICLE=file npm run browser -- welcome
  test.skipIf(process.env.HUB_ARTICLE === undefined)('taken from an article unchanged shows the welcome', () =>
    shows(pageIn(readFileSync(process.env.HUB_ARTICLE ?? '', 'utf8'))),
  );
});

// SHOTS=dir npm run browser -- welcome
test.skipIf(process.env.SHOTS === undefined || why !== undefined)(
  'it can be looked at',
  async () => {
    const hub = await HubProcess.make();
    await hub.start();
    const { sockets } = await makeFleet(hub, Date.now());
    try {
      for (const [name, look] of [
        ['light', { scheme: 'light' }],
        ['dark', { scheme: 'dark' }],
        ['phone', { scheme: 'light', width: 390, height: 844 }],
        ['phone-dark', { scheme: 'dark', width: 390, height: 844 }],
      ] as const) {
        const browser = await Browser.start(hub, look);
        const page = await browser.page();
        await page.goto(`${hub.url}welcome/`);
        await page.waitForSelector(hook('door'));
        await shot(page, `welcome-door-${name}`);
        await enter(page, hub);
        await page.goto(`${hub.url}welcome/`);
        await upgraded(page);
        const other = await browser.context.newPage();
        await other.goto(`${hub.url}welcome/`);
        await upgraded(other);
        await write(page, 'Is the greenhouse supposed to be that warm?');
        await other.waitForSelector(line('greenhouse'));
        await write(other, 'Yes: the window is closed until the wind drops, and the heating is off anyway.');
        await page.waitForSelector(line('window'));
        await until('two are here', async () => (await page.locator(`${hook('people')} li`).count()) === 2);
        await shot(page, `welcome-${name}`);
        if (name.startsWith('phone')) {
          await page.locator(hook('readings')).scrollIntoViewIfNeeded();
          await shot(page, `welcome-${name}-readings`);
        }
        await browser.stop();
      }
    } finally {
      for (const s of sockets) s.close();
      await hub.remove();
    }
  },
  600_000,
);
