/** Who can be shown: pick, add with a portrait, delete, and see a contact sheet. */

import { byId, make, say, write } from "./dom.js";
import { FieldErrors, sentence } from "./fields.js";

const PATH = "v1/characters";
const MAX_BYTES = 16 * 2 ** 20;
const TYPES = ["image/jpeg", "image/png", "image/webp"];
const SURE_MS = 4_000;

export class Cast extends EventTarget {
  #session;
  #api;
  #sheet;
  #characters = [];
  #pictures = new Map(); // thumbnail path -> object URL, of those that are listed
  #current = null;
  #listed = "";
  #file = null;
  #previewUrl = null;
  #labels = "";
  #errors;

  /**
   * Events: `change` when there are others to choose from.
   *
   * @param {import("./session.js").Session} session
   * @param {import("./api.js").Api} api
   * @param {import("./sheet.js").Sheet} sheet
   */
  constructor(session, api, sheet) {
    super();
    this.#session = session;
    this.#api = api;
    this.#sheet = sheet;
    const fields = { name: "new-name", title: "new-title", licence: "new-licence", url: "new-url", idle_seed: "new-seed", portrait: "portrait", gains: "gains" };
    this.#errors = new FieldErrors(
      Object.fromEntries(Object.entries(fields).map(([name, id]) => [name, byId(id)])),
      byId("character-error"),
    );
    byId("character-form").addEventListener("submit", (event) => this.#add(event));
    byId("portrait").addEventListener("change", ({ target }) => this.#choose(target.files[0]));
    byId("character-select").addEventListener("change", ({ target }) => this.show(target.value));
    this.#takeDrops();
  }

  get characters() {
    return this.#characters;
  }

  /** Ask the daemon who there is. */
  async refresh() {
    try {
      const { characters } = await this.#api.json(PATH);
      this.#characters = characters;
    } catch (error) {
      this.#problem(error);
      return;
    }
    byId("characters-error").hidden = true;
    this.#list();
    this.dispatchEvent(new Event("change"));
  }

  /** @param {{emotions: object}} hello whose labels get a gain each */
  offer({ emotions }) {
    const labels = Object.keys(emotions).filter((label) => label !== "neutral");
    if (labels.join() === this.#labels) return;
    this.#labels = labels.join();
    byId("gains").replaceChildren(
      ...labels.map((label) => {
        const input = make("input", { type: "number", min: "0", max: "2", step: "0.05", placeholder: "1", id: `gain-${label}`, name: label });
        return make("div", { class: "field" }, make("label", { for: input.id }, label), input);
      }),
    );
  }

  /** @param {string} name who is on this page's stage */
  on(name) {
    if (name === this.#current) return;
    this.#current = name;
    if (this.#characters.some((each) => each.name === name)) this.#list();
    else this.refresh();
  }

  /** Put a character on the stage. */
  async show(name) {
    const busy = [...byId("characters").querySelectorAll("button")];
    for (const button of busy) button.disabled = true;
    byId("characters-error").hidden = true;
    try {
      await this.#session.producer.character(name);
      this.on(name);
      say(`${name} is on stage.`);
    } catch (error) {
      this.#problem(error);
    }
    this.#listed = "";
    await this.refresh();
  }

  #problem(error) {
    const note = byId("characters-error");
    note.textContent = sentence(error.message);
    note.hidden = false;
    say(note.textContent);
  }

  // --- the list

  #list() {
    const select = byId("character-select");
    const key = JSON.stringify([this.#characters, this.#current]);
    if (key === this.#listed) return;
    this.#listed = key;
    select.replaceChildren(...this.#characters.map(({ name, title }) => new Option(title || name, name)));
    select.value = this.#current ?? "";
    select.disabled = false;
    write(byId("characters-count"), `${this.#characters.length}`);
    const paths = new Set(this.#characters.map((each) => each.thumbnail));
    for (const [path, url] of this.#pictures) {
      if (paths.has(path)) continue;
      URL.revokeObjectURL(url);
      this.#pictures.delete(path);
    }
    byId("characters").replaceChildren(...this.#characters.map((each) => this.#card(each)));
  }

  #card(character) {
    const { name, title, thumbnail, uploaded, stages = [], licence } = character;
    const on = name === this.#current;
    const picture = make("img", { alt: "", width: 96, height: 96, loading: "lazy" });
    this.#fetchPicture(picture, thumbnail);
    const buttons = make("div", { class: "tools" });
    if (!on) buttons.append(this.#button("Put on stage", `Put ${title || name} on stage`, () => this.show(name)));
    buttons.append(this.#button("Contact sheet", `Contact sheet of ${title || name}`, () => this.#sheet.open(character)));
    if (uploaded) buttons.append(sureButton("Delete", `Delete ${title || name}`, () => this.#remove(name)));
    return make(
      "li",
      { data: { character: name, on: String(on) }, title: licence || null },
      picture,
      make(
        "div",
        {},
        make("b", {}, title || name),
        make("small", {}, on ? "on this stage" : stages.length ? `on ${stages.join(", ")}` : name),
        buttons,
      ),
    );
  }

  #button(text, label, call) {
    const button = make("button", { type: "button", class: "quiet", on: { click: call } }, text);
    button.setAttribute("aria-label", label);
    return button;
  }

  /** By fetch, because an `<img>` cannot show a token. */
  async #fetchPicture(image, path) {
    if (!path) return;
    const known = this.#pictures.get(path);
    if (known) {
      image.src = known;
      return;
    }
    try {
      const url = URL.createObjectURL(await this.#api.blob(path.replace(/^\//, "")));
      if (this.#pictures.has(path)) URL.revokeObjectURL(this.#pictures.get(path));
      this.#pictures.set(path, url);
      image.src = url;
    } catch {
      image.dataset.missing = "true";
    }
  }

  async #remove(name) {
    byId("characters-error").hidden = true;
    try {
      await this.#api.json(`${PATH}/${encodeURIComponent(name)}`, { method: "DELETE" });
      say(`${name} is deleted.`);
    } catch (error) {
      this.#problem(error);
    }
    const path = this.#characters.find((each) => each.name === name)?.thumbnail;
    if (path) URL.revokeObjectURL(this.#pictures.get(path));
    this.#pictures.delete(path);
    await this.refresh();
  }

  // --- adding

  #takeDrops() {
    const drop = byId("drop");
    const files = (event) => event.dataTransfer?.types.includes("Files");
    for (const name of ["dragenter", "dragover"]) {
      document.addEventListener(name, (event) => {
        if (!files(event)) return;
        event.preventDefault(); // else the browser leaves the page for the picture
        drop.dataset.over = "true";
      });
    }
    document.addEventListener("dragleave", (event) => {
      if (!event.relatedTarget) delete drop.dataset.over;
    });
    document.addEventListener("drop", (event) => {
      delete drop.dataset.over;
      if (!files(event)) return;
      event.preventDefault();
      this.dispatchEvent(new Event("dropped"));
      byId("new-character").open = true;
      this.#choose(event.dataTransfer.files[0]);
    });
  }

  #choose(file) {
    this.#errors.clear();
    this.#file = null;
    if (this.#previewUrl) URL.revokeObjectURL(this.#previewUrl);
    this.#previewUrl = null;
    byId("preview").hidden = true;
    if (!file) return;
    const problem = this.#unfit(file);
    if (problem) {
      this.#errors.show({ field: "portrait", message: problem });
      return;
    }
    this.#file = file;
    this.#previewUrl = URL.createObjectURL(file);
    byId("preview").querySelector("img").src = this.#previewUrl;
    write(byId("preview").querySelector("figcaption"), `${file.name}, ${(file.size / 2 ** 20).toFixed(2)} MiB`);
    byId("preview").hidden = false;
    if (!byId("new-name").value) byId("new-name").value = nameOf(file.name);
  }

  #unfit({ type, size }) {
    if (!TYPES.includes(type)) return `Expected a JPEG, PNG or WebP file, not ${type || "this"}`;
    if (size > MAX_BYTES) return `Expected at most ${MAX_BYTES / 2 ** 20} MiB`;
    return null;
  }

  async #add(event) {
    event.preventDefault();
    this.#errors.clear();
    const form = this.#form();
    if (!form) return;
    const bar = byId("upload");
    const submit = byId("character-form").querySelector("[type=submit]");
    const stop = byId("upload-stop");
    const { done, abort } = this.#api.upload(PATH, form, (share) => {
      if (share < 1) bar.value = share;
      else bar.removeAttribute("value");
      write(byId("upload-note"), share < 1 ? `${Math.round(share * 100)} %` : "Looking for the face …");
    });
    stop.onclick = abort;
    submit.disabled = true;
    bar.value = 0;
    bar.hidden = stop.hidden = false;
    try {
      this.#added(await done);
    } catch (error) {
      write(byId("upload-note"), "");
      if (error.code !== "aborted") this.#errors.show(error);
    } finally {
      submit.disabled = false;
      bar.hidden = stop.hidden = true;
    }
    await this.refresh();
  }

  /** @returns {FormData|null} null if something is missing or wrong; then it says so */
  #form() {
    const form = new FormData();
    const refuse = (field, message) => {
      this.#errors.show({ field, message });
      return null;
    };
    const url = byId("new-url").value.trim();
    if (!this.#file && !url) return refuse("portrait", "Choose a portrait, or give its address below");
    if (this.#file && url) return refuse("url", "There is a file already; leave one of them out");
    if (!byId("new-name").value.trim()) return refuse("name", "A name is needed");
    if (this.#file) form.set("portrait", this.#file);
    const texts = { url: "new-url", name: "new-name", title: "new-title", licence: "new-licence", idle_seed: "new-seed" };
    for (const [name, id] of Object.entries(texts)) {
      const text = byId(id).value.trim();
      if (byId(id).validity.badInput) return refuse(name, "Expected a whole number");
      if (text) form.set(name, text);
    }
    const gains = {};
    for (const input of byId("gains").querySelectorAll("input")) {
      if (!input.checkValidity()) return refuse("gains", `${input.name}: expected a number from 0 to 2`);
      if (input.value !== "") gains[input.name] = Number(input.value);
    }
    if (Object.keys(gains).length) form.set("gains", JSON.stringify(gains));
    return form;
  }

  #added({ name, warnings = [] }) {
    byId("character-form").reset();
    this.#choose(null);
    const note = [`${name} can be put on stage.`, ...warnings.map(sentence)].join(" ");
    write(byId("upload-note"), note);
    say(note);
  }
}

/** A button that asks once more, in place, before it does what cannot be undone. */
export function sureButton(text, label, call) {
  const button = make("button", { type: "button", class: "quiet danger" }, text);
  button.setAttribute("aria-label", label);
  let timer = 0;
  const calm = () => {
    clearTimeout(timer);
    delete button.dataset.sure;
    button.textContent = text;
    button.setAttribute("aria-label", label);
  };
  button.addEventListener("click", () => {
    if (button.dataset.sure) {
      calm();
      call();
      return;
    }
    button.dataset.sure = "true";
    button.textContent = "Really?";
    button.setAttribute("aria-label", `${label}: press again to do it`);
    timer = setTimeout(calm, SURE_MS);
  });
  button.addEventListener("blur", calm);
  return button;
}

/** A name that messages can use, from that of a file. */
function nameOf(file) {
  return file.replace(/\.[^.]*$/, "").replace(/[^A-Za-z0-9_-]+/g, "-").replace(/^[^A-Za-z0-9]+|-+$/g, "").slice(0, 64).toLowerCase();
}
