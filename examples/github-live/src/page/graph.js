// An event's causes and effects: a tree from the left to the right, each event behind its cause.

import { byId, clock, counted, el, eventType, repositoryName, setText, svg } from "./dom.js";
import { EVENT_FIELDS, read, summary } from "./events.js";

const COLUMN = 226;
const ROW = 56;
const BOX = { width: 194, height: 44 };
const EDGE = 6;
/** How many letters fit into a box. */
const FITS = { type: 25, told: 31 };
/** Effects come one after the other: they are asked for together. */
const SETTLE = 250;

const QUERY = `query Correlation($id: String!) {
  correlation(id: $id) { complete read indexed events { ${EVENT_FIELDS} } }
}`;

export class Graph {
  #client;
  #onChosen;
  #event = null;
  #timer = null;

  constructor(client, onChosen) {
    this.#client = client;
    this.#onChosen = onChosen;
  }

  /** The correlation that is shown. */
  get correlationId() {
    return this.#event?.correlationId ?? null;
  }

  /** Shows an event, and what belongs to it. */
  show(event) {
    const isOther = this.correlationId !== event.correlationId;
    this.#event = event;
    byId("detail-empty").hidden = true;
    byId("detail").hidden = false;
    describe(event);
    if (isOther) byId("graph").replaceChildren(draw([event], event.id, this.#onChosen));
    this.#load();
  }

  /** Looks again: something was added. */
  refresh() {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#load(), SETTLE);
  }

  async #load() {
    const asked = this.#event;
    if (!asked) return;
    const note = byId("graph-note");
    try {
      const { correlation } = await this.#client.request(QUERY, { id: asked.correlationId });
      if (this.#event !== asked) return;
      const events = correlation.events;
      // It may be older than what is looked at.
      if (!events.some((event) => event.id === asked.id)) events.unshift(asked);
      const had = document.activeElement?.closest("#graph [data-event-id]")?.dataset.eventId;
      byId("graph").replaceChildren(draw(events, asked.id, this.#onChosen));
      // Who was at an event by the keyboard is there still.
      if (had) byId("graph").querySelector(`[data-event-id="${CSS.escape(had)}"]`)?.focus();
      const found = counted(events.length, "event");
      setText(note, correlation.complete ? found : `${found} among the newest 100,000; older ones are not looked at`);
    } catch (error) {
      if (this.#event !== asked) return;
      setText(note, error.code === "DISCONNECTED" ? "Not connected: what is shown may lack effects" : `Cannot be shown: ${error.message}`);
    }
  }
}

/** Where each event goes: its column is how many causes it has, its row the first that is free. */
function place(events) {
  const known = new Map(events.map((event) => [event.id, { event, effects: [], cause: null }]));
  const roots = [];
  for (const node of known.values()) {
    const cause = known.get(node.event.causationId);
    if (cause && cause !== node) {
      node.cause = cause;
      cause.effects.push(node);
    } else {
      roots.push(node);
    }
  }
  const placed = [];
  let row = 0;
  const walk = (node, column) => {
    if (node.column !== undefined) return;
    node.column = column;
    node.row = row;
    placed.push(node);
    node.effects.forEach((effect, index) => {
      if (index > 0) row += 1;
      walk(effect, column + 1);
    });
  };
  for (const root of roots) {
    walk(root, 0);
    row += 1;
  }
  return placed;
}

function draw(events, chosenId, onChosen) {
  const nodes = place(events);
  const width = Math.max(...nodes.map((node) => node.column)) * COLUMN + BOX.width + 2 * EDGE;
  const height = Math.max(...nodes.map((node) => node.row)) * ROW + BOX.height + 2 * EDGE;
  const x = (node) => node.column * COLUMN + EDGE;
  const y = (node) => node.row * ROW + EDGE;
  const began = Date.parse(nodes[0].event.timestamp);
  const drawing = svg("svg", {
    viewBox: `0 0 ${width} ${height}`,
    width,
    height,
    role: "group",
    "aria-label": `${counted(nodes.length, "event")}, each behind its cause`,
  });
  for (const node of nodes.filter((one) => one.cause)) {
    const from = { x: x(node.cause) + BOX.width, y: y(node.cause) + BOX.height / 2 };
    const to = { x: x(node), y: y(node) + BOX.height / 2 };
    const middle = (from.x + to.x) / 2;
    const d = `M${from.x} ${from.y}C${middle} ${from.y} ${middle} ${to.y} ${to.x} ${to.y}`;
    drawing.append(svg("path", { class: "edge", d, "aria-hidden": "true" }));
  }
  for (const node of nodes) drawing.append(box(node, x(node), y(node), began, chosenId, onChosen));
  return drawing;
}

function box(node, x, y, began, chosenId, onChosen) {
  const { event, cause } = node;
  const isChosen = event.id === chosenId;
  const after = Math.round(Date.parse(event.timestamp) - began);
  const told = cause ? `+${after} ms` : new Date(event.timestamp).toLocaleTimeString(undefined, { hourCycle: "h23" });
  const choose = () => onChosen(event);
  const because = cause ? `, caused by ${cause.event.type}` : "";
  const [category] = event.type.split(".", 1);
  return svg(
    "g",
    {
      class: "node",
      transform: `translate(${x} ${y})`,
      tabindex: 0,
      role: "button",
      "aria-pressed": String(isChosen),
      "aria-label": `${event.type}${because}. ${summary(event)}`,
      "data-event-id": event.id,
      "data-category": category,
      onclick: choose,
      onkeydown: (key) => {
        if (key.key !== "Enter" && key.key !== " ") return;
        key.preventDefault();
        choose();
      },
    },
    svg("title", {}, event.type),
    svg("rect", { class: "box", width: BOX.width, height: BOX.height, rx: 9 }),
    svg("rect", { class: "stripe", x: 9, y: 11, width: 3, height: BOX.height - 22, rx: 1.5 }),
    svg("text", { class: "node-type", x: 21, y: 19 }, short(event.type, FITS.type)),
    svg("text", { class: "node-told", x: 21, y: 34 }, short([told, summary(event)].filter(Boolean).join(" · "), FITS.told)),
  );
}

const short = (text, most) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);

/** What is known of an event. */
function describe(event) {
  const fact = (name, ...value) => el("div", {}, el("dt", {}, name), el("dd", {}, ...value));
  byId("event-detail").replaceChildren(
    el("h3", {}, eventType(event.type)),
    el(
      "dl",
      { class: "facts" },
      fact("When", clock(event.timestamp)),
      event.repositoryName && fact("Repository", repositoryName(event.repositoryName), event.version ? ` version ${event.version}` : ""),
      fact("Made by", event.source ?? "not said"),
      fact("Id", el("code", {}, event.id)),
      fact("Caused by", event.causationId ? el("code", {}, event.causationId) : "nothing before it"),
    ),
    el("pre", { class: "payload", tabindex: 0, "aria-label": "Payload" }, JSON.stringify(read(event.payload), null, 2)),
  );
}
