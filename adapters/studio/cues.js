/** The cues on the face and those that wait, with phase and remaining time. */

import { byId, make, write } from "./dom.js";
import { colourOf, onSchemeChange } from "./palette.js";

const TICK_MS = 100;
const MAX_SHOWN = 50;
const PHASES = {
  scheduled: "starts later",
  queued: "waits",
  attack: "fading in",
  hold: "holding",
  decay: "fading out",
  suspended: "resumes later",
};

export class Cues {
  #list;
  #cues = [];
  #takenAt = 0;
  #rows = new Map();

  constructor() {
    this.#list = byId("cues");
    setInterval(() => !document.hidden && this.#tick(), TICK_MS);
    onSchemeChange(() => this.#paint());
    this.update(null);
  }

  /** Whether there is anything that changes by itself. */
  get busy() {
    return this.#cues.length > 0;
  }

  /** @param {object|null} snapshot of the stage */
  update(snapshot) {
    this.#cues = snapshot ? [...snapshot.cues, ...snapshot.queue].slice(0, MAX_SHOWN) : [];
    this.#takenAt = performance.now();
    const ids = new Set(this.#cues.map((cue) => cue.id));
    for (const [id, row] of this.#rows) {
      if (ids.has(id)) continue;
      row.remove();
      this.#rows.delete(id);
    }
    this.#cues.forEach((cue, index) => this.#place(cue, index));
    byId("cues-interrupt").disabled = !this.#cues.length;
    this.#tick();
  }

  #place(cue, index) {
    let row = this.#rows.get(cue.id);
    if (!row) {
      row = make(
        "li",
        { data: { emotion: cue.emotion } },
        make("b", {}, cue.emotion),
        make("span", { class: "phase" }),
        make("code", { title: cue.id }, cue.id),
        make("span", { class: "left" }),
        make("i", { "aria-hidden": "true" }),
      );
      row.style.setProperty("--tint", colourOf(cue.emotion));
      this.#rows.set(cue.id, row);
    }
    if (row.dataset.phase !== cue.phase) {
      row.dataset.phase = cue.phase;
      write(row.querySelector(".phase"), PHASES[cue.phase] ?? cue.phase);
    }
    if (this.#list.children[index] !== row) this.#list.insertBefore(row, this.#list.children[index] ?? null);
  }

  /** Between two snapshots time goes on. */
  #tick() {
    const passed = performance.now() - this.#takenAt;
    for (const { id, phase, remaining_ms: remaining } of this.#cues) {
      const row = this.#rows.get(id);
      const left = remaining === null ? null : Math.max(0, remaining - passed);
      write(row.querySelector(".left"), leftText(phase, left));
      const longest = Math.max(Number(row.dataset.longest ?? 0), left ?? 0);
      row.dataset.longest = longest;
      const share = left === null ? 1 : longest ? left / longest : 0;
      row.style.setProperty("--left", Math.min(1, share).toFixed(3));
    }
  }

  #paint() {
    for (const row of this.#rows.values()) row.style.setProperty("--tint", colourOf(row.dataset.emotion));
  }
}

function leftText(phase, left) {
  if (left === null) return phase === "hold" ? "until replaced" : "";
  return `${(left / 1000).toFixed(1)} s left`;
}
