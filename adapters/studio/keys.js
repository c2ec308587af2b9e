/** Shortcuts of a single key, the list of them, and the switch that turns them off. */

import { byId, make } from "./dom.js";
import { recall, remember } from "./memory.js";

const TYPING = "input:not([type=range], [type=checkbox]), select, textarea";

export class Shortcuts {
  #keys = new Map();
  #rows = [];

  constructor() {
    const single = byId("single-keys");
    single.checked = recall("single-keys") !== "off";
    single.addEventListener("change", () => remember("single-keys", single.checked ? null : "off"));
    byId("help").addEventListener("click", () => this.open());
    document.addEventListener("keydown", (event) => this.#press(event));
    for (const dialog of document.querySelectorAll("dialog")) {
      dialog.querySelector("[data-close]").addEventListener("click", () => dialog.close());
      dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
    }
    this.add("?", "This list", () => this.open());
  }

  /**
   * @param {string} key as KeyboardEvent has it
   * @param {string} what it does, for the list
   * @param {() => void} action
   * @param {string} shown in the list instead of the key; empty for not at all
   */
  add(key, what, action, shown = key) {
    this.#keys.set(key, action);
    if (shown) this.#rows.push([shown, what]);
  }

  /** Mention something that other code does. */
  mention(shown, what) {
    this.#rows.push([shown, what]);
  }

  open() {
    byId("shortcut-list").replaceChildren(
      ...this.#rows.map(([shown, what]) => {
        const keys = shown.split(" ").map((key) => (key.length > 2 && key === key.toLowerCase() ? key : make("kbd", {}, key)));
        return make("div", {}, make("dt", {}, ...keys.flatMap((key) => [key, " "])), make("dd", {}, what));
      }),
    );
    byId("shortcuts").showModal();
  }

  /** Not where somebody is typing, and not in a dialog, whose own Escape closes it. */
  #press(event) {
    if (event.ctrlKey || event.altKey || event.metaKey || event.repeat || event.defaultPrevented) return;
    if (!byId("single-keys").checked || document.querySelector("dialog[open]")) return;
    if (event.target.matches?.(TYPING)) return;
    const action = this.#keys.get(event.key);
    if (!action) return;
    event.preventDefault();
    action();
  }
}
