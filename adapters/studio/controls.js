/** What the visitor can ask for: emotion buttons, intensity, timing, policy, interrupt. */

import { colourOf, onSchemeChange } from "./palette.js";

const POLICY_MEANINGS = {
  replace: "Fades out what is on and fades this in.",
  queue: "Starts when what is on has finished.",
  blend: "Adds to what is on; the sum never exceeds 1.",
  override: "Replaces for a while, then resumes what was on.",
};

export class Controls {
  #root;
  #buttons = new Map();
  #defaults = {};

  /**
   * @param {Document|HTMLElement} root holds the elements found below by id
   * @param {{emotion: (label: string) => void, interrupt: () => void}} actions
   */
  constructor(root, actions) {
    this.#root = root;
    this.actions = actions;
    this.#find("interrupt").addEventListener("click", () => actions.interrupt());
    this.#find("intensity").addEventListener("input", () => this.#showIntensity());
    this.#find("policy").addEventListener("change", () => this.#showPolicy());
    this.#find("hold-forever").addEventListener("change", (event) => {
      this.#find("hold").disabled = event.target.checked;
    });
    document.addEventListener("keydown", (event) => this.#key(event));
    onSchemeChange(() => this.#paint());
    this.#showIntensity();
  }

  /** Build buttons and policies from the daemon's `hello`; the same ones stay, with their focus. */
  offer({ emotions, policies }) {
    this.#defaults = emotions;
    const labels = Object.keys(emotions);
    if (labels.join() !== [...this.#buttons.keys()].join()) this.#build(labels);
    this.#offerPolicies(policies);
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
    const options = {
      intensity: Number(this.#find("intensity").value) / 100,
      policy: this.#find("policy").value || "replace",
    };
    for (const name of ["attack", "hold", "decay"]) {
      const input = this.#find(name);
      if (!input.disabled && !input.checkValidity()) {
        this.#find("timing").open = true;
        input.reportValidity();
        return null;
      }
      if (!input.disabled && input.value !== "") options[`${name}_ms`] = Number(input.value);
    }
    if (this.#find("hold-forever").checked) options.hold_ms = null;
    return options;
  }

  #find(id) {
    return this.#root.querySelector(`#${id}`);
  }

  #build(labels) {
    this.#buttons.clear();
    labels.forEach((label, index) => this.#buttons.set(label, this.#button(label, index + 1)));
    this.#find("emotions").replaceChildren(...this.#buttons.values(), this.#find("interrupt"));
    this.#find("keys").textContent = `Keys 1 to ${Math.min(9, labels.length)}`;
    this.#paint();
  }

  #button(label, number) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "emotion";
    button.dataset.emotion = label;
    const name = document.createElement("span");
    name.textContent = label;
    button.append(name);
    if (number <= 9) {
      const key = document.createElement("kbd");
      key.textContent = number;
      key.setAttribute("aria-hidden", "true");
      button.append(key);
      button.setAttribute("aria-keyshortcuts", String(number));
    }
    button.addEventListener("click", () => this.actions.emotion(label));
    button.addEventListener("pointerenter", () => this.#showDefaults(label));
    button.addEventListener("focus", () => this.#showDefaults(label));
    return button;
  }

  #paint() {
    for (const [label, button] of this.#buttons) {
      button.style.setProperty("--tint", colourOf(label));
    }
  }

  #showDefaults(label) {
    for (const name of ["attack", "hold", "decay"]) {
      const value = this.#defaults[label]?.[`${name}_ms`];
      this.#find(name).placeholder = value === undefined || value === null ? "auto" : String(value);
    }
  }

  #offerPolicies(policies) {
    const select = this.#find("policy");
    if ([...select.options].map((option) => option.value).join() === policies.join()) return;
    select.replaceChildren(...policies.map((policy) => new Option(policy, policy)));
    this.#showPolicy();
  }

  #showPolicy() {
    this.#find("policy-meaning").textContent = POLICY_MEANINGS[this.#find("policy").value] ?? "";
  }

  #showIntensity() {
    const slider = this.#find("intensity");
    this.#find("intensity-value").textContent = `${slider.value} %`;
    slider.style.setProperty("--fill", `${slider.value}%`);
  }

  /** Digits trigger emotions and Escape interrupts, except where somebody is typing. */
  #key(event) {
    if (event.ctrlKey || event.altKey || event.metaKey || event.repeat) return;
    if (event.target.matches?.("input:not([type=range], [type=checkbox]), select, textarea")) return;
    if (event.key === "Escape") {
      this.actions.interrupt();
      return;
    }
    const label = /^[1-9]$/.test(event.key) && [...this.#buttons.keys()][Number(event.key) - 1];
    if (label) this.actions.emotion(label);
  }
}
