// What lies between a client and a server, and can cut connections.

import { once } from 'node:events';
import net from 'node:net';
import { atEnd } from './cleanup.mjs';

export class Proxy {
  #listener;
  #sockets = new Set();

  /** How many connections there have been. */
  accepted = 0;

  /** A proxy to the port of `target`, which may be set to another later. */
  static async start(t, target) {
    const proxy = new Proxy();
    proxy.target = target;
    proxy.#listener = net.createServer((socket) => proxy.#connect(socket));
    proxy.#listener.listen(0, '127.0.0.1');
    await once(proxy.#listener, 'listening');
    proxy.port = proxy.#listener.address().port;
    atEnd(t, () => {
      proxy.cut();
      proxy.#listener.close();
    });
    return proxy;
  }

  #connect(socket) {
    this.accepted += 1;
    const other = net.connect(this.target.port, '127.0.0.1');
    for (const [one, another] of [[socket, other], [other, socket]]) {
      this.#sockets.add(one);
      one.on('error', () => {});
      one.on('close', () => {
        this.#sockets.delete(one);
        another.destroy();
      });
      one.pipe(another);
    }
  }

  /** Cuts every connection in the midst of what it carries. */
  cut() {
    for (const socket of this.#sockets) socket.resetAndDestroy();
  }
}
