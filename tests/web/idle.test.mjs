// Clients that have nothing to do stay connected.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createClient as createSseClient } from 'graphql-sse';
import { createClient as createWsClient } from 'graphql-ws';
import WebSocket from 'ws';
import { atEnd } from './support/cleanup.mjs';
import { Follower, STEPPED } from './support/clients.mjs';
import { Feed } from './support/feed.mjs';
import { Proxy } from './support/proxy.mjs';
import { RedisServer } from './support/redis.mjs';
import { assertWhole, begun } from './support/sequence.mjs';
import { WebServer } from './support/server.mjs';
import { pause } from './support/wait.mjs';

const IDLE = 120_000;

test('default clients stay connected while nothing happens for two minutes', async (t) => {
  const redis = await RedisServer.start(t, { memory: true });
  const server = await WebServer.start(t, redis);
  const proxy = await Proxy.start(t, server);
  const feed = new Feed(redis.client());
  const clients = [
    createWsClient({ url: `ws://127.0.0.1:${proxy.port}/graphql/ws`, webSocketImpl: WebSocket }),
    createSseClient({ url: `http://127.0.0.1:${proxy.port}/graphql/stream` }),
  ];
  const followers = clients.map((client) => {
    const follower = new Follower();
    atEnd(t, client.subscribe({ query: STEPPED }, follower.sink()));
    return follower;
  });
  await begun(followers, feed);

  // What is tested is that time passes.
  await pause(IDLE);
  assert.equal((await server.stats()).clients, 2);
  await feed.add('lane', 0, 1);
  await assertWhole(followers, 'lane', 1);
  assert.equal(proxy.accepted, 2, 'no client had to connect again');
});
