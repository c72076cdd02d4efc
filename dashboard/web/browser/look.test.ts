// Pictures of every view, for eyes: SHOTS=dir npm run browser -- look

import { test } from 'vitest';
import { makeFleet } from './fixture';
import { Browser, enter, HubProcess, hook, missing, shot, until } from './rig';

test.skipIf(process.env.SHOTS === undefined || missing() !== undefined)(
  'every view can be looked at',
  async () => {
    const hub = await HubProcess.make();
    await hub.start();
    const link = await hub.setupLink();
    const fleet = await makeFleet(hub, Date.now());
    try {
      for (const [name, look] of [
        ['light', { scheme: 'light' }],
        ['dark', { scheme: 'dark' }],
        ['phone', { scheme: 'light', width: 390, height: 844 }],
        ['phone-dark', { scheme: 'dark', width: 390, height: 844 }],
      ] as const) {
        const browser = await Browser.start(hub, look);
        const page = await browser.page();
        if (name === 'light') {
          await page.goto(link);
          await page.waitForSelector('[data-step="choose"]');
          await shot(page, 'choose-light');
        }
        await page.goto(hub.url);
        await page.waitForSelector('[data-step="login"]');
        await shot(page, `login-${name}`);
        await enter(page, hub);
        await page.waitForSelector(hook('row'));
        await until('curves are drawn', async () => (await page.locator(`${hook('spark')} path[d*="L"]`).count()) > 1);
        await shot(page, `list-${name}`);
        await page.goto(`${hub.url}#/devices/greenhouse-1?range=1h`);
        await until(
          'charts are drawn',
          async () => (await page.locator('[data-loading="false"] [data-points]').count()) >= 4,
        );
        const chart = page.locator(hook('chart')).first();
        const box = await chart.boundingBox();
        if (box !== null) await page.mouse.move(box.x + box.width * 0.42, box.y + 90);
        await shot(page, `device-${name}`);
        await page.goto(`${hub.url}#/devices/greenhouse-1?range=24h`);
        await until(
          'a day is drawn',
          async () => (await page.locator('[data-step="300000"][data-loading="false"]').count()) >= 3,
        );
        await page.mouse.move(0, 0);
        await shot(page, `day-${name}`);
        await page.goto(`${hub.url}#/add`);
        await page.fill('#name', `Attic ${name}`);
        await shot(page, `add-${name}`);
        await page.click('button[type="submit"]');
        await page.waitForSelector(hook('token'));
        await shot(page, `added-${name}`);
        await page.goto(`${hub.url}#/connection`);
        await page.waitForSelector(`${hook('check')}[data-check="sse"][data-state="passed"]`);
        await shot(page, `connection-${name}`);
        if (name === 'phone-dark') {
          await page.goto(hub.url);
          await page.waitForSelector(hook('row'));
          await hub.kill();
          await page.waitForSelector(`${hook('banner')}[data-key="reconnecting"]`);
          await shot(page, `banner-${name}`);
        }
        await browser.stop();
      }
    } finally {
      for (const s of fleet.sockets) s.close();
      await hub.remove();
    }
  },
  600_000,
);
