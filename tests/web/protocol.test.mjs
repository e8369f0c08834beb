// The close codes of graphql-transport-ws.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { STEPPED, wsClient, sseClient } from './support/clients.mjs';
import { RedisServer } from './support/redis.mjs';
import { WebServer } from './support/server.mjs';
import { closeCodeFor, RawSocket } from './support/socket.mjs';

test('protocol', async (t) => {
  const redis = await RedisServer.start(t, { memory: true });
  const server = await WebServer.start(t, redis);
  const hasty = await WebServer.start(t, redis, { initTimeout: 300 });
  const { port } = server;

  await t.test('4400 closes a socket with a message that is none', async () => {
    for (const message of ['no JSON', { type: 'unknown' }, { type: 'subscribe', id: '1' }, {}]) {
      const socket = await RawSocket.acknowledged(port);
      socket.send(message);
      assert.equal(await socket.closed(), 4400, JSON.stringify(message));
    }
    const socket = await RawSocket.acknowledged(port);
    socket.ws.send(Buffer.from('{"type":"ping"}'), { binary: true });
    assert.equal(await socket.closed(), 4400);
  });

  await t.test('4401 closes a socket that subscribes before it is let in', async () => {
    const socket = await RawSocket.open(port);
    socket.subscribe('1', STEPPED);
    assert.equal(await socket.closed(), 4401);
  });

  await t.test('4403 closes a socket whose client is refused, and the client hears why', async () => {
    const closed = await new Promise((resolve, reject) => {
      wsClient(port, {
        connectionParams: { token: 'wrong' },
        shouldRetry: () => false,
      }).subscribe({ query: STEPPED }, { next: reject, error: resolve, complete: reject });
    });
    assert.equal(closed.code, 4403);
    assert.match(closed.reason, /the token is wrong/);
  });

  await t.test('401 answers a request for server-sent events that is refused', async () => {
    const headers = { authorization: 'wrong' };
    const refused = await new Promise((resolve, reject) => {
      const client = sseClient(port, { headers, retryAttempts: 0 });
      client.subscribe({ query: STEPPED }, { next: reject, error: resolve, complete: reject });
    });
    assert.equal(refused.response.status, 401);
  });

  await t.test('4406 closes a socket that asks for another subprotocol, or for none', async () => {
    assert.equal(await closeCodeFor(port, 'graphql-ws'), 4406);
    const socket = await RawSocket.open(port, []);
    assert.equal(await socket.closed(), 4406);
  });

  await t.test('4408 closes a socket that does not introduce itself', async () => {
    const socket = await RawSocket.open(hasty.port);
    assert.equal(await socket.closed(), 4408);
  });

  await t.test('4409 closes a socket that takes an id twice', async () => {
    const socket = await RawSocket.acknowledged(port);
    socket.subscribe('1', STEPPED);
    socket.subscribe('1', STEPPED);
    assert.equal(await socket.closed(), 4409);
  });

  await t.test('4429 closes a socket that introduces itself twice', async () => {
    const socket = await RawSocket.acknowledged(port);
    socket.send({ type: 'connection_init' });
    assert.equal(await socket.closed(), 4429);
  });

  await t.test('1012 closes all sockets when the server is told to stop', async () => {
    const socket = await RawSocket.acknowledged(hasty.port);
    await hasty.end('SIGTERM');
    assert.equal(await socket.closed(), 1012);
  });
});
