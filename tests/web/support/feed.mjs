// Events as a program in another language writes them.

/** How many entries go together. */
const BATCH = 50;

/** The feed `events:web`, written by this test alone. */
export class Feed {
  #redis;
  #id = 0;

  constructor(redis) {
    this.#redis = redis;
  }

  /** The number of its newest entry. */
  get last() {
    return this.#id;
  }

  /** Adds steps of a lane, from a number on to before another. */
  async add(lane, from, to, text = '') {
    for (let first = from; first < to; first += BATCH) {
      const adding = [];
      for (let number = first; number < Math.min(first + BATCH, to); number += 1) {
        adding.push(this.#add({ lane, number, text }));
      }
      await Promise.all(adding);
    }
  }

  async #add(payload) {
    this.#id += 1;
    const entry = ['type', 'web.stepped', 'payload', JSON.stringify(payload)];
    try {
      // It has an id of its own, so that it may be sent again where the reply was lost.
      await this.#redis.xadd('events:web', `1-${this.#id}`, ...entry);
    } catch (error) {
      if (!/equal or smaller/.test(error.message)) throw error;
    }
  }
}
