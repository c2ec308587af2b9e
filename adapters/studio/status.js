/** The figures at a glance, counted from what this page itself has seen. */

import { duration } from "./receipts.js";

const RATE_WINDOW_MS = 2_000;
const CACHE_WINDOW = 150; // frames, 5 s at 30 fps
const REMEMBERED_FRAMES = 256;

export class Statistics {
  #drawn = []; // times of the last drawn frames
  #cached = []; // of the last frames, which came from the cache
  #onScreen = new Map(); // seq -> time it was drawn
  #awaited = null; // {seq, sentAt} of a cue whose first frame is not drawn yet

  constructor() {
    this.reset();
  }

  /** Begin anew, for a new connection. */
  reset() {
    this.#drawn = [];
    this.#cached = [];
    this.#onScreen.clear();
    this.#awaited = null;
    this.dropped = 0;
    this.latencyMs = null;
    this.onScreenMs = null;
    this.lastFrameAt = null;
  }

  /** A frame has arrived. */
  arrived(header) {
    this.lastFrameAt = performance.now();
    this.dropped = header.dropped ?? 0;
    this.#cached.push(Boolean(header.cached));
    if (this.#cached.length > CACHE_WINDOW) this.#cached.shift();
  }

  /** A frame was drawn. */
  drawn({ seq }) {
    const now = performance.now();
    this.#drawn.push(now);
    this.#onScreen.set(seq, now);
    if (this.#onScreen.size > REMEMBERED_FRAMES) {
      this.#onScreen.delete(this.#onScreen.keys().next().value);
    }
    this.#settle();
  }

  /** A cue has started: remember how long it took, here and on the daemon's side. */
  started({ seq, latency_ms: latencyMs }, sentAt) {
    this.latencyMs = latencyMs;
    this.onScreenMs = null;
    this.#awaited = sentAt === null ? null : { seq, sentAt };
    this.#settle();
  }

  /** Frames per second drawn lately. */
  fps() {
    const start = performance.now() - RATE_WINDOW_MS;
    while (this.#drawn.length && this.#drawn[0] < start) this.#drawn.shift();
    return this.#drawn.length / (RATE_WINDOW_MS / 1000);
  }

  /** Share of the last frames that came from the cache, 0..1; null before the first. */
  cachedShare() {
    if (!this.#cached.length) return null;
    return this.#cached.filter(Boolean).length / this.#cached.length;
  }

  /** The frame and its receipt come by different sockets, in either order; a frame may be skipped. */
  #settle() {
    if (!this.#awaited) return;
    const { seq, sentAt } = this.#awaited;
    for (const [drawnSeq, drawnAt] of this.#onScreen) {
      if (drawnSeq < seq) continue;
      this.onScreenMs = drawnAt - sentAt;
      this.#awaited = null;
      return;
    }
  }
}

/**
 * Write the figures into the elements of that id.
 *
 * @param {Document|HTMLElement} root
 * @param {{statistics: Statistics, hello: object|null, degraded: string|null, skipped: number}} view
 */
export function showFigures(root, { statistics, hello, degraded, skipped }) {
  const put = (id, value, note) => {
    write(root.querySelector(`#${id}`), value);
    write(root.querySelector(`#${id}-note`), note);
  };
  const renderer = hello?.renderer;
  put("renderer", renderer?.name ?? "–", degraded ? "degraded" : (renderer?.device ?? ""));
  root.querySelector("#renderer").parentElement.dataset.degraded = String(Boolean(degraded));
  put("fps", statistics.lastFrameAt ? statistics.fps().toFixed(0) : "–", hello ? `of ${hello.fps} fps` : "");
  const { latencyMs, onScreenMs } = statistics;
  put(
    "latency",
    latencyMs === null ? "–" : duration(latencyMs),
    onScreenMs === null ? "event to frame" : `seen in ${duration(onScreenMs)}`,
  );
  put("dropped", String(statistics.dropped + skipped), skipped ? `${skipped} by this page` : "frames");
  const share = statistics.cachedShare();
  put("cached", share === null ? "–" : `${Math.round(share * 100)} %`, "of frames");
}

function write(node, text) {
  if (node.textContent !== text) node.textContent = text;
}
