/**
 * Every control of the face by itself. What is moved is sent again and again, because the daemon lets
 * go of a control one second after the last message; what is not moved stays with the emotions.
 */

import { byId, fillSlider, make, write } from "./dom.js";
import { FieldErrors } from "./fields.js";

const SEND_MS = 33;
const HOLD_MS = 300; // well below the second after which controls lapse
const HEAD = { pitch: "down", yaw: "to the picture's left", roll: "to its right" };
const HEAD_LIMIT = 30; // degrees; the daemon takes 45, a single photo shows about 12 well
const REGIONS = [
  ["Brows", /^brow/],
  ["Gaze", /^eyeLook/],
  ["Eyes", /^eye/],
  ["Cheeks", /^cheek/],
  ["Nose", /^nose/],
  ["Jaw", /^jaw/],
  ["Mouth", /^mouth/],
  ["Tongue", /^tongue/],
  ["Others", /./],
];
const OPEN_FIRST = new Set(["Head pose", "Brows", "Jaw"]);

export class Sculpt {
  #session;
  #sliders = new Map();
  #held = new Map();
  #names = "";
  #sentAt = -Infinity;
  #dirty = false;
  #errors = new FieldErrors({}, byId("sculpt-error"));

  /** @param {import("./session.js").Session} session */
  constructor(session) {
    this.#session = session;
    byId("sculpt-reset").addEventListener("click", () => this.#reset(this.#sliders.keys()));
    for (const id of ["sculpt-mode", "sculpt-weight"]) {
      byId(id).addEventListener("input", () => {
        this.#showWeight();
        this.#dirty = true;
      });
    }
    this.#showWeight();
    setInterval(() => this.#tick(), SEND_MS);
  }

  /** How many controls are held. */
  get held() {
    return this.#held.size;
  }

  /** Build the sliders of `hello`'s controls. */
  offer({ controls }) {
    if (controls.join() === this.#names) return;
    this.#names = controls.join();
    this.#sliders.clear();
    this.#held.clear();
    const left = new Set(controls);
    const groups = [["Head pose", Object.keys(HEAD)]];
    for (const [region, pattern] of REGIONS) {
      const names = [...left].filter((name) => pattern.test(name)).sort(bySides);
      for (const name of names) left.delete(name);
      if (names.length) groups.push([region, names]);
    }
    byId("regions").replaceChildren(...groups.map(([region, names]) => this.#region(region, names)));
    this.#showHeld();
  }

  /** Where each control of the live face is now; those that are not sent are zero. */
  update({ controls }) {
    if (byId("sculpt").hidden) return;
    for (const [name, { row, slider }] of this.#sliders) {
      const share = ((controls[name] ?? 0) - slider.min) / (slider.max - slider.min);
      row.style.setProperty("--live", Math.max(0, Math.min(1, share)).toFixed(3));
    }
  }

  /** Another stage: nothing of the old one is carried over. */
  letGo() {
    this.#reset(this.#sliders.keys());
  }

  #region(region, names) {
    const count = make("span", { class: "count" });
    const reset = make("button", { type: "button", class: "quiet", on: { click: () => this.#reset(names) } }, "Reset");
    reset.setAttribute("aria-label", `Reset ${region}`);
    const rows = names.map((name) => this.#row(name));
    const details = make(
      "details",
      { class: "region", open: OPEN_FIRST.has(region), data: { region } },
      make("summary", {}, make("span", {}, region), make("small", {}, String(names.length)), count),
      make("div", { class: "sliders" }, ...rows),
      reset,
    );
    return details;
  }

  #row(name) {
    const head = name in HEAD;
    const slider = make("input", {
      type: "range",
      min: head ? String(-HEAD_LIMIT) : "0",
      max: head ? String(HEAD_LIMIT) : "1",
      step: head ? "0.5" : "0.01",
      value: "0",
      name,
    });
    const output = make("output", {});
    const text = make("span", { title: head ? `degrees, ${HEAD[name]}` : name }, head ? name : shortName(name));
    const row = make("label", { class: "slider live", data: { control: name } }, text, slider, output);
    slider.setAttribute("aria-label", head ? `${name}, degrees` : name);
    slider.addEventListener("input", () => this.#moved(name, Number(slider.value)));
    slider.addEventListener("dblclick", () => this.#reset([name]));
    this.#sliders.set(name, { row, slider, output });
    this.#show(name);
    return row;
  }

  #moved(name, value) {
    this.#hold(name, value);
    const twin = byId("mirror").checked ? twinOf(name) : null;
    if (twin && this.#sliders.has(twin)) this.#hold(twin, value);
    this.#dirty = true;
    this.#showHeld();
  }

  #hold(name, value) {
    this.#held.set(name, value);
    this.#sliders.get(name).slider.value = value;
    this.#show(name);
  }

  #reset(names) {
    for (const name of [...names]) {
      if (!this.#held.delete(name)) continue;
      this.#sliders.get(name).slider.value = 0;
      this.#show(name);
      this.#dirty = true;
    }
    this.#showHeld();
  }

  /** A hidden page is allowed a timer a second, too seldom to hold a face: it lets go. */
  #tick() {
    const now = performance.now();
    const due = this.#dirty || (this.#held.size && now - this.#sentAt > HOLD_MS);
    const { producer } = this.#session;
    if (!due || document.hidden || !producer?.connected) return;
    this.#dirty = false;
    this.#sentAt = now;
    const weights = {};
    const head = {};
    for (const [name, value] of this.#held) (name in HEAD ? head : weights)[name] = value;
    try {
      producer.controls(weights, { head, mode: byId("sculpt-mode").value, weight: Number(byId("sculpt-weight").value) });
      this.#errors.clear();
    } catch (error) {
      this.#errors.show(error);
    }
  }

  #show(name) {
    const { row, slider, output } = this.#sliders.get(name);
    const held = this.#held.has(name);
    row.dataset.held = String(held);
    fillSlider(slider);
    write(output, held ? (name in HEAD ? `${Number(slider.value)}°` : Number(slider.value).toFixed(2)) : "–");
  }

  #showHeld() {
    const count = this.#held.size;
    write(byId("sculpt-state"), count ? `${count} held, sent until reset` : "the tick on each slider is the live face");
    byId("sculpt-reset").disabled = !count;
    for (const region of byId("regions").children) {
      const held = region.querySelectorAll(".slider[data-held=true]").length;
      region.querySelector("button").hidden = !held;
      write(region.querySelector(".count"), held ? `${held} held` : "");
    }
  }

  #showWeight() {
    const slider = byId("sculpt-weight");
    fillSlider(slider);
    write(slider.parentElement.querySelector("output"), Number(slider.value).toFixed(2));
  }
}

/** `mouthSmileLeft` -> `Smile left`: the region says the rest. */
function shortName(name) {
  const rest = name.replace(/^(brow|eyeLook|eye|cheek|nose|jaw|mouth)(?=[A-Z])/, "");
  const words = rest.replace(/([a-z])([A-Z])/g, "$1 $2").toLowerCase();
  return words.slice(0, 1).toUpperCase() + words.slice(1);
}

/** What comes in two, side by side; then the others. */
function bySides(one, other) {
  const single = (name) => Number(!/(Left|Right)$/.test(name));
  return single(one) - single(other) || one.localeCompare(other);
}

/** The same on the other side. Gaze is a pair of In and Out: both eyes look the same way. */
function twinOf(name) {
  const side = name.endsWith("Left") ? ["Left", "Right"] : name.endsWith("Right") ? ["Right", "Left"] : null;
  if (!side || /^(jaw|mouth)(Left|Right)$/.test(name)) return null;
  const stem = name.slice(0, -side[0].length);
  if (stem === "eyeLookIn") return `eyeLookOut${side[1]}`;
  if (stem === "eyeLookOut") return `eyeLookIn${side[1]}`;
  return stem + side[1];
}
