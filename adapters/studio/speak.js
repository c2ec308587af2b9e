/** Text with inline tags, sent whole or in pieces as a language model streams it. */

import { byId, make, say, write } from "./dom.js";
import { FieldErrors } from "./fields.js";
import { colourOf } from "./palette.js";

const EXAMPLES = [
  ["[happy]", "[happy] There you are!"],
  ["[happy:0.7]", "[happy:0.7] So good to see you! [surprised:0.9] And you brought cake?"],
  ["<emotion/>", '<emotion name="sad" intensity="0.8"/>I am afraid the last train has left.'],
  ["<|ACT|>", '<|ACT {"emotion":{"name":"angry","intensity":0.6}}|>Who ate my sandwich?'],
  ["all four", "[surprised] A letter! [happy:0.8] From Ada! <emotion name=\"fearful\" intensity=\"0.7\"/>She is "
    + "flying the thing herself. <|ACT {\"emotion\":{\"name\":\"happy\",\"intensity\":0.5}}|>And she made it."],
];
const PIECE = /[\s\S]{1,4}/gu; // about a token
const PIECE_MS = 60;
const MAX_SHOWN = 20_000; // characters of clean text

export class Speak {
  #session;
  #errors = new FieldErrors({ delta: byId("text") }, byId("text-error"));
  #stopped = null;
  #cues = 0;
  #shown = 0;

  /** @param {import("./session.js").Session} session */
  constructor(session) {
    this.#session = session;
    byId("examples").append(...EXAMPLES.map(([name, text]) => this.#chip(name, text)));
    byId("text-send").addEventListener("click", () => this.send());
    byId("text-stream").addEventListener("click", () => this.stream());
    byId("text-stop").addEventListener("click", () => this.#stopped?.abort());
    byId("text").addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) this.send();
    });
  }

  /** All at once. */
  send() {
    return this.#run(async (id, text) => this.#show(await this.#session.producer.textFinal(text, { id })));
  }

  /** In pieces that cut tags wherever they fall. */
  stream() {
    return this.#run(async (id, text, signal) => {
      const { producer } = this.#session;
      for await (const piece of producer.pipe(slowly(text.match(PIECE) ?? [], signal))) this.#show(piece);
    });
  }

  async #run(work) {
    const text = byId("text").value;
    if (this.#stopped) return;
    this.#errors.clear();
    if (!text.trim()) {
      this.#errors.show({ field: "delta", message: "Write something, or insert one of the examples" });
      return;
    }
    if (!this.#session.producer.connected) {
      this.#errors.show({ message: "Not sent: there is no connection" });
      return;
    }
    this.#begin();
    const { producer } = this.#session;
    const speaking = byId("text-state").checked;
    try {
      if (speaking) await producer.state("speaking");
      await work(`text-${Date.now().toString(36)}`, text, this.#stopped.signal);
    } catch (error) {
      this.#errors.show(error);
    } finally {
      if (speaking) producer.state("idle").catch(() => {});
      this.#end();
    }
  }

  #begin() {
    this.#stopped = new AbortController();
    this.#cues = this.#shown = 0;
    byId("clean").replaceChildren();
    this.#busy(true);
  }

  #end() {
    this.#stopped = null;
    this.#busy(false);
    say(`${this.#cues} cues, ${this.#shown} characters of clean text`);
  }

  #busy(busy) {
    byId("text-send").disabled = byId("text-stream").disabled = busy;
    byId("text-stop").hidden = !busy;
  }

  /** `at` counts code points of the clean text before each cue. */
  #show({ text, cues, at }) {
    const points = Array.from(text);
    let done = 0;
    cues.forEach((cue, index) => {
      this.#append(points.slice(done, at[index]).join(""));
      done = at[index];
      this.#append(this.#mark(cue));
    });
    this.#append(points.slice(done).join(""));
    this.#shown += points.length;
    this.#cues += cues.length;
    write(byId("clean-count"), `${this.#shown} characters, ${this.#cues} cue${this.#cues === 1 ? "" : "s"}`);
  }

  #append(piece) {
    if (piece && this.#shown < MAX_SHOWN) byId("clean").append(piece);
  }

  #mark({ emotion, intensity, started }) {
    const mark = make("mark", { data: { emotion } }, `${emotion} ${Math.round(intensity * 100)} %`);
    mark.style.setProperty("--tint", colourOf(emotion));
    started.then(() => (mark.dataset.shown = "true")).catch(() => {});
    return mark;
  }

  #chip(name, text) {
    return make("button", { type: "button", class: "chip", on: { click: () => insert(byId("text"), text) } }, name);
  }
}

async function* slowly(pieces, signal) {
  for (const piece of pieces) {
    if (signal.aborted) return;
    yield piece;
    await new Promise((resolve) => setTimeout(resolve, PIECE_MS));
  }
}

/** In place of the selection, so that the browser's undo brings it back. */
function insert(area, text) {
  area.focus();
  const before = area.value.slice(0, area.selectionStart);
  const gap = before && !/\s$/.test(before) ? " " : "";
  area.setRangeText(gap + text, area.selectionStart, area.selectionEnd, "end");
  area.dispatchEvent(new Event("input"));
}
