/** Tabs as the ARIA practices describe them: arrows move, Home and End jump, one is in the tab order. */

import { recall, remember } from "./memory.js";

export class Tabs {
  #tabs;

  /** @param {HTMLElement} list of tabs, each with `aria-controls` */
  constructor(list) {
    this.#tabs = [...list.querySelectorAll("[role=tab]")];
    list.addEventListener("keydown", (event) => this.#key(event));
    for (const tab of this.#tabs) tab.addEventListener("click", () => this.show(panelOf(tab).id));
    this.show(recall("tab") ?? "");
  }

  /** The ids of the panels, in order. */
  get names() {
    return this.#tabs.map((tab) => panelOf(tab).id);
  }

  /** @param {string} name id of a panel; the first one where there is none of that id */
  show(name) {
    const chosen = this.#tabs.find((tab) => panelOf(tab).id === name) ?? this.#tabs[0];
    for (const tab of this.#tabs) {
      const on = tab === chosen;
      tab.setAttribute("aria-selected", String(on));
      tab.tabIndex = on ? 0 : -1;
      panelOf(tab).hidden = !on;
    }
    document.body.dataset.tab = panelOf(chosen).id;
    remember("tab", panelOf(chosen).id);
    chosen.scrollIntoView({ block: "nearest", inline: "nearest" });
    return chosen;
  }

  #key(event) {
    const at = this.#tabs.indexOf(event.target);
    const last = this.#tabs.length - 1;
    const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: last }[event.key];
    if (at < 0 || to === undefined) return;
    event.preventDefault();
    this.show(panelOf(this.#tabs[(to + last + 1) % (last + 1)]).id).focus();
  }
}

function panelOf(tab) {
  return document.getElementById(tab.getAttribute("aria-controls"));
}
