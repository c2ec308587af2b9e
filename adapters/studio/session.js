/** One stage at a time: the sockets to it, and everything that comes over them. */

import { Producer, Viewer } from "../client.js";

const REST_AFTER_MS = 15_000;

/**
 * Events: `open` (another stage or token), `hello`, `sent`, `received`, `frame` and `drawn` with the
 * details of client.js; `link` when the state of either socket has changed or a reason is known.
 */
export class Session extends EventTarget {
  #canvas;
  #painter = null;
  #restTimer = 0;
  #skippedBefore = 0;

  /** @param {HTMLCanvasElement} canvas where the face is drawn */
  constructor(canvas) {
    super();
    this.#canvas = canvas;
    this.producer = null;
    this.viewer = null;
    /** @type {string|null} null for the default stage */
    this.stage = null;
    this.token = null;
    /** Whether frames are left alone because nobody looks. */
    this.resting = false;
    document.addEventListener("visibilitychange", () => this.#lookedAt());
  }

  get hello() {
    return this.producer?.hello ?? null;
  }

  /** Frames that came faster than this page could draw them. */
  get skipped() {
    return this.#skippedBefore + (this.#painter?.skipped ?? 0);
  }

  /** Talk to another stage, or with another token. */
  open({ stage = this.stage, token = this.token } = {}) {
    this.#leave();
    this.stage = stage;
    this.token = token;
    this.resting = false;
    const producer = new Producer(document.baseURI, { stage, token });
    const viewer = new Viewer(document.baseURI, { stage, token });
    this.producer = producer;
    this.viewer = viewer;
    this.#painter = viewer.drawTo(this.#canvas);
    this.#pass(producer, ["hello", "sent", "received"], () => producer === this.producer);
    this.#pass(viewer, ["frame", "drawn"], () => viewer === this.viewer);
    for (const { connection } of [producer, viewer]) {
      for (const name of ["state", "reason"]) {
        connection.addEventListener(name, () => this.#linkChanged(connection));
      }
    }
    this.dispatchEvent(new Event("open"));
  }

  #leave() {
    this.producer?.close({ timeoutMs: 0 }).catch(() => {});
    this.viewer?.close();
    this.#painter?.stop();
    this.#skippedBefore = 0;
  }

  #pass(from, names, current) {
    for (const name of names) {
      from.addEventListener(name, ({ detail }) => {
        if (current()) this.dispatchEvent(new CustomEvent(name, { detail }));
      });
    }
  }

  #linkChanged(connection) {
    const { producer, viewer } = this;
    if (connection !== producer.connection && connection !== viewer.connection) return;
    if (connection === producer.connection && connection.silent) viewer.connection.restart();
    this.dispatchEvent(new Event("link"));
  }

  /** A page that nobody looks at takes no frames after a while; it keeps talking, for its cues. */
  #lookedAt() {
    clearTimeout(this.#restTimer);
    if (document.hidden) {
      this.#restTimer = setTimeout(() => {
        this.resting = true;
        this.viewer?.connection.close();
      }, REST_AFTER_MS);
    } else if (this.resting) {
      this.resting = false;
      this.viewer?.connection.open();
    }
  }
}
