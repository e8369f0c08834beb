// Programs that a test runs, and that end with it.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import net from 'node:net';
import readline from 'node:readline';

/** A program that was begun. */
export class Program {
  #child;
  #ended;
  #stderr = '';

  constructor(path, args) {
    this.#child = spawn(path, args, { stdio: ['ignore', 'pipe', 'pipe'] });
    this.#ended = once(this.#child, 'exit');
    this.#child.stderr.on('data', (text) => {
      this.#stderr = (this.#stderr + text).slice(-10_000);
    });
  }

  get pid() {
    return this.#child.pid;
  }

  /** The first line of its output that `matches`, or nothing where it ends before. */
  async line(matches) {
    for await (const line of readline.createInterface({ input: this.#child.stdout })) {
      if (!matches(line)) continue;
      // Whatever else it says is read, so that it is not held up.
      this.#child.stdout.resume();
      return line;
    }
    return undefined;
  }

  /** What it said of errors. */
  get errors() {
    return this.#stderr;
  }

  /** Sends it a signal, and waits until it has ended. */
  async end(signal = 'SIGKILL') {
    if (this.#child.exitCode === null && this.#child.signalCode === null) {
      this.#child.kill(signal);
      await this.#ended;
    }
  }
}

/** The path of a program that `cargo xtask test-web` names. */
export function program(variable) {
  const path = process.env[variable];
  if (!path) throw new Error(`${variable} is not set: run the tests by \`cargo xtask test-web\``);
  return path;
}

/** A port that nobody listens on. */
export async function freePort() {
  const server = net.createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address();
  server.close();
  await once(server, 'close');
  return port;
}
