/** The figures at a glance, counted from what this page has seen and from the stage's snapshots. */

import { byId, duration, make, write } from "./dom.js";

const RATE_WINDOW_MS = 2_000;
const MAX_DRAWN = 300;
const CACHE_WINDOW = 150; // frames, 5 s at 30 fps
const REMEMBERED_FRAMES = 256;

export class Statistics {
  #drawn = []; // times of the last drawn frames
  #cached = []; // of the last frames, which came from the cache
  #onScreen = new Map(); // seq -> time it was drawn
  #awaited = null; // {seq, sentAt, seen} of a cue whose first frame is not drawn yet

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
    if (this.#drawn.length > MAX_DRAWN) this.#drawn.shift();
    this.#onScreen.set(seq, now);
    if (this.#onScreen.size > REMEMBERED_FRAMES) {
      this.#onScreen.delete(this.#onScreen.keys().next().value);
    }
    this.#settle();
  }

  /**
   * A cue has started: remember how long it took, here and on the daemon's side.
   *
   * @param {{seq: number, latency_ms: number}} receipt
   * @param {number|null} sentAt when this page asked for it
   * @param {(ms: number) => void} seen told when its frame was drawn here
   */
  started({ seq, latency_ms: latencyMs }, sentAt, seen = () => {}) {
    this.latencyMs = latencyMs;
    this.onScreenMs = null;
    this.#awaited = sentAt === null ? null : { seq, sentAt, seen };
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
    const { seq, sentAt, seen } = this.#awaited;
    for (const [drawnSeq, drawnAt] of this.#onScreen) {
      if (drawnSeq < seq) continue;
      this.onScreenMs = drawnAt - sentAt;
      this.#awaited = null;
      seen(this.onScreenMs);
      return;
    }
  }
}

/**
 * Write the figures into the elements of that id.
 *
 * @param {{statistics: Statistics, hello: object|null, snapshot: object|null,
 *   degraded: string|null, skipped: number}} view
 */
export function showFigures({ statistics, hello, snapshot, degraded, skipped }) {
  const put = (id, value, note) => {
    write(byId(id), value);
    write(byId(`${id}-note`), note);
  };
  const renderer = snapshot?.renderer ?? hello?.renderer;
  put("renderer", renderer?.name ?? "–", degraded ? "degraded" : (renderer?.device ?? ""));
  byId("renderer").parentElement.dataset.degraded = String(Boolean(degraded));
  byId("renderer").parentElement.title = degraded ?? "What draws the frames";
  put("fps", statistics.lastFrameAt ? statistics.fps().toFixed(0) : "–", hello ? `of ${hello.fps} fps` : "");
  const { latencyMs, onScreenMs } = statistics;
  put(
    "latency",
    latencyMs === null ? "–" : duration(latencyMs),
    onScreenMs === null ? "event to frame" : `seen in ${duration(onScreenMs)}`,
  );
  put("dropped", String(statistics.dropped + skipped), skipped ? `${skipped} by this page` : "frames");
  const share = statistics.cachedShare();
  put("cached", share === null ? "–" : `${Math.round(share * 100)} %`, snapshot ? mebibytes(snapshot.cache.bytes) : "of frames");
  const viewers = Object.entries(snapshot?.viewers ?? {});
  const total = viewers.reduce((sum, [, count]) => sum + count, 0);
  put("viewers", snapshot ? String(total) : "–", viewers.map(([kind]) => kind).join(", ") || "on this stage");
}

/** Everything else that is worth knowing, as a list. */
export function showFacts({ hello, snapshot, health, degraded }) {
  const facts = [];
  if (hello) {
    facts.push(["Server", `${hello.server.replace("/", " ")}, protocol ${hello.protocol}`]);
    facts.push(["Stage", `${hello.stage}, ${hello.width} × ${hello.height} at ${hello.fps} fps`]);
  }
  if (snapshot) {
    const { cache, viewers, renderer, fps, seq } = snapshot;
    const asked = cache.hits + cache.misses;
    facts.push(["Renderer", `${renderer.name} on ${renderer.device}`]);
    facts.push(["State", degraded ? `degraded: ${degraded}` : "as wanted"]);
    facts.push(["Published", `${fps.toFixed(1)} fps, frame ${seq}`]);
    facts.push(["Frame cache", `${cache.entries} frames, ${mebibytes(cache.bytes)}, ${asked ? Math.round((100 * cache.hits) / asked) : 0} % found`]);
    const kinds = Object.entries(viewers).map(([kind, count]) => `${count} ${kind}`);
    facts.push(["Viewers", kinds.join(", ") || "none"]);
  }
  if (health) {
    facts.push(["Graphics card", health.gpu_name ?? (health.gpu_available ? "there is one" : "none")]);
    facts.push(["Up for", uptime(health.uptime_s)]);
  }
  const list = byId("facts");
  const key = facts.map(([name]) => name).join();
  if (list.dataset.key !== key) {
    list.dataset.key = key;
    list.replaceChildren(...facts.map(([name]) => make("div", {}, make("dt", {}, name), make("dd"))));
  }
  facts.forEach(([, text], index) => write(list.children[index].lastChild, text));
}

function mebibytes(bytes) {
  return `${(bytes / 2 ** 20).toFixed(bytes < 10 * 2 ** 20 ? 1 : 0)} MiB`;
}

function uptime(seconds) {
  const minutes = Math.floor(seconds / 60);
  if (minutes < 1) return `${Math.round(seconds)} s`;
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  return hours < 48 ? `${hours} h ${minutes % 60} min` : `${Math.floor(hours / 24)} days`;
}
