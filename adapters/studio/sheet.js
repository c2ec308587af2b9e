/** The contact sheet of a character, drawn by the daemon when it is asked for. */

import { byId, write } from "./dom.js";
import { sentence } from "./fields.js";

export class Sheet {
  #api;
  #url = null;
  #asked = 0;

  /** @param {import("./api.js").Api} api */
  constructor(api) {
    this.#api = api;
    byId("sheet").addEventListener("close", () => this.#forget());
  }

  /** @param {{name: string, title: string}} character */
  async open({ name, title }) {
    this.#forget();
    this.#asked += 1;
    const asked = this.#asked;
    write(byId("sheet-title"), `Contact sheet of ${title || name}`);
    write(byId("sheet-note"), "The daemon draws it, beside the frames on stage …");
    byId("sheet").showModal();
    let blob;
    try {
      blob = await this.#api.blob(`v1/characters/${encodeURIComponent(name)}/sheet.jpg`);
    } catch (error) {
      if (asked === this.#asked) write(byId("sheet-note"), sentence(error.message));
      return;
    }
    if (asked !== this.#asked || !byId("sheet").open) return;
    this.#url = URL.createObjectURL(blob);
    const image = byId("sheet-image");
    image.src = this.#url;
    image.alt = `${title || name}: every emotion at four intensities, blinks, glances, jaw and head turns`;
    image.hidden = false;
    Object.assign(byId("sheet-save"), { href: this.#url, download: `${name}.jpg`, hidden: false });
    write(byId("sheet-note"), "");
  }

  #forget() {
    this.#asked += 1;
    byId("sheet-image").hidden = byId("sheet-save").hidden = true;
    byId("sheet-image").removeAttribute("src");
    if (this.#url) URL.revokeObjectURL(this.#url);
    this.#url = null;
  }
}
