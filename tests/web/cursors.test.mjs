// What is wrong with a cursor, or with a right, is told by a code.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { follow, KINDS, STEPPED } from './support/clients.mjs';
import { Feed } from './support/feed.mjs';
import { RedisServer } from './support/redis.mjs';
import { begun } from './support/sequence.mjs';
import { WebServer } from './support/server.mjs';
import { until } from './support/wait.mjs';

const OTHER = `
  subscription Other($after: Cursor) { other(after: $after) { node { number } cursor } }`;

const WATCHED = `
  subscription Watched($user: String!, $byEvent: Boolean!, $after: Cursor) {
    watched(user: $user, byEvent: $byEvent, after: $after) { node { lane number } cursor }
  }`;

/** A cursor behind a step that was just stored, from this server; nobody looks afterwards. */
async function cursorOf(t, server, feed) {
  const follower = follow(t, 'graphql-ws', server.port);
  await begun([follower], feed);
  follower.stop();
  await nobodyLooks(server);
  return follower.cursor;
}

function nobodyLooks(server) {
  return until('nobody looks', async () => (await server.stats()).clients === 0);
}

/** Subscribes behind `after`, and gives the code with which that ends. */
async function codeOf(t, kind, server, after, query = STEPPED) {
  const follower = follow(t, kind, server.port, { query, after });
  await until(
    () => `the subscription ends: ${follower}`,
    () => follower.errors.length > 0,
  );
  // The server ends it, too.
  await nobodyLooks(server);
  follower.stop();
  assert.equal(follower.received.length, 0);
  return follower.codes[0];
}

for (const kind of KINDS) {
  test(`wrong, forged, expired and other cursors have codes, by ${kind}`, async (t) => {
    const redis = await RedisServer.start(t, { memory: true });
    const server = await WebServer.start(t, redis);
    const stranger = await WebServer.start(t, redis, { secret: 'of somebody else' });
    const client = redis.client();
    const feed = new Feed(client);
    const cursor = await cursorOf(t, server, feed);

    await t.test('wrong', async () => {
      for (const wrong of ['made up', '', `${cursor}A`]) {
        assert.equal(await codeOf(t, kind, server, wrong), 'CURSOR_INVALID', wrong);
      }
    });

    await t.test('forged', async () => {
      // Another position under the same signature, and a whole cursor signed with another secret.
      const bytes = Buffer.from(cursor, 'base64url');
      bytes[bytes.length - 1] = bytes[bytes.length - 1] === 0x39 ? 0x38 : 0x39;
      assert.equal(await codeOf(t, kind, server, bytes.toString('base64url')), 'CURSOR_INVALID');
      const foreign = await cursorOf(t, stranger, feed);
      assert.equal(await codeOf(t, kind, server, foreign), 'CURSOR_INVALID');
    });

    await t.test('of another feed', async () => {
      assert.equal(await codeOf(t, kind, server, cursor, OTHER), 'CURSOR_OF_ANOTHER_FEED');
    });

    await t.test('expired', async () => {
      await feed.add('lane', 0, 100);
      await server.control('trim', { keep: 10 });
      assert.equal(await codeOf(t, kind, server, cursor), 'CURSOR_EXPIRED');
    });

    await t.test('ahead of a server that has lost events', async () => {
      await client.del('events:web');
      assert.equal(await codeOf(t, kind, server, cursor), 'CURSOR_AHEAD');
    });
  });
}

for (const kind of KINDS) {
  test(`a right that is revoked ends the subscription, by ${kind}`, async (t) => {
    const redis = await RedisServer.start(t, { memory: true });
    const server = await WebServer.start(t, redis);
    const feed = new Feed(redis.client());
    const watch = (user, byEvent) =>
      follow(t, kind, server.port, { query: WATCHED, variables: { user, byEvent } });
    const [atOnce, byEvent, other] = [watch('ann', false), watch('ann', true), watch('bob', true)];
    await begun([atOnce, byEvent, other], feed);

    await feed.add('hidden', 0, 1);
    await feed.add('lane', 0, 1);
    await until('all have it', () =>
      [atOnce, byEvent, other].every((one) => one.numbers('lane').length === 1),
    );
    assert.deepEqual(byEvent.numbers('hidden'), []);
    assert.deepEqual(atOnce.numbers('hidden'), [0]);

    await server.control('revoke', { user: 'ann' });
    await until(() => `it ends without an event: ${atOnce}`, () => atOnce.errors.length > 0);
    assert.deepEqual(byEvent.errors, []);
    await feed.add('lane', 1, 2);
    await until(() => `it ends with an event: ${byEvent}`, () => byEvent.errors.length > 0);
    for (const ended of [atOnce, byEvent]) {
      assert.deepEqual(ended.codes, ['REVOKED']);
      assert.deepEqual(ended.numbers('lane'), [0]);
      await until('it is complete', () => ended.completed);
    }
    await until('the other goes on', () => other.numbers('lane').length === 2);

    // And it does not begin again.
    const again = watch('ann', true);
    await until(() => `it is refused: ${again}`, () => again.errors.length > 0);
    assert.deepEqual(again.codes, ['FORBIDDEN']);
  });
}
