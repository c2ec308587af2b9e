/** A viewer of frames: `avf1` messages of `/v1/frames`, taken apart. */

import { decodeFrame, FrameError } from "./avf1.js";
import { Connection } from "./connection.js";

/**
 * Events:
 * - `frame` (CustomEvent): detail is `{header, image}`, the image still encoded;
 * - `bad` (CustomEvent): detail is the FrameError of a message that is no frame;
 * - `state`: `connection.state` has changed.
 */
export class Viewer extends EventTarget {
  /** @param {string} url of `/v1/frames`, framing `avf1` */
  constructor(url) {
    super();
    this.connection = new Connection(url);
    this.connection.addEventListener("message", (event) => this.#receive(event.data));
    this.connection.addEventListener("state", () => this.dispatchEvent(new Event("state")));
  }

  #receive(data) {
    if (!(data instanceof ArrayBuffer)) return; // text tells of errors; the close that follows counts
    let frame;
    try {
      frame = decodeFrame(data);
    } catch (error) {
      if (!(error instanceof FrameError)) throw error;
      this.dispatchEvent(new CustomEvent("bad", { detail: error }));
      return;
    }
    this.dispatchEvent(new CustomEvent("frame", { detail: frame }));
  }
}
