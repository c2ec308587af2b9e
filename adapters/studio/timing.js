/** How evenly frames arrive, and how soon the face follows an event. */

import { paint, rules } from "./canvas.js";
import { byId, duration, write } from "./dom.js";
import { colourOf } from "./palette.js";
import { Ring } from "./ring.js";

const INTERVALS = 300; // frames, 10 s at 30 fps
const CUES = 60;
const REST_MS = 500; // a longer gap is a rest: nothing changed, so there was nothing to send
const PAD = { top: 8, right: 8, bottom: 8, left: 40 };
const DRAW_EVERY_MS = 100;
const GOAL_MS = 100;

function areaOf({ width, height, look }, top) {
  const area = { left: PAD.left, right: width - PAD.right, look };
  area.y = (value) => height - PAD.bottom - (Math.min(value, top) / top) * (height - PAD.top - PAD.bottom);
  return area;
}

/** The time between each frame and the one before it, as they arrive here. */
export class IntervalPlot {
  #intervals = new Ring(INTERVALS);
  #last = null;
  #fps = 30;

  /** @param {HTMLCanvasElement} canvas */
  constructor(canvas) {
    paint(canvas, (context, view) => this.#draw(context, view), DRAW_EVERY_MS);
  }

  set fps(fps) {
    this.#fps = fps;
  }

  /** A frame has arrived, now. */
  push() {
    const now = performance.now();
    const since = this.#last === null ? null : now - this.#last;
    this.#last = now;
    if (since !== null && since < REST_MS) this.#intervals.push(since);
  }

  /** The stream broke. */
  cut() {
    this.#last = null;
  }

  #draw(context, view) {
    const goal = 1000 / this.#fps;
    const area = areaOf(view, 3 * goal);
    rules(context, area, [1, 2].map((times) => [times * goal, `${Math.round(times * goal)} ms`]));
    const width = (area.right - area.left) / INTERVALS;
    let index = INTERVALS - this.#intervals.length;
    for (const interval of this.#intervals) {
      context.fillStyle = interval > 1.5 * goal ? colourOf("angry") : colourOf("disgusted");
      const top = area.y(interval);
      context.fillRect(area.left + index * width, top, Math.max(1, width - 0.6), area.y(0) - top);
      index += 1;
    }
    this.#note(goal);
  }

  #note(goal) {
    if (!this.#intervals.length) return;
    const sorted = [...this.#intervals].sort((one, other) => one - other);
    const at = (share) => sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))];
    write(
      byId("intervals-note"),
      `median ${at(0.5).toFixed(1)} ms, p99 ${at(0.99).toFixed(1)} ms of ${goal.toFixed(1)} ms, last ${sorted.length} frames`,
    );
  }
}

/** From each of the last events to the frame that first showed it, and to its peak. */
export class LatencyPlot {
  #cues = new Ring(CUES); // {id, label, started, seen, peaked}

  /** @param {HTMLCanvasElement} canvas */
  constructor(canvas) {
    paint(canvas, (context, view) => this.#draw(context, view), DRAW_EVERY_MS);
  }

  /** @param {string} id of a cue that has started after so many milliseconds */
  started(id, label, ms) {
    this.#cues.push({ id, label, started: ms, seen: null, peaked: null });
  }

  /** It was drawn on this page so many milliseconds after it was asked for. */
  seen(id, ms) {
    this.#change(id, { seen: ms });
  }

  peaked(id, ms) {
    this.#change(id, { peaked: ms });
  }

  #change(id, what) {
    const found = [...this.#cues].findLast?.((cue) => cue.id === id) ?? [...this.#cues].reverse().find((cue) => cue.id === id);
    if (found) Object.assign(found, what);
  }

  #draw(context, view) {
    const cues = [...this.#cues];
    const highest = Math.max(GOAL_MS, ...cues.flatMap(({ started, seen, peaked }) => [started, seen ?? 0, peaked ?? 0]));
    const step = niceStep(highest);
    const area = areaOf(view, Math.ceil(highest / step) * step);
    rules(context, area, Array.from({ length: Math.floor(highest / step) + 1 }, (_, index) => [index * step, duration(index * step)]));
    const width = Math.min(26, (area.right - area.left) / Math.max(12, cues.length));
    cues.forEach((cue, index) => {
      const x = area.right - (cues.length - index - 0.5) * width;
      if (x < area.left) return;
      context.fillStyle = context.strokeStyle = colourOf(cue.label);
      context.globalAlpha = 0.28;
      if (cue.peaked !== null) context.fillRect(x - width / 4, area.y(cue.peaked), width / 2, area.y(0) - area.y(cue.peaked));
      context.globalAlpha = 1;
      context.fillRect(x - width / 4, area.y(cue.started), width / 2, area.y(0) - area.y(cue.started));
      if (cue.seen === null) return;
      context.beginPath();
      context.arc(x, area.y(cue.seen), 3, 0, 7);
      context.stroke();
    });
    if (cues.length) this.#note(cues);
  }

  #note(cues) {
    const sorted = cues.map(({ started }) => started).sort((one, other) => one - other);
    const median = sorted[Math.floor(sorted.length / 2)];
    write(
      byId("latencies-note"),
      `median ${duration(median)}, worst ${duration(sorted.at(-1))} of ${sorted.length}; pale to the peak, ring: seen here`,
    );
  }
}

function niceStep(highest) {
  for (const step of [25, 50, 100, 250, 500, 1000, 2500]) if (highest / step <= 4) return step;
  return 10_000;
}
