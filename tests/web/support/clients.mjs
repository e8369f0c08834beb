// The clients that the web has, each following a subscription as its documentation says, and going on by cursor.

import { Client as UrqlClient, subscriptionExchange } from '@urql/core';
import { createClient as createSseClient } from 'graphql-sse';
import { createClient as createWsClient } from 'graphql-ws';
import WebSocket from 'ws';
import { atEnd } from './cleanup.mjs';
import { pause } from './wait.mjs';

/** The kinds of clients. */
export const KINDS = ['graphql-ws', 'graphql-sse', 'urql'];

/** The steps of a lane. */
export const STEPPED = `
  subscription Stepped($lane: String, $after: Cursor) {
    stepped(lane: $lane, after: $after) { node { lane number } cursor }
  }`;

/** Again without end, and soon: how long servers are away is up to the tests. */
const AGAIN = { retryAttempts: Infinity };

/** A client of graphql-ws that connects again whatever happens. */
export function wsClient(port, options = {}) {
  return createWsClient({
    url: `ws://127.0.0.1:${port}/graphql/ws`,
    webSocketImpl: WebSocket,
    ...AGAIN,
    retryWait: () => pause(50),
    // By default it gives up where it is refused the connection.
    shouldRetry: () => true,
    ...options,
  });
}

/** A client of graphql-sse that connects again whatever happens. */
export function sseClient(port, options = {}) {
  return createSseClient({
    url: `http://127.0.0.1:${port}/graphql/stream`,
    ...AGAIN,
    retry: () => pause(50),
    ...options,
  });
}

/** A subscription that is followed, and what has come of it. */
export class Follower {
  /** The data of what came. */
  received = [];
  /** Errors of GraphQL, and of the client. */
  errors = [];
  /** Whether it has come to its end. */
  completed = false;
  /** Where it would go on. */
  cursor = undefined;
  /** Called with each that comes. */
  onNext = () => {};
  stop = () => {};

  take({ data, errors }) {
    if (errors) this.errors.push(...errors);
    const edge = data && Object.values(data)[0];
    if (!edge) return;
    this.cursor = edge.cursor ?? this.cursor;
    this.received.push(edge);
    this.onNext(edge);
  }

  sink() {
    return {
      next: (result) => this.take(result),
      error: (error) => this.errors.push(...[error].flat()),
      complete: () => {
        this.completed = true;
      },
    };
  }

  /** The numbers that came of a lane. */
  numbers(lane) {
    const edges = this.received.filter(({ node }) => node.lane === lane);
    return edges.map(({ node }) => node.number);
  }

  toString() {
    const last = JSON.stringify(this.received.at(-1)?.node);
    return `${this.received.length} came, ${last} the last, errors: ${this.errors.join(' ')}; `;
  }

  /** The codes of the errors. */
  get codes() {
    return this.errors.map((error) => error.extensions?.code);
  }
}

/**
 * Follows a subscription with a client of some kind, until it is stopped or the test has ended. Whoever is cut off
 * goes on behind what came last.
 */
export function follow(t, kind, port, { query = STEPPED, variables = {}, after, options } = {}) {
  const follower = new Follower();
  follower.cursor = after;
  // Also one that has had its error: where the server ends before it has said that all is complete, it asks again.
  atEnd(t, () => follower.stop());
  // Read each time that the request is sent.
  const resuming = {
    ...variables,
    get after() {
      return follower.cursor;
    },
  };
  switch (kind) {
    case 'graphql-ws': {
      const client = wsClient(port, options);
      follower.stop = client.subscribe({ query, variables: resuming }, follower.sink());
      break;
    }
    case 'graphql-sse': {
      // As browsers do by themselves: what came last has the cursor as its id.
      const headers = () => (follower.cursor ? { 'last-event-id': follower.cursor } : {});
      const client = sseClient(port, { headers, ...options });
      const request = { query, variables: { ...variables, after } };
      follower.stop = client.subscribe(request, follower.sink());
      break;
    }
    case 'urql': {
      const socket = wsClient(port, options);
      const client = new UrqlClient({
        url: `http://127.0.0.1:${port}/graphql`,
        exchanges: [
          subscriptionExchange({
            forwardSubscription: (request) => ({
              subscribe: (sink) => ({
                unsubscribe: socket.subscribe({ query: request.query, variables: resuming }, sink),
              }),
            }),
          }),
        ],
      });
      const subscription = client.subscription(query, variables);
      let last = {};
      const { unsubscribe } = subscription.subscribe((result) => {
        // Each result has the newest data, and all errors until now.
        const { data, error, hasNext } = result;
        const errors = error?.graphQLErrors.slice(last.error?.graphQLErrors.length ?? 0);
        if (error?.networkError) errors.push(error.networkError);
        follower.take({ data: data === last.data ? undefined : data, errors });
        follower.completed = !hasNext;
        last = result;
      });
      follower.stop = unsubscribe;
      break;
    }
    default:
      throw new Error(`there is no client of the kind ${kind}`);
  }
  return follower;
}
