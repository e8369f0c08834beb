// A client of graphql-transport-ws that comes again: with a growing pause, and where it was.
// The protocol: https://github.com/enisdenjo/graphql-ws/blob/master/PROTOCOL.md

const FIRST_PAUSE = 400;
const LONGEST_PAUSE = 10_000;
/** The server pings every 12 s; who hears nothing for so long has no server. */
const SILENCE = 30_000;
const SERVICE_RESTART = 1012;

/** Why a request has no answer: a sentence, and a code for programs where the server gave one. */
export class RequestError extends Error {
  constructor(errors) {
    super(errors.map((error) => error.message).join("; "));
    this.code = errors[0]?.extensions?.code;
  }
}

/** The connection was lost before there was an answer. */
export class Disconnected extends Error {
  constructor() {
    super("the connection was lost");
    this.code = "DISCONNECTED";
  }
}

export class Client {
  #url;
  #onState;
  #socket = null;
  #isLive = false;
  #operations = new Map();
  #nextId = 1;
  #failures = 0;
  #timer = null;
  #silence = null;

  /** `onState({state, reason, retryAt})`: `connecting`, `live` or `offline`. */
  constructor(url, onState) {
    this.#url = url;
    this.#onState = onState;
    window.addEventListener("online", () => this.reconnect());
    window.addEventListener("offline", () => this.#lost("Your device is offline", null));
    document.addEventListener("visibilitychange", () => {
      if (!document.hidden && this.#timer !== null) this.reconnect();
    });
  }

  get isLive() {
    return this.#isLive;
  }

  /** Connects now, instead of after the pause. */
  reconnect() {
    if (this.#socket) return;
    clearTimeout(this.#timer);
    this.#timer = null;
    this.#open();
  }

  /**
   * Subscribes, again after each reconnect: `variables` is asked each time, and gives the last cursor.
   * `next(data, errors)`; `failed(error)` ends it. Returns what ends it.
   */
  subscribe({ query, variables = () => ({}), next, failed = () => {} }) {
    const operation = { query, variables, next, failed, keep: true };
    return this.#start(operation);
  }

  /** One answer. Fails where the connection is lost before. */
  request(query, variables = {}) {
    return new Promise((resolve, reject) => {
      if (!this.#isLive) {
        reject(new Disconnected());
        return;
      }
      this.#start({
        query,
        variables: () => variables,
        next: (data, errors) => (errors ? reject(new RequestError(errors)) : resolve(data)),
        failed: reject,
        keep: false,
      });
    });
  }

  #start(operation) {
    const id = String(this.#nextId++);
    this.#operations.set(id, operation);
    if (this.#isLive) this.#send(id, operation);
    return () => {
      if (this.#operations.delete(id) && this.#isLive) {
        this.#write({ id, type: "complete" });
      }
    };
  }

  #send(id, operation) {
    const { query, variables } = operation;
    this.#write({ id, type: "subscribe", payload: { query, variables: variables() } });
  }

  #write(message) {
    this.#socket.send(JSON.stringify(message));
  }

  #open() {
    if (!navigator.onLine && !isLocal(this.#url)) {
      this.#onState({ state: "offline", reason: "Your device is offline" });
      return;
    }
    this.#onState({ state: "connecting", again: this.#failures > 0 });
    const socket = new WebSocket(this.#url, "graphql-transport-ws");
    this.#socket = socket;
    this.#listenForSilence();
    socket.onopen = () => socket.send(JSON.stringify({ type: "connection_init" }));
    socket.onmessage = (event) => {
      if (socket === this.#socket) this.#receive(JSON.parse(event.data));
    };
    socket.onclose = (event) => {
      if (socket !== this.#socket) return;
      if (event.code === SERVICE_RESTART) this.#lost("The server restarts", FIRST_PAUSE);
      else if (event.code >= 4400) this.#lost(event.reason || `Closed with ${event.code}`, LONGEST_PAUSE);
      else this.#lost("The server cannot be reached", this.#pause());
    };
  }

  /** Twice as long after each failure, and never the same for two clients. */
  #pause() {
    const longest = Math.min(FIRST_PAUSE * 2 ** this.#failures, LONGEST_PAUSE);
    return longest / 2 + (Math.random() * longest) / 2;
  }

  #lost(reason, pause) {
    const socket = this.#socket;
    this.#socket = null;
    this.#isLive = false;
    clearTimeout(this.#silence);
    clearTimeout(this.#timer);
    this.#timer = null;
    if (socket && socket.readyState <= WebSocket.OPEN) socket.close();
    for (const [id, operation] of this.#operations) {
      if (operation.keep) continue;
      this.#operations.delete(id);
      operation.failed(new Disconnected());
    }
    this.#failures += 1;
    if (pause !== null) {
      this.#timer = setTimeout(() => this.reconnect(), pause);
    }
    this.#onState({ state: "offline", reason, retryAt: pause === null ? null : Date.now() + pause });
  }

  #listenForSilence() {
    clearTimeout(this.#silence);
    this.#silence = setTimeout(() => this.#lost("The server is silent", this.#pause()), SILENCE);
  }

  #receive(message) {
    this.#listenForSilence();
    const operation = this.#operations.get(message.id);
    switch (message.type) {
      case "connection_ack":
        this.#isLive = true;
        this.#failures = 0;
        for (const [id, kept] of this.#operations) this.#send(id, kept);
        this.#onState({ state: "live" });
        break;
      case "ping":
        this.#write({ type: "pong" });
        break;
      case "next":
        operation?.next(message.payload.data, message.payload.errors);
        break;
      case "error":
        this.#operations.delete(message.id);
        operation?.failed(new RequestError(message.payload));
        break;
      case "complete":
        this.#operations.delete(message.id);
        if (operation?.keep) operation.failed(new RequestError([{ message: "the subscription has ended" }]));
        break;
      default:
    }
  }
}

/** A server on this device can be reached without a network. */
function isLocal(url) {
  return ["localhost", "127.0.0.1", "[::1]"].includes(new URL(url).hostname);
}
