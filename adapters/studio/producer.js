/** A producer of events: sends emotions and interrupts, and says which message each answer belongs to. */

import { Connection } from "./connection.js";

const MAX_PENDING = 256;
const ENDINGS = new Set([
  "emotion.finished",
  "emotion.superseded",
  "emotion.expired",
  "emotion.rejected",
  "interrupt.done",
]);

/**
 * Events, all of them CustomEvents:
 * - `hello`: detail is the daemon's `hello`;
 * - `receipt`: detail is `{message, sent, afterMs}`, where `sent` is what was sent under that id (null
 *   for somebody else's) and `afterMs` the time since then;
 * - `state`: `connection.state` has changed; detail is `{unanswered}`, how many cues have lost the
 *   connection that their receipts would have come by.
 */
export class Producer extends EventTarget {
  #pending = new Map();
  #prefix = randomPrefix();
  #count = 0;

  /** @param {string} url of `/v1/events` */
  constructor(url) {
    super();
    this.connection = new Connection(url, {
      heartbeat: () => JSON.stringify({ type: "ping", t: Math.round(performance.now()) }),
    });
    this.connection.addEventListener("message", (event) => this.#receive(event.data));
    this.connection.addEventListener("state", () => this.#stateChanged());
  }

  /**
   * Ask for an emotion.
   *
   * @param {string} emotion label or alias
   * @param {object} options further fields of the message, e.g. `{intensity, policy, hold_ms}`
   * @returns {object|null} the message as sent; null without a connection
   */
  emotion(emotion, options = {}) {
    return this.#send({ type: "emotion", id: this.#nextId(), emotion, ...options });
  }

  /** Fade out everything; returns the message as sent, or null without a connection. */
  interrupt() {
    return this.#send({ type: "interrupt", id: this.#nextId() });
  }

  #nextId() {
    this.#count += 1;
    return `${this.#prefix}-${this.#count}`;
  }

  #send(message) {
    if (!this.connection.send(JSON.stringify(message))) return null;
    this.#pending.set(message.id, { message, at: performance.now() });
    if (this.#pending.size > MAX_PENDING) {
      this.#pending.delete(this.#pending.keys().next().value);
    }
    return message;
  }

  #receive(data) {
    const message = JSON.parse(data);
    if (message.type === "pong") return;
    if (message.type === "hello") {
      this.dispatchEvent(new CustomEvent("hello", { detail: message }));
      return;
    }
    const entry = this.#pending.get(message.id);
    const detail = {
      message,
      sent: entry?.message ?? null,
      sentAt: entry?.at ?? null,
      afterMs: entry ? performance.now() - entry.at : null,
    };
    if (ENDINGS.has(message.type) || message.type === "error") this.#pending.delete(message.id);
    this.dispatchEvent(new CustomEvent("receipt", { detail }));
  }

  #stateChanged() {
    let unanswered = 0;
    if (this.connection.state !== "open") {
      unanswered = this.#pending.size;
      this.#pending.clear();
    }
    this.dispatchEvent(new CustomEvent("state", { detail: { unanswered } }));
  }
}

/** `crypto.randomUUID` is missing where the page is served over plain HTTP to another machine. */
function randomPrefix() {
  const bytes = crypto.getRandomValues(new Uint8Array(6));
  return `studio-${Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("")}`;
}
