// Nested fields of events are as new as the event, whatever was being loaded when it came.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { follow, KINDS } from './support/clients.mjs';
import { RedisServer } from './support/redis.mjs';
import { WebServer } from './support/server.mjs';
import { until } from './support/wait.mjs';

const STARRED = `
  subscription Starred($after: Cursor) {
    starred(after: $after) { node { repository by stars } cursor }
  }`;
const STARS = 'query Stars($repository: String!) { stars(repository: $repository) }';
const STAR = `
  mutation Star($repository: String!, $by: String!) { star(repository: $repository, by: $by) }`;

const repository = 'octo/hello';

for (const kind of KINDS) {
  test(`a nested field is fresh while an older load is in flight, by ${kind}`, async (t) => {
    const redis = await RedisServer.start(t, { memory: true });
    const first = await WebServer.start(t, redis, { cache: true });
    const second = await WebServer.start(t, redis, { cache: true });
    const instances = [first, second];
    const stars = async (server) => (await server.execute(STARS, { repository })).stars;
    const star = async (server, by) => (await server.execute(STAR, { repository, by })).star;
    const followers = instances.map(({ port }) => follow(t, kind, port, { query: STARRED }));
    for (const server of instances) {
      // One that looks is the cache.
      await until('the subscription begins', async () => (await server.stats()).clients === 2);
    }
    // Its event may come before the subscription has begun; those below may not.
    await until('it begins', async () => {
      await star(first, 'probe');
      return followers.every(({ received }) => received.length > 0);
    });
    // Both have it in their caches now.
    const before = await stars(first);
    assert.equal(await stars(second), before);

    // The event empties the caches, and a load of each reads what there is then, and is held.
    await star(first, 'ann');
    await until('all have it', () => followers.every(({ received }) => received.at(-1).node.by === 'ann'));
    const held = [];
    for (const server of instances) {
      await server.control('forget');
      await server.control('hold');
      held.push(stars(server));
      await until('a load is held', async () => (await server.stats()).held === 1);
    }

    assert.equal(await star(second, 'bob'), before + 2);
    await until(
      () => `all have it: ${followers}`,
      () => followers.every(({ received }) => received.at(-1).node.by === 'bob'),
    );
    for (const { received } of followers) assert.equal(received.at(-1).node.stars, before + 2);
    for (const server of instances) assert.equal((await server.stats()).held, 1);

    // Who asked before may have what was true then; it is not kept.
    for (const server of instances) await server.control('release');
    assert.deepEqual(await Promise.all(held), [before + 1, before + 1]);
    for (const server of instances) assert.equal(await stars(server), before + 2);
  });
}
