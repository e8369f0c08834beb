// A socket that speaks graphql-transport-ws by hand, and may do what no client does.

import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import http from 'node:http';
import WebSocket from 'ws';
import { until } from './wait.mjs';

export class RawSocket {
  /** What came, as JSON. */
  received = [];
  /** The close code, once it is closed. */
  code = undefined;
  /** Called with each message. */
  onMessage = () => {};

  static async open(port, protocols = ['graphql-transport-ws']) {
    const socket = new RawSocket();
    socket.ws = new WebSocket(`ws://127.0.0.1:${port}/graphql/ws`, protocols);
    socket.ws.on('message', (text) => {
      const message = JSON.parse(text);
      socket.received.push(message);
      socket.onMessage(message);
    });
    socket.ws.on('close', (code) => {
      socket.code = code;
    });
    socket.ws.on('error', () => {});
    await once(socket.ws, 'open');
    return socket;
  }

  /** One whose client was let in. */
  static async acknowledged(port) {
    const socket = await RawSocket.open(port);
    socket.send({ type: 'connection_init' });
    await socket.until(({ type }) => type === 'connection_ack');
    return socket;
  }

  send(message) {
    this.ws.send(typeof message === 'object' ? JSON.stringify(message) : message);
  }

  subscribe(id, query, variables) {
    this.send({ type: 'subscribe', id, payload: { query, variables } });
  }

  /** Waits for a message. */
  until(isIt) {
    return until(
      () => `a message: ${JSON.stringify(this.received.at(-1))}, closed with ${this.code}`,
      () => this.received.find(isIt),
    );
  }

  /** Waits until the server has closed it, and gives the code. */
  async closed() {
    await until('the socket is closed', () => this.code !== undefined);
    return this.code;
  }
}

/**
 * The close code for a client that asks for another subprotocol. Libraries and browsers give such a socket up by
 * themselves, so the frame is read from the bytes (RFC 6455, 5.2).
 */
export async function closeCodeFor(port, subprotocol) {
  const request = http.get({
    port,
    host: '127.0.0.1',
    path: '/graphql/ws',
    headers: {
      connection: 'Upgrade',
      upgrade: 'websocket',
      'sec-websocket-version': 13,
      'sec-websocket-key': randomBytes(16).toString('base64'),
      'sec-websocket-protocol': subprotocol,
    },
  });
  const [, socket, head] = await once(request, 'upgrade');
  const chunks = [head];
  socket.on('data', (chunk) => chunks.push(chunk));
  const bytes = await until('a close frame', () => {
    const all = Buffer.concat(chunks);
    return all.length >= 4 && all;
  });
  socket.destroy();
  const isClose = bytes[0] === 0x88;
  return isClose ? bytes.readUInt16BE(2) : undefined;
}
