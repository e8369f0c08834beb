// A service in Node as the design has it, with ioredis and graphql-redis-subscriptions: it hears our events, by
// Pub/Sub and in streams, and ours hears of its own.

import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { test } from 'node:test';
import { RedisPubSub } from 'graphql-redis-subscriptions';
import { follow, KINDS } from './support/clients.mjs';
import { RedisServer } from './support/redis.mjs';
import { WebServer } from './support/server.mjs';
import { until } from './support/wait.mjs';

const STARRED = `
  subscription Starred($after: Cursor) {
    starred(after: $after) {
      node { repository by }
      eventId eventType timestamp correlationId causationId cursor
    }
  }`;
const CHUNKS = 'subscription Chunks { chunks { node { text } missed correlationId } }';
const STAR = `
  mutation Star($repository: String!, $by: String!) { star(repository: $repository, by: $by) }`;
const SAY = 'mutation Say($text: String!) { say(text: $text) }';

const repository = 'octo/hello';

/** Collects what an async iterator gives. */
function collect(iterator) {
  const collected = [];
  (async () => {
    for await (const message of iterator) collected.push(message);
  })();
  return collected;
}

/** The fields of an entry as an object. */
function fields(flat) {
  const pairs = [];
  for (let at = 0; at < flat.length; at += 2) pairs.push([flat[at], flat[at + 1]]);
  return Object.fromEntries(pairs);
}

test('a service in Node hears our events by Pub/Sub and reads them in streams', async (t) => {
  const redis = await RedisServer.start(t, { memory: true });
  const server = await WebServer.start(t, redis);
  const pubsub = new RedisPubSub({ publisher: redis.client(), subscriber: redis.client() });
  const starred = collect(pubsub.asyncIterableIterator('repository.*', { pattern: true }));
  const chunks = collect(pubsub.asyncIterableIterator('ai.response.chunk'));
  const client = redis.client();
  await until('it listens', async () => {
    const listening = await client.pubsub('NUMSUB', 'ai.response.chunk');
    return listening[1] === 1 && (await client.pubsub('NUMPAT')) === 1;
  });

  assert.deepEqual(await server.execute(STAR, { repository, by: 'ann' }), { star: 1 });
  await server.execute(SAY, { text: 'hel' });
  await server.execute(SAY, { text: 'lo' });
  await until('all came', () => starred.length === 1 && chunks.length === 2);

  // A stored event is sent as it is stored.
  const [sent] = starred;
  assert.equal(sent.type, 'repository.starred');
  assert.deepEqual(sent.payload, { repository, by: 'ann' });
  assert.ok(Date.parse(sent.timestamp));
  assert.deepEqual(chunks.map(({ payload }) => payload.text), ['hel', 'lo']);
  assert.equal(chunks[0].type, 'ai.response.chunk');

  const [[feed, [[, flat]]]] = await client.xread('STREAMS', 'events:repository', '0');
  assert.equal(feed, 'events:repository');
  const entry = fields(flat);
  assert.deepEqual(Object.keys(entry), ['type', 'payload', 'aggregate', 'metadata']);
  assert.equal(entry.type, 'repository.starred');
  assert.deepEqual(JSON.parse(entry.payload), sent.payload);
  assert.deepEqual(JSON.parse(entry.aggregate), { type: 'repository', id: repository, version: 1 });
  const metadata = JSON.parse(entry.metadata);
  assert.equal(metadata.eventId, sent.eventId);
  assert.equal(metadata.correlationId, sent.correlationId);
  // What is realtime lies nowhere.
  assert.equal(await client.exists('events:ai'), 0);
});

for (const kind of KINDS) {
  test(`what a service in Node writes and sends comes to a client of ours, by ${kind}`, async (t) => {
    const redis = await RedisServer.start(t, { memory: true });
    const server = await WebServer.start(t, redis);
    const client = redis.client();
    const pubsub = new RedisPubSub({ publisher: redis.client(), subscriber: redis.client() });
    const stars = follow(t, kind, server.port, { query: STARRED });
    const chunks = follow(t, kind, server.port, { query: CHUNKS });
    await until('both begin', async () => {
      await server.execute(STAR, { repository, by: 'probe' });
      await server.execute(SAY, { text: 'probe' });
      return stars.received.length > 0 && chunks.received.length > 0;
    });
    const begun = await server.execute(STAR, { repository, by: 'last probe' });
    await until('all of ours came', () => stars.received.at(-1).node.by === 'last probe');

    // All of it, as our services write it; and the least that an event can be.
    const eventId = randomUUID();
    const payload = JSON.stringify({ repository, by: 'node' });
    const written = await client.xadd(
      ...['events:repository', '*', 'type', 'repository.starred', 'payload', payload],
      ...['aggregate', JSON.stringify({ type: 'repository', id: repository, version: begun.star + 1 })],
      'metadata',
      JSON.stringify({
        eventId,
        correlationId: 'from-node',
        causationId: 'a-request',
        timestamp: '2026-01-01T00:00:00.000Z',
        userId: 7,
      }),
    );
    const least = JSON.stringify({ repository, by: 'little' });
    await client.xadd('events:repository', '*', 'type', 'starred', 'payload', least);
    await until(() => `both come: ${stars}`, () => stars.received.at(-1).node.by === 'little');
    const [whole, little] = stars.received.slice(-2);
    assert.deepEqual(whole.node, { repository, by: 'node' });
    assert.equal(whole.eventId, eventId);
    assert.equal(whole.correlationId, 'from-node');
    assert.equal(whole.causationId, 'a-request');
    assert.equal(Date.parse(whole.timestamp), Date.parse('2026-01-01T00:00:00.000Z'));
    assert.equal(little.eventType, 'repository.starred');
    assert.ok(written);
    assert.deepEqual(stars.errors, []);

    // What cannot be read as the event it says it is has a code; the subscription goes on behind it.
    await client.xadd('events:repository', '*', 'type', 'starred', 'payload', '{"by":7}');
    await client.xadd('events:repository', '*', 'type', 'starred', 'payload', least);

    const timestamp = new Date().toISOString();
    const chunk = (text) => ({
      ...{ type: 'ai.response.chunk', payload: { text }, timestamp },
      correlationId: 'from-node',
    });
    const numbers = Array.from({ length: 100 }, (_, number) => `${number}`);
    for (const text of numbers) await pubsub.publish('ai.response.chunk', chunk(text));
    await server.execute(SAY, { text: 'ours' });
    await until(() => `all come: ${chunks}`, () => chunks.received.at(-1).node.text === 'ours');
    const texts = chunks.received.map(({ node }) => node.text).filter((text) => text !== 'probe');
    assert.deepEqual(texts, [...numbers, 'ours']);
    const foreign = chunks.received.find(({ node }) => node.text === '0');
    assert.equal(foreign.correlationId, 'from-node');
    assert.equal(foreign.missed, 0);

    await until(() => `it goes on: ${stars}`, () => stars.received.filter(({ node }) => node.by === 'little').length === 2);
    assert.deepEqual(stars.codes, ['UNDECODABLE']);
  });
}
