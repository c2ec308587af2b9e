/** Errors shown where they belong: at the field, and read out with it. */

import { make } from "./dom.js";

let made = 0;

export class FieldErrors {
  #fields;
  #general;
  #notes = new Map();

  /**
   * @param {Object<string, HTMLElement>} fields name in the daemon's errors -> input
   * @param {HTMLElement} general for what belongs to no field
   */
  constructor(fields, general) {
    this.#fields = fields;
    this.#general = general;
    general.setAttribute("role", "alert");
    for (const input of new Set(Object.values(fields))) {
      for (const name of ["input", "change"]) input.addEventListener(name, () => this.#clear(input));
    }
  }

  /** @param {{message: string, field?: string|null, suggestions?: string[]}} error */
  show({ message, field = null, suggestions = [] }) {
    this.clear();
    const text = sentence(suggestions?.length ? `${message}. Try ${suggestions.join(", ")}` : message);
    const input = field && this.#fields[field.split(".")[0]];
    if (!input) {
      this.#general.textContent = text;
      this.#general.hidden = false;
      return;
    }
    const note = this.#note(input);
    note.textContent = text;
    note.hidden = false;
    input.setAttribute("aria-invalid", "true");
    input.closest("details")?.setAttribute("open", "");
    input.focus();
  }

  clear() {
    for (const input of this.#notes.keys()) this.#clear(input);
    this.#general.textContent = "";
    this.#general.hidden = true;
  }

  #clear(input) {
    input.removeAttribute("aria-invalid");
    const note = this.#notes.get(input);
    if (note) note.hidden = true;
  }

  #note(input) {
    let note = this.#notes.get(input);
    if (!note) {
      made += 1;
      note = make("p", { class: "error", id: `field-error-${made}`, role: "alert" });
      (input.closest(".field, .drop") ?? input).append(note);
      const described = input.getAttribute("aria-describedby");
      input.setAttribute("aria-describedby", described ? `${described} ${note.id}` : note.id);
      this.#notes.set(input, note);
    }
    return note;
  }
}

/** A sentence of the daemon's, as this page writes them. */
export function sentence(text) {
  const plain = text.replaceAll("`", "");
  return `${plain.slice(0, 1).toUpperCase()}${plain.slice(1)}${/[.!?…]$/.test(plain) ? "" : "."}`;
}
