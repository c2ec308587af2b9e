/** The messages both ways, and what happened to the connection: newest last, bounded. */

import { byId, copy, duration, make, say } from "./dom.js";
import { colourOf } from "./palette.js";
import { recall, remember } from "./memory.js";
import { Ring } from "./ring.js";
import { receivedSentence, sentSentence } from "./sentences.js";

const MAX_KEPT = 1_000;
const MAX_LINES = 200;
const MAX_LABELS = 512;
const MAX_JSON = 2_000; // characters kept of one message
const STICKY_PX = 24;
const ARROWS = { sent: "→", received: "←", page: "•" };
const POLLS = new Set(["get_state", "state_snapshot", "ping", "pong"]);
const BAD = new Set(["emotion.rejected", "error", "emotion.expired", "offline", "not sent"]);

export class MessageLog {
  #list = byId("log");
  #entries = new Ring(MAX_KEPT);
  #shown = new WeakMap(); // line -> its entry
  #labels = new Map(); // id of a cue -> its emotion
  #controls = null; // the newest entry, while it is one of controls
  #following = true; // until somebody scrolls up to read
  #paused = false;
  #raw = recall("log-raw") === "on";
  #missed = 0;

  constructor() {
    const list = this.#list;
    list.addEventListener("scroll", () => {
      this.#following = list.scrollHeight - list.scrollTop - list.clientHeight < STICKY_PX;
    });
    new ResizeObserver(() => this.#follow()).observe(list);
    for (const id of ["log-kind", "log-filter"]) byId(id).addEventListener("input", () => this.#rebuild());
    byId("log-pause").addEventListener("click", () => this.#pause(!this.#paused));
    byId("log-raw").addEventListener("click", () => this.#showRaw(!this.#raw));
    byId("log-copy").addEventListener("click", () => this.#copy());
    byId("clear").addEventListener("click", () => this.clear());
    this.#showRaw(this.#raw);
  }

  clear() {
    this.#entries.clear();
    this.#controls = null;
    this.#following = true;
    this.#pause(false);
  }

  /** Something that happened to the page itself: lost, restored, not sent. */
  event(kind, text, label = null) {
    this.#add({ way: "page", kind, text, label, json: "" });
  }

  /** A message has gone out. */
  sent(message) {
    const label = message.emotion ?? null;
    if (message.type === "emotion") this.#note(message.id, message.emotion ?? Object.keys(message.mix ?? {})[0]);
    const entry = { way: "sent", kind: message.type, text: sentSentence(message), label, json: json(message) };
    if (message.type !== "controls") {
      this.#add(entry);
      return;
    }
    // Thirty of them a second: they share a line until something else happens.
    const last = this.#controls;
    if (!last) {
      this.#add({ ...entry, times: 1 });
      this.#controls = this.#entries.at(-1);
      return;
    }
    Object.assign(last, entry, { times: last.times + 1 });
    if (!this.#paused && last.line) this.#fill(last);
  }

  /** An answer has come, `afterMs` after what it answers; null if it answers nothing known. */
  received({ message, afterMs }) {
    for (const cue of message.cues ?? []) this.#note(cue.id, cue.emotion);
    const label = message.used ?? this.#labels.get(message.id) ?? null;
    const text = receivedSentence(message, label ?? "it");
    this.#add({ way: "received", kind: message.type, text, label, json: json(message), afterMs });
  }

  /** The emotion of a cue that this page knows of. */
  labelOf(id) {
    return this.#labels.get(id) ?? null;
  }

  #note(id, label) {
    this.#labels.set(id, label);
    if (this.#labels.size > MAX_LABELS) this.#labels.delete(this.#labels.keys().next().value);
  }

  /** Polls would soon be all that is kept, so they are only while somebody wants to see them. */
  #add(entry) {
    if (POLLS.has(entry.kind) && byId("log-kind").value !== "polls") return;
    entry.at = new Date();
    entry.line = null;
    this.#controls = null;
    this.#entries.push(entry);
    if (this.#paused) {
      this.#missed += 1;
      byId("log-pause").textContent = `Resume (${Math.min(this.#missed, MAX_KEPT)})`;
    } else if (this.#wanted(entry)) {
      this.#append(entry);
      this.#follow();
    }
  }

  #wanted({ way, kind, text, label, json: raw }) {
    const show = byId("log-kind").value;
    if (POLLS.has(kind) && show !== "polls") return false;
    if ((show === "sent" || show === "received") && way !== show) return false;
    if (show === "errors" && !BAD.has(kind)) return false;
    const filter = byId("log-filter").value.trim().toLowerCase();
    return !filter || [kind, text, label, raw].some((each) => each?.toLowerCase().includes(filter));
  }

  #append(entry) {
    const line = make("li", {}, make("time"), make("i", { "aria-hidden": "true" }), make("b"), make("span"));
    entry.line = line;
    this.#shown.set(line, entry);
    this.#fill(entry);
    this.#list.append(line);
    while (this.#list.childElementCount > MAX_LINES) {
      const oldest = this.#list.firstElementChild;
      oldest.remove();
      this.#shown.get(oldest).line = null;
    }
  }

  #fill(entry) {
    const { line, way, kind, text, label, afterMs = null, times = 1, at } = entry;
    const [time, arrow, name, body] = line.children;
    const clock = at.toLocaleTimeString([], { hour12: false });
    line.dataset.way = way;
    line.dataset.kind = kind.replace("emotion.", "");
    line.dataset.bad = String(BAD.has(kind));
    if (label) {
      line.dataset.emotion = label;
      line.style.setProperty("--tint", colourOf(label));
    }
    time.textContent = afterMs === null ? clock : `+${duration(afterMs)}`;
    time.title = clock;
    arrow.textContent = ARROWS[way];
    name.textContent = kind.replace("emotion.", "") + (times > 1 ? ` ×${times}` : "");
    body.textContent = this.#raw && entry.json ? entry.json : text;
  }

  #rebuild() {
    for (const entry of this.#entries) entry.line = null;
    this.#list.replaceChildren();
    const wanted = [...this.#entries].filter((entry) => this.#wanted(entry)).slice(-MAX_LINES);
    for (const entry of wanted) this.#append(entry);
    const filtered = byId("log-filter").value.trim() || byId("log-kind").value !== "all";
    this.#list.dataset.empty = filtered && this.#entries.length
      ? "Nothing that fits the filter."
      : "Choose an emotion, and what the daemon makes of it appears here.";
    this.#following = true;
    this.#follow();
  }

  #pause(paused) {
    this.#paused = paused;
    this.#missed = 0;
    const button = byId("log-pause");
    button.setAttribute("aria-pressed", String(paused));
    button.textContent = paused ? "Resume" : "Pause";
    if (!paused) this.#rebuild();
  }

  #showRaw(raw) {
    this.#raw = raw;
    remember("log-raw", raw ? "on" : null);
    byId("log-raw").setAttribute("aria-pressed", String(raw));
    this.#list.dataset.raw = String(raw);
    this.#rebuild();
  }

  async #copy() {
    const lines = [...this.#entries]
      .filter((entry) => this.#wanted(entry))
      .map(({ at, way, kind, text, json: raw }) => `${at.toISOString()} ${ARROWS[way]} ${raw || `${kind}: ${text}`}`);
    const button = byId("log-copy");
    try {
      await copy(lines.join("\n"));
      button.textContent = "Copied";
      say(`${lines.length} lines are copied.`);
    } catch {
      button.textContent = "No access";
    }
    setTimeout(() => (button.textContent = "Copy"), 1_500);
  }

  #follow() {
    if (this.#following) this.#list.scrollTop = this.#list.scrollHeight;
  }
}

function json(message) {
  const text = JSON.stringify(message);
  return text.length > MAX_JSON ? `${text.slice(0, MAX_JSON)}…` : text;
}
