/** The weights on the face over the last seconds, one line per emotion. */

import { paint, rules } from "./canvas.js";
import { colourOf } from "./palette.js";
import { Ring } from "./ring.js";

const WINDOW_MS = 12_000;
const HOLD_AFTER_MS = 250; // a longer gap means that nothing moved: hold the value, do not slope
const NOTHING = 0.002; // less than a pixel
const HOLD_STEP_MS = 16;
const MAX_SAMPLES = 1_500; // 12 s at 120 fps, and some
const MAX_MARKS = 64;
const DRAW_EVERY_MS = 30;
const PAD = { top: 8, right: 8, bottom: 20, left: 26 };
const BARE = { top: 6, right: 0, bottom: 3, left: 0 };

/** What was on the face lately, on this page's clock. */
export class WeightHistory {
  #clock = new MediaClock();
  samples = new Ring(MAX_SAMPLES); // {at, weights}, oldest first; weights null where the stream broke
  marks = new Ring(MAX_MARKS); // {at, label}
  labels = [];

  /** Add the weights of one frame. */
  push(ptsMs, weights) {
    if (this.#clock.restarted(ptsMs)) this.cut();
    this.samples.push({ at: this.#clock.place(ptsMs, performance.now()), weights });
  }

  /** Mark the frame that first showed a cue. */
  mark(ptsMs, label) {
    const at = this.#clock.at(ptsMs);
    if (at !== null) this.marks.push({ at, label });
  }

  /** The stream broke: leave a gap rather than invent what was on the face. */
  cut() {
    if (this.samples.at(-1)?.weights) this.samples.push({ at: performance.now(), weights: null });
    this.#clock.reset();
  }

  /** Unbroken stretches of one emotion's line, as lists of [time, weight]; rest at zero has no line. */
  runs(label, now) {
    const runs = [];
    let run = null;
    let last = null; // [time, weight] of the sample before, null across a break
    for (const { at, weights } of this.#since(now - WINDOW_MS)) {
      const sent = weights?.[label] ?? 0;
      const weight = sent < NOTHING ? 0 : sent;
      if (weights && (weight > 0 || last?.[1] > 0)) {
        if (!run) runs.push((run = last ? [last] : []));
        if (last && at - last[0] > HOLD_AFTER_MS) run.push([at - HOLD_STEP_MS, last[1]]);
        run.push([at, weight]);
      } else {
        if (run && last[1] > 0) run.push([at, last[1]]);
        run = null;
      }
      last = weights ? [at, weight] : null;
    }
    if (last?.[1] > 0) {
      if (!run) runs.push((run = [last]));
      run.push([now, last[1]]);
    }
    return runs;
  }

  /** With one sample from before, where the line enters from. */
  *#since(start) {
    let first = Math.max(0, this.samples.length - 1);
    while (first > 0 && this.samples.at(first).at >= start) first -= 1;
    for (let index = first; index < this.samples.length; index += 1) yield this.samples.at(index);
  }
}

export class WeightPlot {
  #history;
  #bare;

  /**
   * @param {HTMLCanvasElement} canvas
   * @param {WeightHistory} history
   * @param {{bare?: boolean}} options `bare` for the lines alone, on the picture
   */
  constructor(canvas, history, { bare = false } = {}) {
    this.#history = history;
    this.#bare = bare;
    paint(canvas, (context, view) => this.#draw(context, view), DRAW_EVERY_MS);
  }

  #draw(context, { width, height, now, look }) {
    const pad = this.#bare ? BARE : PAD;
    const area = { left: pad.left, right: width - pad.right, top: pad.top, bottom: height - pad.bottom, look };
    area.x = (at) => area.right - ((now - at) / WINDOW_MS) * (area.right - area.left);
    area.y = (weight) => area.bottom - weight * (area.bottom - area.top);
    if (!this.#bare) this.#drawGrid(context, area);
    context.save();
    context.beginPath();
    context.rect(area.left, 0, area.right - area.left, height);
    context.clip();
    this.#drawMarks(context, area);
    for (const label of this.#history.labels) this.#drawLine(context, label, area, now);
    context.restore();
  }

  #drawGrid(context, area) {
    rules(context, area, [[0, "0"], [0.5, "0.5"], [1, "1"]]);
    const { left, right, bottom } = area;
    for (const seconds of [0, 3, 6, 9, 12]) {
      const at = right - (seconds / 12) * (right - left);
      context.textAlign = seconds === 0 ? "right" : seconds === 12 ? "left" : "center";
      context.fillText(seconds === 0 ? "now" : `−${seconds} s`, at, bottom + 15);
    }
  }

  #drawMarks(context, { left, top, bottom, x }) {
    context.lineWidth = 1;
    context.setLineDash([2, 3]);
    for (const { at, label } of this.#history.marks) {
      if (x(at) < left) continue;
      context.strokeStyle = this.#colour(label);
      context.beginPath();
      context.moveTo(x(at), top);
      context.lineTo(x(at), bottom);
      context.stroke();
    }
    context.setLineDash([]);
  }

  #drawLine(context, label, { x, y, bottom }, now) {
    if (this.#bare && label === "neutral") return;
    const colour = this.#colour(label);
    for (const run of this.#history.runs(label, now)) {
      context.beginPath();
      run.forEach(([at, weight], index) => context[index ? "lineTo" : "moveTo"](x(at), y(weight)));
      context.strokeStyle = colour;
      context.lineWidth = label === "neutral" ? 1.25 : 2;
      context.lineJoin = "round";
      context.stroke();
      if (label === "neutral") continue;
      context.lineTo(x(run.at(-1)[0]), bottom);
      context.lineTo(x(run[0][0]), bottom);
      context.globalAlpha = this.#bare ? 0.22 : 0.1;
      context.fillStyle = colour;
      context.fill();
      context.globalAlpha = 1;
    }
  }

  /** On the picture it is always dark. */
  #colour(label) {
    return this.#bare ? colourOf(label, true) : colourOf(label);
  }
}

/**
 * Where media time lies on this page's clock. The shortest way a frame has taken decides, so that a
 * late message does not bend the line; the slow creep follows clocks that drift apart.
 */
class MediaClock {
  #offset = null;
  #last = -Infinity;

  restarted(ptsMs) {
    return ptsMs < this.#last;
  }

  reset() {
    this.#offset = null;
    this.#last = -Infinity;
  }

  place(ptsMs, now) {
    const way = now - ptsMs;
    this.#offset = this.#offset === null ? way : Math.min(way, this.#offset + 0.02);
    this.#last = ptsMs;
    return ptsMs + this.#offset;
  }

  at(ptsMs) {
    return this.#offset === null ? null : ptsMs + this.#offset;
  }
}
