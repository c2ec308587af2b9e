/** What the character is doing, and the slow layer of mood under its emotions. */

import { byId, fillSlider, make, throttled, write } from "./dom.js";
import { FieldErrors } from "./fields.js";

const MOOD_EVERY_MS = 120;
const MEANINGS = {
  idle: "blinks, glances, breathes",
  listening: "leans in, blinks less",
  thinking: "looks away",
  speaking: "moves more, a third of the mouth is left to emotions",
};

export class Being {
  #session;
  #errors;
  #valence = byId("valence");
  #arousal = byId("arousal");
  #pad = byId("mood-pad");
  #send = throttled(() => this.#sendMood(), MOOD_EVERY_MS);

  /** @param {import("./session.js").Session} session */
  constructor(session) {
    this.#session = session;
    this.#errors = new FieldErrors({ valence: this.#valence, arousal: this.#arousal }, byId("being-error"));
    for (const slider of [this.#valence, this.#arousal]) slider.addEventListener("input", () => this.#moved());
    byId("mood-decay").addEventListener("change", () => this.#moved());
    byId("mood-reset").addEventListener("click", () => this.#set(0, 0));
    this.#pad.addEventListener("pointerdown", (event) => this.#drag(event));
    this.#pad.addEventListener("pointermove", (event) => event.buttons && this.#point(event));
    this.#showWanted();
  }

  /** Make a button for each state of `hello`. */
  offer({ states = [] }) {
    const holder = byId("states");
    if ([...holder.children].map((button) => button.value).join() === states.join()) return;
    holder.replaceChildren(
      ...states.map((state) =>
        make("button", { type: "button", value: state, on: { click: () => this.state(state) } }, state),
      ),
    );
  }

  /** Ask for a state. */
  state(state) {
    this.#errors.clear();
    return this.#session.producer.state(state).catch((error) => this.#errors.show(error));
  }

  /** @param {object} snapshot of the stage */
  update({ state, mood = { valence: 0, arousal: 0 } }) {
    for (const button of byId("states").children) {
      button.setAttribute("aria-pressed", String(button.value === state));
    }
    write(byId("state-meaning"), MEANINGS[state] ?? state);
    const { valence, arousal } = mood;
    this.#pad.style.setProperty("--x", valence);
    this.#pad.style.setProperty("--y", arousal);
    write(byId("mood-now"), `now ${signed(valence)}, ${signed(arousal)}`);
  }

  #drag(event) {
    event.preventDefault();
    this.#pad.setPointerCapture(event.pointerId);
    this.#point(event);
  }

  #point({ clientX, clientY }) {
    const { left, top, width, height } = this.#pad.getBoundingClientRect();
    this.#set(((clientX - left) / width) * 2 - 1, 1 - ((clientY - top) / height) * 2);
  }

  #set(valence, arousal) {
    this.#valence.value = valence;
    this.#arousal.value = arousal;
    this.#moved();
  }

  #moved() {
    this.#showWanted();
    this.#send();
  }

  #showWanted() {
    for (const slider of [this.#valence, this.#arousal]) {
      fillSlider(slider);
      write(slider.parentElement.querySelector("output"), signed(Number(slider.value)));
    }
    this.#pad.style.setProperty("--want-x", this.#valence.value);
    this.#pad.style.setProperty("--want-y", this.#arousal.value);
  }

  #sendMood() {
    this.#errors.clear();
    this.#session.producer
      .mood(Number(this.#valence.value), Number(this.#arousal.value), { decay_ms: Number(byId("mood-decay").value) })
      .catch((error) => this.#errors.show(error));
  }
}

function signed(value) {
  const text = Math.abs(value).toFixed(2);
  return text === "0.00" ? "0" : `${value < 0 ? "−" : "+"}${text}`;
}
