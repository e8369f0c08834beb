// Clients that do not read, and what that costs the server and others.

import assert from 'node:assert/strict';
import net from 'node:net';
import { test } from 'node:test';
import { atEnd } from './support/cleanup.mjs';
import { follow, STEPPED } from './support/clients.mjs';
import { Feed } from './support/feed.mjs';
import { RedisServer } from './support/redis.mjs';
import { WebServer } from './support/server.mjs';
import { RawSocket } from './support/socket.mjs';
import { until } from './support/wait.mjs';

const KIB = 1024;
const MIB = 1024 * KIB;

/** With what the payload is, so that a client sees that it is whole. */
const LONG = `
  subscription Stepped($lane: String, $after: Cursor) {
    stepped(lane: $lane, after: $after) { node { lane number text } cursor }
  }`;

/** A socket with a subscription that has begun. */
async function subscribed(t, server, feed, query = STEPPED) {
  const socket = await RawSocket.acknowledged(server.port);
  atEnd(t, () => socket.ws.terminate());
  socket.subscribe('1', query);
  let number = 0;
  await until('the subscription begins', async () => {
    await feed.add('probe', number, (number += 1));
    return socket.received.some(({ type }) => type === 'next');
  });
  return socket;
}

test('a paused client costs no memory while 1 GiB is published, and then gets all of it', async (t) => {
  const redis = await RedisServer.start(t, { memory: true });
  const server = await WebServer.start(t, redis, {
    writeTimeout: 600_000,
    pongTimeout: 600_000,
  });
  const feed = new Feed(redis.client());
  const socket = await subscribed(t, server, feed, LONG);
  socket.ws.pause();

  const [events, bytes] = [16_384, 64 * KIB];
  const text = 'x'.repeat(bytes);
  await feed.add('lane', 0, events, text);
  await until('the server has read it', async () => (await server.stats()).read.endsWith(`-${feed.last}`));
  const { peak } = await server.stats();
  t.diagnostic(`peak while it was paused: ${(peak / MIB).toFixed(0)} MiB`);
  assert.ok(peak < 300 * MIB, `${peak} bytes`);

  let next = 0;
  let whole = true;
  socket.onMessage = ({ payload }) => {
    socket.received.length = 0;
    const { node } = payload.data.stepped;
    if (node.lane !== 'lane') return;
    whole &&= node.number === next && node.text.length === bytes;
    next += 1;
  };
  socket.ws.resume();
  await until(
    () => `${next} of ${events} came, closed with ${socket.code}`,
    () => next === events || !whole,
    240_000,
  );
  assert.ok(whole, `it goes wrong before ${next}`);
  const after = (await server.stats()).peak;
  t.diagnostic(`peak until it had all: ${(after / MIB).toFixed(0)} MiB`);
  assert.ok(after < 300 * MIB, `${after} bytes`);
});

test('a WebSocket that never reads is closed within the write timeout, and its client goes on', async (t) => {
  const redis = await RedisServer.start(t, { memory: true });
  const server = await WebServer.start(t, redis, { writeTimeout: 500 });
  const feed = new Feed(redis.client());
  const socket = await subscribed(t, server, feed);
  const text = 'x'.repeat(64 * KIB);
  socket.ws.pause();
  const events = 400;
  const adding = feed.add('lane', 0, events, text);
  await until('the server gives it up', async () => (await server.stats()).clients === 0);
  await adding;

  // What had reached it comes, and then the end, without a close frame.
  socket.ws.resume();
  assert.equal(await socket.closed(), 1006);
  const edges = socket.received.filter(({ type }) => type === 'next');
  const numbers = edges.map(({ payload }) => payload.data.stepped.node);
  const had = numbers.filter(({ lane }) => lane === 'lane').length;
  const { cursor } = edges.at(-1).payload.data.stepped;
  const again = follow(t, 'graphql-ws', server.port, {
    after: cursor,
    variables: { lane: 'lane' },
  });
  await until(() => `the rest comes: ${again}`, () => again.received.length === events - had);
  const all = [...numbers.filter(({ lane }) => lane === 'lane'), ...again.received.map(({ node }) => node)];
  assert.deepEqual(all.map(({ number }) => number), Array.from({ length: events }, (_, n) => n));
});

test('a stream of server-sent events that is never read ends within the write timeout', async (t) => {
  const redis = await RedisServer.start(t, { memory: true });
  const server = await WebServer.start(t, redis, { writeTimeout: 500 });
  const feed = new Feed(redis.client());
  const { sockets } = await server.stats();
  const socket = net.connect(server.port, '127.0.0.1');
  atEnd(t, () => socket.destroy());
  const body = JSON.stringify({ query: LONG });
  socket.write(
    'POST /graphql/stream HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n' +
      `Content-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body}`,
  );
  await until('it looks', async () => (await server.stats()).clients === 1);
  const adding = feed.add('lane', 0, 1_000, 'x'.repeat(64 * KIB));
  await until('the server gives it up', async () => (await server.stats()).clients === 0);
  await adding;
  // Its connection is closed, too, though it has not read what was sent to it.
  await until('its connection is closed', async () => (await server.stats()).sockets <= sockets);
});

test('a hot subscription does not hold up a quiet one of the same socket', async (t) => {
  const redis = await RedisServer.start(t, { memory: true });
  const server = await WebServer.start(t, redis, { writeTimeout: 600_000 });
  const feed = new Feed(redis.client());
  const socket = await subscribed(t, server, feed, LONG);
  socket.subscribe('quiet', STEPPED, { lane: 'quiet' });
  await until('both look', async () => (await server.stats()).clients === 2);
  await feed.add('quiet', 0, 1);
  await socket.until(({ id }) => id === 'quiet');

  // The socket is full of the hot one when something comes for the quiet one.
  socket.ws.pause();
  const hot = 20_000;
  await feed.add('hot', 0, hot / 2, 'x'.repeat(2 * KIB));
  await feed.add('quiet', 1, 2);
  await feed.add('hot', hot / 2, hot, 'x'.repeat(2 * KIB));
  await until('the server has read it', async () => (await server.stats()).read.endsWith(`-${feed.last}`));
  socket.ws.resume();
  const isHot = ({ id, payload }) => id === '1' && payload.data.stepped.node.lane === 'hot';
  const isQuiet = ({ id, payload }) => id === 'quiet' && payload.data.stepped.node.number === 1;
  await until('all of both came', () => {
    const { received } = socket;
    return received.filter(isHot).length === hot && received.some(isQuiet);
  });
  const quiet = socket.received.findIndex(isQuiet);
  const before = socket.received.slice(0, quiet).filter(isHot).length;
  t.diagnostic(`${before} of ${hot} hot ones came before`);
  // In the feed it lies behind half of them: it came as soon as what was on its way had left.
  assert.ok(before < hot / 2, `${before} came before`);
});
