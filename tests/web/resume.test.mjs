// Nothing is missing and nothing comes twice, whatever goes away between Redis and the client.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { follow, KINDS } from './support/clients.mjs';
import { Feed } from './support/feed.mjs';
import { Proxy } from './support/proxy.mjs';
import { RedisServer } from './support/redis.mjs';
import { assertWhole, begun } from './support/sequence.mjs';
import { WebServer } from './support/server.mjs';
import { pause, until } from './support/wait.mjs';

const EVENTS = 10_000;

/** A server, a proxy before it, and a client of each kind that follows all steps. */
async function world(t) {
  const redis = await RedisServer.start(t);
  const server = await WebServer.start(t, redis);
  const proxy = await Proxy.start(t, server);
  const feed = new Feed(redis.client());
  const followers = KINDS.map((kind) => follow(t, kind, proxy.port));
  await begun(followers, feed);
  return { redis, server, proxy, feed, followers };
}

/** Adds all events, while `fault` happens each time that the slowest client has come to one of `times`. */
async function publishThrough({ feed, followers }, times, fault) {
  const adding = (async () => {
    for (let from = 0; from < EVENTS; from += 250) {
      await feed.add('lane', from, from + 250);
      await pause(5);
    }
  })();
  for (const time of times) {
    await until(
      () => `the clients come to ${time}: ${followers}`,
      () => followers.every((one) => one.received.length > time),
    );
    await fault();
  }
  await adding;
  await assertWhole(followers, 'lane', EVENTS);
  // And then it goes on as before.
  await feed.add('lane', EVENTS, EVENTS + 1);
  await assertWhole(followers, 'lane', EVENTS + 1);
}

test('clients whose sockets are cut miss nothing', async (t) => {
  const all = await world(t);
  const times = [500, 1_500, 2_500, 3_500, 4_500, 5_500, 6_500, 7_500, 8_500];
  await publishThrough(all, times, () => all.proxy.cut());
  assert.ok(all.proxy.accepted >= KINDS.length * 2, `${all.proxy.accepted} connections`);
});

test('clients of a server that is killed and started again miss nothing', async (t) => {
  const all = await world(t);
  await publishThrough(all, [2_000, 6_000], () => all.server.restart());
});

test('clients miss nothing while Redis is killed and started again', async (t) => {
  const all = await world(t);
  const { accepted } = all.proxy;
  await publishThrough(all, [2_000, 6_000], () => all.redis.restart());
  assert.equal(all.proxy.accepted, accepted, 'no client was cut off');
});

test('clients that are moved to a second instance miss nothing', async (t) => {
  const all = await world(t);
  const second = await WebServer.start(t, all.redis);
  const servers = [all.server, second];
  await publishThrough(all, [2_000, 6_000], async () => {
    const [from, to] = servers;
    all.proxy.target = to;
    // It sends its clients away.
    await from.restart('SIGTERM');
    servers.reverse();
  });
});
