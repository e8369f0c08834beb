// The page of the example `github-live` in Chromium.

import assert from 'node:assert/strict';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { browser, pageOf } from './support/browser.mjs';
import { GithubLive } from './support/github_live.mjs';
import { RedisServer } from './support/redis.mjs';
import { program } from './support/process.mjs';
import { until } from './support/wait.mjs';

/** What the browser itself says of a server that is away. */
const AWAY = /net::ERR_|WebSocket connection to .* failed/;

async function world(t) {
  const redis = await RedisServer.start(t);
  const live = await GithubLive.start(t, redis);
  return { live, client: redis.client(), browser: await browser(t) };
}

async function open(browser, live, options) {
  const page = await pageOf(browser, options);
  await page.goto(live.url);
  await page.waitForSelector('[data-state="live"]');
  return page;
}

/** The ids of the events that the page shows. */
function shown(page) {
  return page.$$eval('#events > li', (rows) => rows.map((row) => row.dataset.eventId));
}

/** The ids of all events in Redis. */
async function stored(client) {
  const ids = [];
  for (const key of await client.keys('events:*')) {
    if ((await client.type(key)) !== 'stream') continue;
    for (const [, fields] of await client.xrange(key, '-', '+')) {
      const metadata = fields[fields.indexOf('metadata') + 1];
      ids.push(JSON.parse(metadata).eventId);
    }
  }
  return ids.sort();
}

/** Waits until the page shows just what is stored, `expected` among it: nothing is missing, and nothing there twice. */
async function assertShowsAll(page, client, expected) {
  let all = [];
  let rows = [];
  await until(
    () => `${rows.length} rows, ${new Set(rows).size} of them different, show ${all.length} events`,
    async () => {
      all = await stored(client);
      rows = (await shown(page)).sort();
      return expected.every((id) => all.includes(id)) && `${rows}` === `${all}`;
    },
  );
}

test('the page shows a delivery that is posted, with what comes of it', async (t) => {
  const { live, client, browser } = await world(t);
  const page = await open(browser, live);
  const id = await live.push(3);
  await page.waitForSelector(`#events > li[data-event-id="${id}"]`);
  await page.waitForSelector('#events > li[data-event-type="repository.analyzed"]');
  await page.getByTestId('repositories').getByText('octo/lab').first().waitFor();
  await assertShowsAll(page, client, [id]);

  // What led to what, as a graph.
  await page.click(`#events > li[data-event-id="${id}"] button`);
  await page.waitForSelector(`#graph [data-event-id="${id}"]`);
  assert.deepEqual(page.wrong, []);

  // Who signs with another secret is not heard.
  const forged = await fetch(`${live.url}webhooks/github`, {
    method: 'POST',
    headers: {
      'x-github-event': 'push',
      'x-github-delivery': '0190b6c0-0000-7000-8000-000000000001',
      'x-hub-signature-256': `sha256=${'0'.repeat(64)}`,
    },
    body: '{}',
  });
  assert.equal(forged.status, 401);
});

test('a page that was offline shows what happened meanwhile, once', async (t) => {
  const { live, client, browser } = await world(t);
  const page = await open(browser, live);
  const ids = [await live.issue(1)];
  await assertShowsAll(page, client, ids);

  await page.context().setOffline(true);
  await page.waitForSelector('[data-state="offline"]');
  for (let number = 2; number < 10; number += 1) ids.push(await live.issue(number));
  await page.context().setOffline(false);
  await page.waitForSelector('[data-state="live"]');
  ids.push(await live.issue(10));
  await assertShowsAll(page, client, ids);
  assert.deepEqual(page.wrong.filter((text) => !AWAY.test(text)), []);
});

test('a page misses nothing, and shows nothing twice, while the server is killed and started', async (t) => {
  const { live, client, browser } = await world(t);
  const page = await open(browser, live);
  const ids = [];
  for (let round = 0; round < 3; round += 1) {
    for (let number = 0; number < 5; number += 1) ids.push(await live.issue(round * 10 + number));
    await live.kill();
    await page.waitForSelector('[data-state="offline"], [data-state="connecting"]');
    await live.again();
    // Before the page has come back.
    for (let number = 5; number < 10; number += 1) ids.push(await live.issue(round * 10 + number));
    await page.waitForSelector('[data-state="live"]');
  }
  ids.push(await live.push(1));
  await assertShowsAll(page, client, ids);
  assert.deepEqual(page.wrong.filter((text) => !AWAY.test(text)), []);
});

test('the page fits a desk and a phone, light and dark', async (t) => {
  const { live, client, browser } = await world(t);
  const ids = [await live.push(3), await live.issue(1, 'It rains'), await live.issue(2, 'It still rains')];
  const folder = program('SCREENSHOTS');
  await mkdir(folder, { recursive: true });
  const sizes = { desktop: { width: 1280, height: 900 }, phone: { width: 390, height: 844 } };
  for (const [name, viewport] of Object.entries(sizes)) {
    for (const colorScheme of ['light', 'dark']) {
      const page = await open(browser, live, { viewport, colorScheme });
      await assertShowsAll(page, client, ids);
      const [width, needed] = await page.evaluate(() => [
        window.innerWidth,
        document.documentElement.scrollWidth,
      ]);
      assert.ok(needed <= width, `${needed} pixels in a window of ${width}`);
      await page.screenshot({
        path: join(folder, `github-live-${name}-${colorScheme}.png`),
        fullPage: true,
      });
      assert.deepEqual(page.wrong, []);
      await page.context().close();
    }
  }
});
