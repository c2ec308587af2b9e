/** Frames onto a canvas. One is decoded at a time; of those that arrive meanwhile the newest wins. */

export class FacePainter {
  #canvas;
  #context;
  #shown;
  #next = null;
  #busy = false;

  /**
   * @param {HTMLCanvasElement} canvas
   * @param {(header: object) => void} shown called right after a frame was drawn
   */
  constructor(canvas, shown) {
    this.#canvas = canvas;
    this.#context = canvas.getContext("2d", { alpha: false });
    this.#shown = shown;
    /** Frames that came faster than this page could draw them. */
    this.skipped = 0;
    /** Frames whose image could not be decoded. */
    this.broken = 0;
    document.addEventListener("visibilitychange", () => this.#drain());
  }

  /** @param {{header: object, image: Uint8Array}} frame */
  offer(frame) {
    if (this.#next && !document.hidden) this.skipped += 1;
    this.#next = frame;
    this.#drain();
  }

  async #drain() {
    if (this.#busy) return;
    this.#busy = true;
    while (this.#next && !document.hidden) {
      const frame = this.#next;
      this.#next = null;
      await this.#draw(frame);
    }
    this.#busy = false;
  }

  async #draw({ header, image }) {
    let bitmap;
    try {
      bitmap = await createImageBitmap(new Blob([image], { type: `image/${header.format}` }));
    } catch {
      this.broken += 1;
      return;
    }
    this.#fit(bitmap);
    this.#context.drawImage(bitmap, 0, 0);
    bitmap.close();
    this.#canvas.dataset.seq = header.seq;
    this.#shown(header);
  }

  /** Setting a canvas size clears it, so only a real change may do that. */
  #fit({ width, height }) {
    if (this.#canvas.width !== width) this.#canvas.width = width;
    if (this.#canvas.height !== height) this.#canvas.height = height;
  }
}
