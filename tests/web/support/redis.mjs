// A Redis server of the test's own, which can be killed and started again.

import { existsSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Redis } from 'ioredis';
import { atEnd } from './cleanup.mjs';
import { freePort, Program, program } from './process.mjs';

/** A disk in memory, where there is one: what is written outlives a killed server all the same, and sooner. */
const DISK = existsSync('/dev/shm') ? '/dev/shm' : tmpdir();

export class RedisServer {
  #folder;
  #args;
  #program;
  #clients = [];

  /**
   * Starts one that ends with the test. Everything acknowledged is kept on the disk, unless the test wants it in
   * `memory` alone.
   */
  static async start(t, { memory = false } = {}) {
    const server = new RedisServer();
    server.memory = memory;
    server.#folder = await mkdtemp(join(DISK, 'web-redis-'));
    server.#args = memory
      ? ['--appendonly', 'no']
      : ['--appendonly', 'yes', '--appendfsync', 'always'];
    atEnd(t, () => server.#stop());
    for (;;) {
      server.port = await freePort();
      // Somebody else may have been faster.
      if (await server.#begin()) return server;
    }
  }

  get url() {
    return `redis://127.0.0.1:${this.port}/`;
  }

  /** A client, which asks until it is answered. */
  client() {
    const client = new Redis(this.port, '127.0.0.1', {
      maxRetriesPerRequest: null,
      retryStrategy: () => 50,
    });
    // While the server is away. Commands wait.
    client.on('error', () => {});
    this.#clients.push(client);
    return client;
  }

  /** Kills it, and starts it again where it was. */
  async restart() {
    await this.#program.end('SIGKILL');
    if (!(await this.#begin())) throw new Error('the Redis server does not start again');
  }

  async #begin() {
    this.#program = new Program(program('REDIS_SERVER_BIN'), [
      ...['--port', this.port, '--bind', '127.0.0.1', '--dir', this.#folder],
      ...['--save', '', '--maxmemory', '0', ...this.#args],
    ]);
    return this.#program.line((line) => line.includes('Ready to accept connections'));
  }

  async #stop() {
    for (const client of this.#clients) client.disconnect();
    await this.#program?.end();
    await rm(this.#folder, { recursive: true, force: true });
  }
}

/** How many connections read a stream and wait. */
export async function readersIn(redis) {
  const clients = await redis.client('LIST');
  return clients.split('\n').filter((line) => / cmd=xread /.test(line)).length;
}
