// One reader in Redis, whatever the number of clients.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { follow, KINDS } from './support/clients.mjs';
import { Feed } from './support/feed.mjs';
import { readersIn, RedisServer } from './support/redis.mjs';
import { assertWhole, begun } from './support/sequence.mjs';
import { WebServer } from './support/server.mjs';
import { until } from './support/wait.mjs';

const CLIENTS = 1_000;
const EVENTS = 20;

for (const share of [false, true]) {
  const executed = share ? 'executed once for all' : 'each executed by itself';
  test(`1,000 clients of three kinds on one field have one reader in Redis, ${executed}`, (t) =>
    fanOut(t, share ? { share } : {}),
  );
}

async function fanOut(t, options) {
  const redis = await RedisServer.start(t, { memory: true });
  const server = await WebServer.start(t, redis, options);
  const client = redis.client();
  const connections = async () => (await client.client('LIST')).trim().split('\n').length;
  assert.equal(await readersIn(client), 0);
  const before = await connections();

  const followers = Array.from({ length: CLIENTS }, (_, number) =>
    follow(t, KINDS[number % KINDS.length], server.port),
  );
  if (!options.share) {
    await until('all look', async () => (await server.stats()).clients === CLIENTS);
  }
  const feed = new Feed(client);
  await begun(followers, feed);

  const { clients, readers, shared } = await server.stats();
  assert.equal(readers, 1);
  // Of those that ask in the same words, one looks for all.
  if (options.share) assert.ok(clients === shared && shared <= KINDS.length, `${clients} look`);
  assert.equal(await readersIn(client), 1);
  assert.ok((await connections()) <= before + 1, 'there is no connection but the reader');

  await feed.add('lane', 0, EVENTS);
  await assertWhole(followers, 'lane', EVENTS);

  for (const follower of followers) follower.stop();
  await until('the reader ends with the last client', async () => {
    const { clients, readers } = await server.stats();
    return clients === 0 && readers === 0 && (await readersIn(client)) === 0;
  });
}
