// The list of events, the newest first.

import { byId, clock, counted, el, eventType, repositoryName, setText } from "./dom.js";

/** How many rows there are at most. */
const ROWS = 200;
/** How often a screen reader is told what came, at most. */
const ANNOUNCE_EVERY = 10_000;

/** What of an event the page asks for. */
export const EVENT_FIELDS = `
  id type position timestamp correlationId causationId repositoryName version source payload
`;

/** What an event says, in a few words. */
export function summary(event) {
  const told = read(event.payload);
  const branch = (told.reference ?? "").replace(/^refs\/(heads|tags)\//, "");
  const numbered = told.number ? `#${told.number}` : "";
  switch (event.type) {
    case "github.push":
      return told.head ? `${counted(told.commits, "commit")} to ${branch}` : `${branch} was removed`;
    case "codebase.pushed":
      return told.head ? `${branch} is at ${told.head.slice(0, 7)}` : `${branch} is gone`;
    case "repository.analyzed": {
      const languages = Object.keys(told.languages ?? {}).join(", ");
      return `${counted(told.files ?? 0, "file")}${languages ? `: ${languages}` : ""}`;
    }
    case "sdlc.phase.changed":
    case "codebase.phase.entered":
      return `${told.from ? `${told.from} → ` : ""}${told.to}: ${told.because}`;
    case "codebase.refused":
      return `${told.change}: ${told.reason}`;
    case "codebase.moved":
      return `to ${told.to}`;
    case "codebase.arrived":
      return `from ${told.from}`;
    case "ai.session.started":
    case "ai.context.loaded":
      return told.prompt;
    case "ai.response.completed":
      return told.text;
    default:
  }
  if (told.name !== undefined && told.conclusion !== undefined) {
    return `${told.name}: ${told.conclusion ?? "running"}`;
  }
  if (told.title) return `${numbered} ${told.title}`;
  if (numbered) return numbered;
  if (told.tag) return told.tag;
  if (told.name) return `${told.name} ${told.version ?? ""}`.trim();
  if (told.sender) return `by ${told.sender}`;
  return told.default_branch ? `default branch ${told.default_branch}` : "";
}

/** The payload, or nothing where it is no object. */
export function read(payload) {
  try {
    const told = JSON.parse(payload);
    return told !== null && typeof told === "object" ? told : {};
  } catch {
    return {};
  }
}

export class EventList {
  #list = byId("events");
  #empty = byId("events-empty");
  #count = byId("events-count");
  #announcer = byId("announcer");
  #onChosen;
  #chosen = null;
  #total = 0;
  #unannounced = 0;
  #announcing = null;

  constructor(onChosen) {
    this.#onChosen = onChosen;
    this.#list.addEventListener("keydown", (event) => this.#move(event));
  }

  /** Begins anew with these, the oldest first. */
  reset(events) {
    this.#list.replaceChildren();
    this.#total = 0;
    for (const event of events) this.#put(event);
    this.#tell();
    setText(this.#empty, "No event yet. Deliveries to /webhooks/github show up here.");
  }

  /** Takes in an event that has just come. */
  add(event) {
    const row = this.#put(event);
    row.classList.add("new");
    this.#tell();
    this.#unannounced += 1;
    this.#announcing ??= setTimeout(() => this.#announce(event), ANNOUNCE_EVERY);
  }

  /** Marks the rows of the chosen event, and of what belongs to it. */
  choose(event) {
    this.#chosen = event;
    for (const row of this.#list.children) this.#mark(row);
  }

  #put(event) {
    const button = el(
      "button",
      { type: "button", class: "event", onclick: () => this.#onChosen(event) },
      el(
        "span",
        { class: "event-head" },
        event.causationId && el("span", { class: "caused", title: "Caused by another event" }, "↳"),
        eventType(event.type),
        clock(event.timestamp),
      ),
      el(
        "span",
        { class: "event-body" },
        event.repositoryName && repositoryName(event.repositoryName),
        el("span", { class: "summary" }, summary(event)),
      ),
    );
    const row = el(
      "li",
      {
        "data-event-id": event.id,
        "data-event-type": event.type,
        "data-correlation-id": event.correlationId,
        "data-timestamp": event.timestamp,
      },
      button,
    );
    this.#mark(row);
    // Feeds take turns, so that an effect may come before its cause: the list is in the order of times.
    let below = this.#list.firstElementChild;
    while (below && below.dataset.timestamp > event.timestamp) below = below.nextElementSibling;
    this.#list.insertBefore(row, below);
    this.#total += 1;
    while (this.#list.children.length > ROWS) this.#list.lastElementChild.remove();
    return row;
  }

  #mark(row) {
    const isChosen = row.dataset.eventId === this.#chosen?.id;
    row.classList.toggle("related", row.dataset.correlationId === this.#chosen?.correlationId);
    row.firstElementChild.setAttribute("aria-pressed", String(isChosen));
  }

  #tell() {
    this.#empty.hidden = this.#total > 0;
    const shown = this.#list.children.length;
    const all = counted(this.#total, "event");
    setText(this.#count, this.#total > shown ? `the newest ${shown} of ${all}` : all);
  }

  #announce(newest) {
    const what = newest.repositoryName ? `${newest.type} of ${newest.repositoryName}` : newest.type;
    setText(this.#announcer, `${counted(this.#unannounced, "new event")}, among them ${what}`);
    this.#unannounced = 0;
    this.#announcing = null;
  }

  /** The arrow keys go from row to row. */
  #move(event) {
    const step = { ArrowDown: "nextElementSibling", ArrowUp: "previousElementSibling" }[event.key];
    const next = step && event.target.closest("li")?.[step];
    if (!next) return;
    event.preventDefault();
    next.firstElementChild.focus();
  }
}
