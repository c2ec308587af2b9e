/** The log of what was sent and what became of it, newest last, bounded. */

import { colourOf } from "./palette.js";

const MAX_LINES = 200;
const STICKY_PX = 24;

export class ReceiptLog {
  #list;
  #following = true; // until somebody scrolls up to read

  /** @param {HTMLElement} list an `<ol>` that scrolls */
  constructor(list) {
    this.#list = list;
    list.addEventListener("scroll", () => {
      this.#following = list.scrollHeight - list.scrollTop - list.clientHeight < STICKY_PX;
    });
    new ResizeObserver(() => this.#follow()).observe(list);
  }

  clear() {
    this.#following = true;
    this.#list.replaceChildren();
  }

  /** Something that happened by the clock on the wall: sent, lost, restored. */
  event(kind, text, label = null) {
    this.#append(kind, clockTime(), text, label);
  }

  /** An answer of the daemon, timed from the sending of what it answers. */
  receipt({ message, sent, afterMs }) {
    const when = afterMs === null ? clockTime() : `+${duration(afterMs)}`;
    const label = sent?.emotion ?? null;
    this.#append(kindOf(message), when, sentence(message, label ?? "it"), label);
  }

  #append(kind, when, text, label) {
    const list = this.#list;
    const line = element("li", "", "");
    line.dataset.kind = kind;
    if (label) {
      line.dataset.emotion = label;
      line.style.setProperty("--tint", colourOf(label));
    }
    line.append(element("time", "", when), element("b", "", kind), element("span", "", text));
    line.firstChild.title = new Date().toLocaleTimeString();
    list.append(line);
    while (list.childElementCount > MAX_LINES) list.firstElementChild.remove();
    this.#follow();
  }

  #follow() {
    if (this.#following) this.#list.scrollTop = this.#list.scrollHeight;
  }
}

/** Milliseconds as people read them: `14 ms`, `0.26 s`, `3.1 s`. */
export function duration(ms) {
  if (ms < 100) return `${Math.round(ms)} ms`;
  return ms < 1000 ? `${(ms / 1000).toFixed(2)} s` : `${(ms / 1000).toFixed(1)} s`;
}

function kindOf({ type }) {
  return type.replace("emotion.", "").replace("interrupt.done", "interrupted");
}

function sentence(message, label) {
  switch (message.type) {
    case "emotion.accepted":
      return accepted(message);
    case "emotion.started":
    case "emotion.peaked":
      return shown(message);
    case "emotion.finished":
      return `${label} is gone by frame ${message.seq}`;
    case "emotion.superseded":
      return `${label} gave way at frame ${message.seq}`;
    case "emotion.expired":
      return `${label} could not start in time`;
    case "interrupt.done":
      return `at rest by frame ${message.seq} after ${duration(message.latency_ms)}`;
    case "emotion.rejected":
    case "error":
      return refused(message.error);
    default:
      return "";
  }
}

function accepted({ used, intensity, mapped_from: from, clamped, duplicate }) {
  const parts = [`${used} ${Math.round(intensity * 100)} %`];
  if (from) parts.push(`meant by “${from}”`);
  if (clamped) parts.push("brought into range");
  if (duplicate) parts.push("known already");
  return parts.join(", ");
}

function shown({ seq, latency_ms: latency, no_change: unchanged }) {
  const note = unchanged ? ", nothing to change" : "";
  return `frame ${seq} after ${duration(latency)}${note}`;
}

function refused({ message, suggestions }) {
  return suggestions?.length ? `${message} Try ${suggestions.join(", ")}.` : message;
}

function clockTime() {
  return new Date().toLocaleTimeString([], { hour12: false });
}

function element(tag, className, text) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  node.textContent = text;
  return node;
}
