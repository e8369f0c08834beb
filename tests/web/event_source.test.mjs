// The EventSource of a browser, which resumes by `Last-Event-ID` alone.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { browser, pageOf } from './support/browser.mjs';
import { STEPPED } from './support/clients.mjs';
import { Feed } from './support/feed.mjs';
import { Proxy } from './support/proxy.mjs';
import { RedisServer } from './support/redis.mjs';
import { WebServer } from './support/server.mjs';
import { pause, until } from './support/wait.mjs';

const EVENTS = 2_000;

test('the EventSource of a browser whose connection is cut misses nothing', async (t) => {
  const redis = await RedisServer.start(t, { memory: true });
  const server = await WebServer.start(t, redis);
  const proxy = await Proxy.start(t, server);
  const feed = new Feed(redis.client());
  const page = await pageOf(await browser(t));
  await page.goto(`http://127.0.0.1:${proxy.port}/test/page`);
  await page.evaluate((query) => {
    window.received = [];
    window.opened = 0;
    const source = new EventSource(`/graphql/stream?query=${encodeURIComponent(query)}`);
    source.onopen = () => {
      window.opened += 1;
    };
    source.addEventListener('next', ({ data }) => {
      window.received.push(JSON.parse(data).data.stepped.node);
    });
  }, STEPPED);
  const count = () => page.evaluate(() => window.received.length);
  let probe = 0;
  await until('it begins', async () => {
    await feed.add('probe', probe, (probe += 1));
    return (await count()) > 0;
  });

  const adding = (async () => {
    for (let from = 0; from < EVENTS; from += 50) {
      await feed.add('lane', from, from + 50);
      await pause(10);
    }
  })();
  // A browser waits for three seconds before it comes again.
  await until('some came', async () => (await count()) > 300);
  proxy.cut();
  await until('it comes again', () => page.evaluate(() => window.opened === 2));
  await adding;
  await until('all came', async () => (await count()) >= EVENTS);
  const nodes = await page.evaluate(() => window.received);
  const numbers = nodes.filter(({ lane }) => lane === 'lane').map(({ number }) => number);
  assert.deepEqual(numbers, Array.from({ length: EVENTS }, (_, number) => number));
});
