// The server whose clients are tested: `tests/web-server`.

import { atEnd } from './cleanup.mjs';
import { Program, program } from './process.mjs';

export class WebServer {
  #args;
  #program;

  /** Starts one on a Redis server. It ends with the test. `options` are its arguments, in camel case. */
  static async start(t, redis, options = {}) {
    const server = new WebServer();
    server.#args = ['--redis', redis.url, ...(redis.memory ? ['--memory'] : [])];
    for (const [name, value] of Object.entries(options)) {
      const flag = `--${name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`;
      server.#args.push(...(value === true ? [flag] : [flag, String(value)]));
    }
    atEnd(t, () => server.#program.end());
    await server.#begin(0);
    return server;
  }

  async #begin(port) {
    this.#program = new Program(program('WEB_SERVER_BIN'), [...this.#args, '--port', port]);
    const line = await this.#program.line((line) => line.startsWith('{'));
    if (!line) throw new Error(`the web server does not start: ${this.#program.errors}`);
    this.port = JSON.parse(line).port;
  }

  /** Ends it, and starts it again where it was. */
  async restart(signal = 'SIGKILL') {
    await this.#program.end(signal);
    await this.#begin(this.port);
  }

  /** Ends it. */
  async end(signal) {
    await this.#program.end(signal);
  }

  async stats() {
    const response = await fetch(`http://127.0.0.1:${this.port}/test/stats`);
    return response.json();
  }

  /** Does one of what is under `/test`. */
  async control(what, parameters = {}) {
    const query = new URLSearchParams(parameters);
    const url = `http://127.0.0.1:${this.port}/test/${what}?${query}`;
    const response = await fetch(url, { method: 'POST' });
    if (!response.ok) throw new Error(`${what}: ${response.status} ${await response.text()}`);
  }

  /** Executes a query or a mutation, and gives its data. */
  async execute(query, variables) {
    const response = await fetch(`http://127.0.0.1:${this.port}/graphql`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ query, variables }),
    });
    const { data, errors } = await response.json();
    if (errors) throw new Error(JSON.stringify(errors));
    return data;
  }
}
