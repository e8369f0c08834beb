// An AI session: started, its context loaded, its answer streamed, and whole at the end.

import { byId, counted, el, setText } from "./dom.js";
import { uuid } from "./repositories.js";

const START = `mutation Start($session: ID!, $repository: String!, $prompt: String!) {
  startAiSession(session: $session, repository: $repository, prompt: $prompt)
}`;

const FOLLOW = `subscription Session($session: ID!, $after: Cursor) {
  aiSession(session: $session, after: $after) {
    cursor
    missed
    event {
      __typename
      ... on AiSessionStarted { prompt }
      ... on AiContextLoaded { version facts cached }
      ... on AiResponseChunk { index text }
      ... on AiResponseCompleted { chunks text }
    }
  }
}`;

export class Session {
  #client;
  #end = () => {};
  #cursor = null;
  #stage = "none";
  #pieces = [];
  #missed = 0;

  constructor(client) {
    this.#client = client;
    byId("session-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#ask();
    });
  }

  /** The repositories that there are to ask about. */
  offer(names) {
    const select = byId("session-repository");
    const offered = [...select.options].map((option) => option.value);
    if (offered.join("\n") === names.join("\n")) return;
    const chosen = select.value;
    select.replaceChildren(...names.map((name) => el("option", { value: name }, name)));
    if (names.includes(chosen)) select.value = chosen;
    byId("session-ask").disabled = names.length === 0;
  }

  async #ask() {
    this.#end();
    const session = uuid();
    const repository = byId("session-repository").value;
    const prompt = byId("session-prompt").value;
    this.#cursor = null;
    this.#pieces = [];
    this.#missed = 0;
    byId("session").hidden = false;
    byId("session-steps").replaceChildren();
    setText(byId("session-answer"), "");
    setText(byId("session-note"), "");
    this.#reach("asked");
    // First listen, then ask: a chunk that nobody hears is gone.
    this.#end = this.#client.subscribe({
      query: FOLLOW,
      variables: () => ({ session, after: this.#cursor }),
      next: (data, errors) => (data?.aiSession ? this.#take(data.aiSession) : this.#failed(errors?.[0])),
      failed: (error) => this.#failed(error),
    });
    try {
      await this.#client.request(START, { session, repository, prompt });
    } catch (error) {
      this.#failed(error);
    }
  }

  #take({ cursor, missed, event }) {
    if (cursor) this.#cursor = cursor;
    this.#missed += missed;
    switch (event.__typename) {
      case "AiSessionStarted":
        this.#reach("started");
        this.#step("Started", "ai.session.started");
        break;
      case "AiContextLoaded": {
        this.#reach("context");
        const from = event.cached ? "kept from before" : "loaded anew";
        const what = event.version > 0 ? `version ${event.version}, ${counted(event.facts.length, "fact")}` : "nothing is known";
        this.#step(`Context ${from}: ${what}`, "ai.context.loaded");
        break;
      }
      case "AiResponseChunk":
        if (this.#stage === "completed") break;
        this.#reach("streaming");
        this.#pieces[event.index] = event.text;
        setText(byId("session-answer"), Array.from(this.#pieces, (piece) => piece ?? "… ").join(""));
        break;
      case "AiResponseCompleted": {
        this.#reach("completed");
        const got = this.#pieces.filter((piece) => piece !== undefined).length;
        setText(byId("session-answer"), event.text);
        const lost = event.chunks - got;
        this.#step(`Whole, after ${counted(event.chunks, "chunk")}${lost > 0 ? `, ${lost} of them missed here` : ""}`, "ai.response.completed");
        setText(byId("session-note"), "The answer is complete.");
        this.#end();
        break;
      }
      default:
    }
  }

  #step(text, type) {
    byId("session-steps").append(el("li", { "data-type": type, title: type }, text));
  }

  #reach(stage) {
    this.#stage = stage;
    byId("session").dataset.stage = stage;
  }

  #failed(error) {
    if (this.#stage === "completed") return;
    setText(byId("session-note"), error?.code === "DISCONNECTED"
      ? "The connection was lost before the question was taken. Ask again."
      : `The session cannot be followed: ${error?.message ?? "no reason was given"}`);
  }
}
