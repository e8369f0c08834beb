// How the service is doing: who is behind, what is kept, what is played.

import { byId, counted, el, setText } from "./dom.js";

const PLAY = "mutation { playSample { state } }";

/** A bar is full from so many events on. */
const FULL = 50;

export const STATUS = `subscription Status {
  status {
    running correlationIndex
    lag { consumer partition lag deadLetters owned stopped }
    contexts { kept invalidations }
    sample { state sent rejected total }
  }
}`;

export class Status {
  constructor(client) {
    byId("sample-again").addEventListener("click", async (event) => {
      const button = event.currentTarget;
      button.disabled = true;
      try {
        await client.request(PLAY);
      } catch (error) {
        setText(byId("sample-text"), `Not played: ${error.message}`);
      } finally {
        button.disabled = false;
      }
    });
  }

  /** Nothing is known while there is no connection. */
  unknown() {
    setText(byId("lag-note"), "Not known now");
    byId("lag").classList.add("stale");
  }

  show(status) {
    const lag = status.lag.reduce((sum, one) => sum + one.lag, 0);
    const dead = status.lag.reduce((sum, one) => sum + one.deadLetters, 0);
    const behind = lag > 0 ? `${counted(lag, "event")} behind` : "All caught up";
    setText(byId("lag-note"), dead > 0 ? `${behind}, ${counted(dead, "dead letter")}` : behind);
    const table = byId("lag");
    table.hidden = status.lag.length === 0;
    table.classList.remove("stale");
    byId("lag-rows").replaceChildren(...status.lag.map(row));
    const { kept, invalidations } = status.contexts;
    setText(
      byId("caches"),
      `AI contexts: ${kept} kept; cleared by ${counted(invalidations, "repository event")}.`,
    );
    sample(status.sample);
  }
}

function row({ consumer, partition, lag, deadLetters, owned, stopped }) {
  const said = [
    !owned && "nobody handles it now",
    deadLetters > 0 && counted(deadLetters, "dead letter"),
    stopped && `stopped: ${stopped}`,
  ].filter(Boolean);
  const width = `${Math.min(lag / FULL, 1) * 100}`;
  return el(
    "tr",
    { "data-consumer": consumer, "data-partition": partition, "data-lag": lag },
    el("th", { scope: "row" }, consumer),
    el("td", {}, partition, said.length > 0 && el("span", { class: "warning" }, ` ${said.join(", ")}`)),
    el(
      "td",
      { class: "number" },
      el("meter", { min: 0, max: 100, value: width, "aria-hidden": "true" }),
      el("span", {}, lag.toLocaleString()),
    ),
  );
}

function sample(sample) {
  byId("sample").hidden = !sample;
  if (!sample) return;
  const { state, sent, rejected, total } = sample;
  const progress = byId("sample-progress");
  progress.max = total;
  progress.value = sent;
  progress.hidden = state !== "PLAYING";
  byId("sample-again").hidden = state === "PLAYING";
  const rejects = rejected > 0 ? `; ${rejected} of its ${total} lines ${rejected === 1 ? "is no delivery" : "are no deliveries"}` : "";
  setText(byId("sample-text"), {
    PLAYING: `Sample: ${sent} of ${total}`,
    ENDED: `The sample has ended${rejects}.`,
    FAILED: "The sample was broken off: the store did not take a delivery.",
  }[state]);
}
