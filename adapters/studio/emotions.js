/** What the visitor can ask for: emotion buttons, intensity, timing, policy, priority, mix. */

import { byId, fillSlider, make, write } from "./dom.js";
import { FieldErrors } from "./fields.js";
import { colourOf, onSchemeChange } from "./palette.js";

const POLICY_MEANINGS = {
  replace: "Fades out what is on and fades this in.",
  queue: "Starts when what is on has finished.",
  blend: "Adds to what is on; the sum never exceeds 1.",
  override: "Replaces for a while, then resumes what was on.",
};
const TIMES = ["attack", "hold", "decay"];

export class Emotions {
  #actions;
  #buttons = new Map();
  #mix = new Map();
  #defaults = {};
  #errors;

  /** @param {{emotion: (label: string) => void, interrupt: () => void}} actions */
  constructor(actions) {
    this.#actions = actions;
    for (const id of ["interrupt", "cues-interrupt"]) {
      byId(id).addEventListener("click", () => actions.interrupt());
    }
    byId("intensity").addEventListener("input", () => this.#showIntensity());
    byId("policy").addEventListener("change", () => this.#showPolicy());
    byId("hold-forever").addEventListener("change", ({ target }) => {
      byId("hold").disabled = target.checked;
    });
    const fields = { attack_ms: "attack", hold_ms: "hold", decay_ms: "decay", fade_ms: "fade" };
    for (const name of ["policy", "priority", "intensity", "mix"]) fields[name] = name;
    this.#errors = new FieldErrors(
      Object.fromEntries(Object.entries(fields).map(([name, id]) => [name, byId(id)])),
      byId("emotion-error"),
    );
    onSchemeChange(() => this.#paint());
    this.#showIntensity();
  }

  get labels() {
    return [...this.#buttons.keys()];
  }

  /** Build buttons and policies from the daemon's `hello`; the same ones stay, with their focus. */
  offer({ emotions, policies }) {
    this.#defaults = emotions;
    const labels = Object.keys(emotions);
    if (labels.join() !== this.labels.join()) this.#build(labels);
    const select = byId("policy");
    if ([...select.options].map((option) => option.value).join() === policies.join()) return;
    select.replaceChildren(...policies.map((policy) => new Option(policy, policy)));
    this.#showPolicy();
  }

  /** Show on each button how strongly its emotion is on the face. */
  show(weights) {
    for (const [label, button] of this.#buttons) {
      const weight = (weights[label] ?? 0).toFixed(2);
      if (button.dataset.weight === weight) continue;
      button.dataset.weight = weight;
      button.style.setProperty("--weight", weight);
    }
  }

  /** @returns {object|null} the fields of the message besides the emotion; null if one is invalid */
  options() {
    this.#errors.clear();
    const options = { intensity: Number(byId("intensity").value) / 100, policy: byId("policy").value || "replace" };
    for (const name of TIMES) {
      const value = this.#number(name);
      if (value === undefined) return null;
      if (value !== null) options[`${name}_ms`] = value;
    }
    if (byId("hold-forever").checked) options.hold_ms = null;
    const priority = this.#number("priority");
    if (priority === undefined) return null;
    if (priority !== null) options.priority = priority;
    const mix = [...this.#mix].filter(([, slider]) => slider.value !== "0");
    if (mix.length) options.mix = Object.fromEntries(mix.map(([label, { value }]) => [label, value / 100]));
    return options;
  }

  /** @returns {object|null} the fields of an interrupt; null if one is invalid */
  interruptOptions() {
    this.#errors.clear();
    const fade = this.#number("fade");
    if (fade === undefined) return null;
    return fade === null ? {} : { fade_ms: fade };
  }

  /** Show why the daemon refused. */
  refused(error) {
    this.#errors.show(error);
  }

  /** Go up or down by one step. */
  step(direction) {
    const slider = byId("intensity");
    if (direction > 0) slider.stepUp(2);
    else slider.stepDown(2);
    this.#showIntensity();
  }

  /** A number, null if the field is empty or off, undefined if it is wrong; then it says so. */
  #number(id) {
    const input = byId(id);
    if (input.disabled || (input.value === "" && !input.validity.badInput)) return null;
    if (input.checkValidity()) return Number(input.value);
    const { min, max, step } = input;
    const kind = step === "1" ? "a whole number" : "a number";
    const field = { attack: "attack_ms", hold: "hold_ms", decay: "decay_ms", fade: "fade_ms" }[id] ?? id;
    this.#errors.show({ field, message: `Expected ${kind} from ${min} to ${max}` });
    return undefined;
  }

  #build(labels) {
    this.#buttons.clear();
    this.#mix.clear();
    labels.forEach((label, index) => this.#buttons.set(label, this.#button(label, index + 1)));
    byId("emotions").replaceChildren(...this.#buttons.values(), byId("interrupt"));
    byId("mix-sliders").replaceChildren(...labels.filter((label) => label !== "neutral").map((label) => this.#mixSlider(label)));
    write(byId("keys"), `Keys 1 to ${Math.min(9, labels.length)}`);
    this.#paint();
  }

  #button(label, number) {
    const button = make(
      "button",
      { type: "button", class: "emotion", data: { emotion: label } },
      make("span", {}, label),
    );
    if (number <= 9) {
      button.append(make("kbd", { "aria-hidden": "true" }, String(number)));
      button.setAttribute("aria-keyshortcuts", String(number));
    }
    button.addEventListener("click", () => this.#actions.emotion(label));
    for (const name of ["pointerenter", "focus"]) button.addEventListener(name, () => this.#showDefaults(label));
    return button;
  }

  #mixSlider(label) {
    const output = make("output", {}, "0 %");
    const slider = make("input", { type: "range", min: "0", max: "100", step: "5", value: "0" });
    slider.addEventListener("input", () => {
      output.textContent = `${slider.value} %`;
      fillSlider(slider);
    });
    fillSlider(slider);
    this.#mix.set(label, slider);
    return make("label", { class: "slider", data: { mix: label } }, make("span", {}, label), slider, output);
  }

  #paint() {
    for (const [label, button] of this.#buttons) button.style.setProperty("--tint", colourOf(label));
  }

  #showDefaults(label) {
    for (const name of TIMES) {
      const value = this.#defaults[label]?.[`${name}_ms`];
      byId(name).placeholder = value === undefined || value === null ? "auto" : String(value);
    }
  }

  #showPolicy() {
    write(byId("policy-meaning"), POLICY_MEANINGS[byId("policy").value] ?? "");
  }

  #showIntensity() {
    const slider = byId("intensity");
    write(byId("intensity-value"), `${slider.value} %`);
    fillSlider(slider);
  }
}
