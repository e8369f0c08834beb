// The page: one connection, what is subscribed to, and where each subscription goes on.

import { Client } from "./client.js";
import { byId, counted, setText } from "./dom.js";
import { EVENT_FIELDS, EventList } from "./events.js";
import { Graph } from "./graph.js";
import { REPOSITORY_FIELDS, Repositories } from "./repositories.js";
import { Session } from "./session.js";
import { STATUS, Status } from "./status.js";

const BEGIN = `query Begin {
  newest(last: 60) { cursor repositoryCursor events { ${EVENT_FIELDS} } }
  repositories { ${REPOSITORY_FIELDS} }
}`;
const EVENTS = `subscription Events($after: Cursor) {
  events(after: $after) { cursor event { ${EVENT_FIELDS} } }
}`;
const REPOSITORIES = `subscription Repositories($after: Cursor) {
  repositoryUpdated(after: $after) { cursor repository { ${REPOSITORY_FIELDS} } }
}`;

/** How long to wait before a subscription that has failed is begun again. */
const AGAIN = 2_000;

/** What a cursor can be refused for: what it belongs to is not there any more. */
const LOST = {
  CURSOR_AHEAD: "The server has lost the events that were shown here, and begins anew.",
  CURSOR_EXPIRED: "Events were trimmed away before they could be shown. The list begins anew.",
  CURSOR_INVALID: "The server does not have the events any more that were shown here. The list begins anew.",
  CURSOR_OF_ANOTHER_FEED: "The server has other feeds now. The list begins anew.",
};

const scheme = location.protocol === "https:" ? "wss" : "ws";
const client = new Client(`${scheme}://${location.host}/graphql/ws`, showConnection);

const list = new EventList(choose);
const graph = new Graph(client, choose);
const session = new Session(client);
const repositories = new Repositories(client, (names) => session.offer(names));
const status = new Status(client);

/** Where each subscription goes on: nothing else keeps events from being shown twice. */
const cursors = { events: null, repositories: null };
let hasBegun = false;
let beginning = null;
let endAll = [];

/** Loads what there is, and follows it from exactly there. */
async function begin() {
  const loaded = await client.request(BEGIN);
  endAll.forEach((end) => end());
  cursors.events = loaded.newest.cursor;
  cursors.repositories = loaded.newest.repositoryCursor;
  list.reset(loaded.newest.events);
  repositories.reset(loaded.repositories);
  hasBegun = true;
  endAll = [
    follow(EVENTS, "events", ({ cursor, event }) => {
      cursors.events = cursor;
      list.add(event);
      if (event.correlationId === graph.correlationId) graph.refresh();
    }),
    follow(REPOSITORIES, "repositories", ({ cursor, repository }) => {
      cursors.repositories = cursor;
      if (repository) repositories.update(repository);
    }),
    follow(STATUS, null, (now) => status.show(now)),
  ];
}

function beginSoon(pause = 0) {
  if (beginning !== null) return;
  beginning = setTimeout(async () => {
    try {
      await begin();
      beginning = null;
    } catch (error) {
      beginning = null;
      if (error.code === "DISCONNECTED") return;
      setText(byId("events-empty"), `The events cannot be loaded: ${error.message}`);
      beginSoon(AGAIN);
    }
  }, pause);
}

/** Subscribes, and goes on where it was whenever it was cut off. */
function follow(query, name, take) {
  let end = () => {};
  let timer = null;
  const failed = (error) => {
    if (name && LOST[error?.code]) {
      notify(LOST[error.code]);
      hasBegun = false;
      beginSoon();
      return;
    }
    end();
    clearTimeout(timer);
    timer = setTimeout(start, AGAIN);
  };
  const start = () => {
    end = client.subscribe({
      query,
      variables: () => (name ? { after: cursors[name] } : {}),
      next: (data, errors) => {
        const [given] = Object.values(data ?? {});
        if (given) take(given);
        else if (name) failed(errors?.[0]?.extensions && { code: errors[0].extensions.code });
        else status.unknown();
      },
      failed,
    });
  };
  start();
  return () => {
    clearTimeout(timer);
    end();
  };
}

function choose(event) {
  list.choose(event);
  graph.show(event);
  if (matchMedia("(max-width: 759px)").matches) {
    byId("detail-title").scrollIntoView({ block: "start", behavior: "smooth" });
  }
}

let countdown = null;

function showConnection({ state, reason, retryAt, again }) {
  const node = byId("connection");
  const text = byId("connection-text");
  const retry = byId("connection-retry");
  node.dataset.state = state;
  byId("reconnect").hidden = state !== "offline";
  clearInterval(countdown);
  setText(retry, "");
  node.title = "";
  if (state === "live") {
    setText(text, "Live");
    if (hasBegun) graph.refresh();
    else beginSoon();
  } else if (state === "connecting") {
    setText(text, again ? "Connecting again" : "Connecting");
  } else {
    status.unknown();
    const said = hasBegun ? `${reason}. What is shown is as of then` : reason;
    node.title = said;
    if (!hasBegun) setText(byId("events-empty"), `${reason}. The events are loaded when it can be.`);
    setText(text, `Offline: ${reason}`);
    // Told by the second for those who look; those who listen have heard it.
    const tell = () => {
      const seconds = retryAt ? Math.max(0, Math.ceil((retryAt - Date.now()) / 1_000)) : 0;
      setText(retry, seconds > 0 ? `again in ${counted(seconds, "second")}` : "");
    };
    tell();
    countdown = setInterval(tell, 1_000);
  }
}

function notify(text) {
  setText(byId("notice-text"), text);
  byId("notice").hidden = false;
}

byId("notice-close").addEventListener("click", () => {
  byId("notice").hidden = true;
});
byId("reconnect").addEventListener("click", () => client.reconnect());

client.reconnect();
