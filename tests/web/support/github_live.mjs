// The example `github-live`, with a secret, on Redis.

import { createHmac, randomUUID } from 'node:crypto';
import { atEnd } from './cleanup.mjs';
import { Program, program } from './process.mjs';
import { pause, until } from './wait.mjs';

const SECRET = 'a secret of the tests';

export class GithubLive {
  #redis;
  #program;

  static async start(t, redis) {
    const live = new GithubLive();
    live.#redis = redis;
    atEnd(t, () => live.#program.end());
    await live.#begin(0);
    return live;
  }

  get url() {
    return `http://127.0.0.1:${this.port}/`;
  }

  async #begin(port) {
    this.#program = new Program(program('GITHUB_LIVE_BIN'), [
      ...['--redis', this.#redis.url, '--port', port],
      ...['--secret', SECRET, '--cursor-secret', 'cursors'],
    ]);
    const line = await this.#program.line((line) => line.startsWith('listening on '));
    if (!line) throw new Error(`github-live does not start: ${this.#program.errors}`);
    this.port = Number(new URL(line.slice('listening on '.length)).port);
  }

  /** Kills it. */
  async kill() {
    await this.#program.end('SIGKILL');
  }

  /** Starts it again where it was. */
  async again() {
    await this.#begin(this.port);
  }

  /** Delivers a webhook as GitHub does, until it is taken, and gives the event's id. */
  async deliver(event, payload) {
    const delivery = randomUUID();
    const body = JSON.stringify({
      repository: { id: 7, full_name: 'octo/lab', default_branch: 'main' },
      sender: { login: 'octocat' },
      ...payload,
    });
    const signature = createHmac('sha256', SECRET).update(body).digest('hex');
    const post = () =>
      fetch(`${this.url}webhooks/github`, {
        method: 'POST',
        headers: {
          'content-type': 'application/json',
          'x-github-event': event,
          'x-github-delivery': delivery,
          'x-hub-signature-256': `sha256=${signature}`,
        },
        body,
      });
    // GitHub would be told by a person to deliver it again: it has the same id, and so is stored once.
    const answer = await until('the delivery is taken', async () => {
      try {
        return await post();
      } catch {
        await pause(50);
        return undefined;
      }
    });
    if (answer.status !== 202) throw new Error(`${answer.status} ${await answer.text()}`);
    return (await answer.json()).eventId;
  }

  /** Delivers a push of so many commits. */
  push(commits) {
    return this.deliver('push', {
      ref: 'refs/heads/main',
      before: '0'.repeat(40),
      after: 'a'.repeat(40),
      commits: Array.from({ length: commits }, (_, number) => ({
        id: `${number}`.padStart(40, '0'),
        message: 'More',
        added: ['src/lib.rs'],
      })),
    });
  }

  /** Delivers what happened to an issue. */
  issue(number, title = 'It rains') {
    return this.deliver('issues', { action: 'opened', issue: { number, title } });
  }
}
