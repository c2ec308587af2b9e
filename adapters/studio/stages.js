/** The stages of the daemon: pick one to watch and play with, open and close them. */

import { sureButton } from "./cast.js";
import { byId, make, say, write } from "./dom.js";
import { FieldErrors, sentence } from "./fields.js";

const PATH = "v1/stages";
const NUMBERS = { fps: "stage-fps", width: "stage-width", height: "stage-height", jpeg_quality: "stage-quality" };

export class Stages {
  #api;
  #go;
  #stages = [];
  #current = null;
  #listed = "";
  #errors;

  /**
   * @param {import("./api.js").Api} api
   * @param {(name: string) => void} go watch another stage
   */
  constructor(api, go) {
    this.#api = api;
    this.#go = go;
    const fields = { name: "stage-name", character: "stage-character", ...NUMBERS };
    this.#errors = new FieldErrors(
      Object.fromEntries(Object.entries(fields).map(([name, id]) => [name, byId(id)])),
      byId("stage-error"),
    );
    byId("stage-form").addEventListener("submit", (event) => this.#open(event));
    byId("stage-select").addEventListener("change", ({ target }) => go(target.value));
  }

  /** Ask the daemon which there are. */
  async refresh() {
    try {
      const { stages, limit } = await this.#api.json(PATH);
      this.#stages = stages;
      write(byId("stages-count"), `${stages.length} of ${limit}`);
    } catch (error) {
      this.#problem(error);
      return;
    }
    byId("stages-error").hidden = true;
    this.#list();
  }

  /** @param {string} name the stage that this page is about */
  on(name) {
    this.#current = name;
    if (this.#stages.some((each) => each.name === name)) this.#list();
    else this.refresh();
  }

  /** @param {{name: string, title: string}[]} characters who can be on a new stage */
  offer(characters) {
    const select = byId("stage-character");
    const chosen = select.value;
    select.replaceChildren(new Option("as on main", ""), ...characters.map(({ name, title }) => new Option(title || name, name)));
    select.value = characters.some(({ name }) => name === chosen) ? chosen : "";
  }

  #problem(error) {
    const note = byId("stages-error");
    note.textContent = sentence(error.message);
    note.hidden = false;
  }

  #list() {
    const key = JSON.stringify([this.#stages, this.#current]);
    if (key === this.#listed) return;
    const select = byId("stage-select");
    const names = this.#stages.map((each) => each.name).join();
    if ([...select.options].map((option) => option.value).join() !== names) {
      select.replaceChildren(...this.#stages.map(({ name }) => new Option(name, name)));
    }
    select.value = this.#current ?? "";
    select.disabled = false;
    this.#listed = key;
    const focused = document.activeElement?.closest("#stages li")?.dataset.stage;
    byId("stages").replaceChildren(...this.#stages.map((each) => this.#row(each)));
    if (focused) byId("stages").querySelector(`li[data-stage="${CSS.escape(focused)}"] button`)?.focus();
  }

  #row({ name, character, fps, width, height, viewers, degraded, made }) {
    const on = name === this.#current;
    const buttons = make("div", { class: "tools" });
    if (!on) {
      const watch = make("button", { type: "button", class: "quiet", on: { click: () => this.#go(name) } }, "Watch");
      watch.setAttribute("aria-label", `Watch stage ${name}`);
      buttons.append(watch);
    }
    if (made) buttons.append(sureButton("Close", `Close stage ${name}`, () => this.#close(name)));
    const facts = `${character} · ${width} × ${height} at ${fps} fps · ${viewers} watching`;
    const row = make(
      "li",
      { data: { stage: name, on: String(on) } },
      make("div", {}, make("b", {}, name), make("small", {}, on ? `this one · ${facts}` : facts)),
      buttons,
    );
    if (degraded) row.firstChild.append(make("small", { class: "warn" }, `degraded: ${degraded}`));
    return row;
  }

  async #open(event) {
    event.preventDefault();
    this.#errors.clear();
    const body = { name: byId("stage-name").value.trim() };
    if (!body.name) {
      this.#errors.show({ field: "name", message: "A name is needed" });
      return;
    }
    if (byId("stage-character").value) body.character = byId("stage-character").value;
    for (const [field, id] of Object.entries(NUMBERS)) {
      const input = byId(id);
      if (!input.checkValidity()) {
        const even = input.step === "2" ? "an even number" : "a number";
        this.#errors.show({ field, message: `Expected ${even} from ${input.min} to ${input.max}` });
        return;
      }
      if (input.value !== "") body[field] = Number(input.value);
    }
    await this.#ask(body);
  }

  async #ask(body) {
    const submit = byId("stage-form").querySelector("[type=submit]");
    submit.disabled = true;
    write(byId("stage-note"), "Preparing the portrait …");
    try {
      await this.#api.json(PATH, { method: "POST", body });
      byId("stage-form").reset();
      write(byId("stage-note"), `${body.name} is open.`);
    } catch (error) {
      write(byId("stage-note"), "");
      this.#errors.show(error);
    }
    submit.disabled = false;
    await this.refresh();
  }

  async #close(name) {
    try {
      await this.#api.json(`${PATH}/${encodeURIComponent(name)}`, { method: "DELETE" });
      say(`Stage ${name} is closed.`);
      if (name === this.#current) this.#go("main");
    } catch (error) {
      this.#problem(error);
      return;
    }
    await this.refresh();
  }
}
