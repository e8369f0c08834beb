// Repositories, as their events tell, and what they may be asked for.

import { byId, counted, el, repositoryName, setText } from "./dom.js";

/** What of a repository the page asks for. */
export const REPOSITORY_FIELDS = `
  name version phase commits archived deleted movedTo refusals defaultBranch
  open: pullRequests(state: OPEN) { number }
  openIssues releases checks { name value }
`;

const PHASES = ["PLAN", "BUILD", "TEST", "RELEASE"];

const RESULT = `
  __typename
  ... on CommandAccepted { events repository { ${REPOSITORY_FIELDS} } }
  ... on CommandRefused { code reason }
  ... on VersionConflict { expected actual }
  ... on UnknownRepository { name }
`;
const ENTER = `mutation Enter($repository: String!, $phase: Phase!, $version: Int!, $id: ID!) {
  result: enterPhase(repository: $repository, phase: $phase, because: "somebody said so on the page",
    expectedVersion: $version, commandId: $id) { ${RESULT} }
}`;
const ARCHIVE = `mutation Archive($repository: String!, $archived: Boolean!, $version: Int!, $id: ID!) {
  result: archive(repository: $repository, archived: $archived, expectedVersion: $version, commandId: $id) { ${RESULT} }
}`;

/** A random uuid, also where the page is not served over https. */
export function uuid() {
  if (crypto.randomUUID) return crypto.randomUUID();
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
}

export class Repositories {
  #client;
  #list = byId("repositories");
  #cards = new Map();
  #onChanged;

  constructor(client, onChanged) {
    this.#client = client;
    this.#onChanged = onChanged;
  }

  /** Begins anew with these. */
  reset(repositories) {
    this.#cards.clear();
    this.#list.replaceChildren();
    for (const repository of repositories) this.#put(repository);
    this.#tell();
  }

  /** Takes in a repository that has changed. */
  update(repository) {
    const card = this.#put(repository);
    if (!card) return;
    card.node.classList.remove("changed");
    // Begins the animation again.
    void card.node.offsetWidth;
    card.node.classList.add("changed");
    this.#tell();
  }

  #tell() {
    const names = [...this.#cards.keys()].sort();
    byId("repositories-empty").hidden = names.length > 0;
    setText(byId("repositories-count"), names.length > 0 ? counted(names.length, "repository", "repositories") : "");
    this.#onChanged(names);
  }

  #put(repository) {
    let card = this.#cards.get(repository.name);
    // What was asked for later may have come before.
    if (card && card.repository.version > repository.version) return null;
    if (!card) {
      card = this.#card(repository.name);
      this.#cards.set(repository.name, card);
      const next = [...this.#cards.keys()].sort().find((name) => name > repository.name);
      this.#list.insertBefore(card.node, next ? this.#cards.get(next).node : null);
    }
    card.repository = repository;
    card.node.dataset.version = repository.version;
    show(card, repository);
    return card;
  }

  #card(name) {
    const facts = el("div", { class: "card-facts" });
    const result = el("p", { class: "result", role: "status" });
    const phase = el(
      "select",
      { "aria-label": `Phase for ${name}` },
      PHASES.map((one) => el("option", { value: one }, one.toLowerCase())),
    );
    const enter = el("button", { type: "button" }, "Enter");
    const archive = el("button", { type: "button" }, "Archive");
    const commands = el(
      "details",
      { class: "commands" },
      el("summary", {}, "Commands"),
      el("div", { class: "command-row" }, phase, enter, archive),
      result,
    );
    const node = el("li", { class: "card", "data-repository": name }, facts, commands);
    const card = { node, facts, archive, repository: null };
    enter.addEventListener("click", () => this.#run(card, result, ENTER, { phase: phase.value }));
    archive.addEventListener("click", () =>
      this.#run(card, result, ARCHIVE, { archived: !card.repository.archived }),
    );
    return card;
  }

  async #run(card, result, query, variables) {
    const { name, version } = card.repository;
    setText(result, "…");
    try {
      const data = await this.#client.request(query, { repository: name, version, id: uuid(), ...variables });
      const came = data.result;
      if (came.__typename === "CommandAccepted") this.update(came.repository);
      result.dataset.result = came.__typename;
      setText(result, said(came));
    } catch (error) {
      result.dataset.result = "Error";
      setText(result, error.code === "DISCONNECTED"
        ? "The connection was lost. It is not known whether it was done: look at the version."
        : `Not done: ${error.message}`);
    }
  }
}

function said(result) {
  switch (result.__typename) {
    case "CommandAccepted":
      return result.events.length > 0 ? `Done: ${result.events.join(", ")}` : "Nothing to do: it is so already.";
    case "CommandRefused":
      return `Refused: ${result.reason}.`;
    case "VersionConflict":
      return `Somebody was faster: it is at version ${result.actual}, not ${result.expected}. Look, and decide again.`;
    default:
      return "Nothing is known of it any more.";
  }
}

function show(card, repository) {
  const { phase, checks, open, openIssues, releases } = repository;
  const at = PHASES.indexOf(phase);
  const phases = PHASES.map((one, index) =>
    el(
      "li",
      { class: index === at ? "now" : index < at ? "past" : "", "aria-current": index === at ? "step" : null },
      one.toLowerCase(),
    ),
  );
  const state = repository.deleted ? "deleted"
    : repository.movedTo ? `now ${repository.movedTo}`
    : repository.archived ? "archived" : null;
  const number = (value, name) => el("span", {}, el("b", {}, value.toLocaleString()), ` ${name}`);
  const newest = releases.at(-1);
  const facts = [
    el(
      "div",
      { class: "card-head" },
      el("h3", {}, repositoryName(repository.name)),
      el("span", { class: "version", title: `Made of ${counted(repository.version, "event")}` }, `v${repository.version}`),
    ),
    state ? el("p", { class: "flag" }, state) : el("ol", { class: "phases", "aria-label": "Phase" }, phases),
    el(
      "p",
      { class: "numbers" },
      number(repository.commits, repository.commits === 1 ? "commit" : "commits"),
      number(open.length, open.length === 1 ? "open PR" : "open PRs"),
      number(openIssues.length, openIssues.length === 1 ? "issue" : "issues"),
      newest && el("span", {}, "newest ", el("b", {}, newest)),
    ),
    checks.length > 0 && el(
      "ul",
      { class: "checks", "aria-label": "Checks" },
      checks.map(({ name, value }) => el("li", { "data-conclusion": value }, `${name} `, el("b", {}, value))),
    ),
  ];
  card.facts.replaceChildren(...facts.filter(Boolean));
  setText(card.archive, repository.archived ? "Unarchive" : "Archive");
}
