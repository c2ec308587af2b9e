/** A plot of the weights on the face over the last seconds, one line per emotion. */

import { colourOf, onSchemeChange } from "./palette.js";

const WINDOW_MS = 12_000;
const HOLD_AFTER_MS = 250; // a longer gap means that nothing moved: hold the value, do not slope
const NOTHING = 0.002; // less than a pixel
const HOLD_STEP_MS = 16;
const REDUCED_STEP_MS = 500;
const PAD = { top: 8, right: 8, bottom: 20, left: 26 };
const REDUCED_MOTION = matchMedia("(prefers-reduced-motion: reduce)");

export class WeightPlot {
  #canvas;
  #context;
  #labels = [];
  #samples = []; // {at, weights}, oldest first; weights null where the stream broke
  #marks = []; // {at, label}
  #clock = new MediaClock();
  #drawnAt = -Infinity;
  #look = null;

  /** @param {HTMLCanvasElement} canvas sized by CSS */
  constructor(canvas) {
    this.#canvas = canvas;
    this.#context = canvas.getContext("2d");
    new ResizeObserver(() => this.#resize()).observe(canvas);
    onSchemeChange(() => (this.#look = null));
    const tick = (now) => {
      this.#draw(now);
      requestAnimationFrame(tick);
    };
    requestAnimationFrame(tick);
  }

  /** Set which emotions are plotted, in drawing order. */
  setLabels(labels) {
    this.#labels = [...labels];
  }

  /** Add the weights of one frame. */
  push(ptsMs, weights) {
    const now = performance.now();
    if (this.#clock.restarted(ptsMs)) this.cut();
    this.#samples.push({ at: this.#clock.place(ptsMs, now), weights });
    this.#forget(now);
  }

  /** Mark the frame that first showed a cue. */
  mark(ptsMs, label) {
    const at = this.#clock.at(ptsMs);
    if (at !== null) this.#marks.push({ at, label });
  }

  /** The stream broke: leave a gap rather than invent what was on the face. */
  cut() {
    if (this.#samples.at(-1)?.weights) {
      this.#samples.push({ at: performance.now(), weights: null });
    }
    this.#clock.reset();
  }

  /** Keeps one sample from before the window, where the line enters from. */
  #forget(now) {
    const start = now - WINDOW_MS;
    let old = 0;
    while (old + 1 < this.#samples.length && this.#samples[old + 1].at < start) old += 1;
    if (old) this.#samples.splice(0, old);
    while (this.#marks.length && this.#marks[0].at < start) this.#marks.shift();
  }

  #resize() {
    const ratio = Math.min(devicePixelRatio || 1, 3);
    this.#canvas.width = Math.round(this.#canvas.clientWidth * ratio);
    this.#canvas.height = Math.round(this.#canvas.clientHeight * ratio);
    this.#look = null;
  }

  #draw(now) {
    const pause = REDUCED_MOTION.matches ? REDUCED_STEP_MS : 0;
    if (this.#look && now - this.#drawnAt < pause) return;
    this.#drawnAt = now;
    this.#look ??= readLook(this.#canvas);
    const frame = this.#frame(now);
    this.#context.clearRect(0, 0, this.#canvas.width, this.#canvas.height);
    this.#drawGrid(frame);
    this.#drawMarks(frame);
    for (const label of this.#labels) this.#drawLine(label, frame, now);
  }

  #frame(now) {
    const ratio = this.#canvas.width / Math.max(1, this.#canvas.clientWidth);
    const left = PAD.left * ratio;
    const right = this.#canvas.width - PAD.right * ratio;
    const top = PAD.top * ratio;
    const bottom = this.#canvas.height - PAD.bottom * ratio;
    return {
      ratio, left, right, top, bottom,
      x: (at) => right - ((now - at) / WINDOW_MS) * (right - left),
      y: (weight) => bottom - weight * (bottom - top),
    };
  }

  #drawGrid({ ratio, left, right, bottom, y }) {
    const context = this.#context;
    context.strokeStyle = this.#look.line;
    context.fillStyle = this.#look.text;
    context.font = `${11 * ratio}px ${this.#look.font}`;
    context.lineWidth = ratio;
    context.textAlign = "right";
    context.textBaseline = "middle";
    for (const weight of [0, 0.5, 1]) {
      const at = Math.round(y(weight)) + ratio / 2;
      context.beginPath();
      context.moveTo(left, at);
      context.lineTo(right, at);
      context.stroke();
      context.fillText(String(weight), left - 7 * ratio, at);
    }
    context.textBaseline = "alphabetic";
    for (const seconds of [0, 3, 6, 9, 12]) {
      const at = right - (seconds / 12) * (right - left);
      context.textAlign = seconds === 0 ? "right" : seconds === 12 ? "left" : "center";
      context.fillText(seconds === 0 ? "now" : `−${seconds} s`, at, bottom + 15 * ratio);
    }
  }

  #drawMarks({ ratio, left, top, bottom, x }) {
    const context = this.#context;
    context.lineWidth = ratio;
    context.setLineDash([2 * ratio, 3 * ratio]);
    for (const { at, label } of this.#marks) {
      if (x(at) < left) continue;
      context.strokeStyle = colourOf(label);
      context.beginPath();
      context.moveTo(x(at), top);
      context.lineTo(x(at), bottom);
      context.stroke();
    }
    context.setLineDash([]);
  }

  #drawLine(label, frame, now) {
    const context = this.#context;
    const colour = colourOf(label);
    context.save();
    context.beginPath();
    context.rect(frame.left, 0, frame.right - frame.left, this.#canvas.height);
    context.clip();
    for (const run of this.#runs(label, now)) {
      context.beginPath();
      run.forEach(([at, weight], index) => {
        const place = index ? "lineTo" : "moveTo";
        context[place](frame.x(at), frame.y(weight));
      });
      context.strokeStyle = colour;
      context.lineWidth = (label === "neutral" ? 1.25 : 2) * frame.ratio;
      context.lineJoin = "round";
      context.stroke();
      if (label === "neutral") continue;
      context.lineTo(frame.x(run.at(-1)[0]), frame.bottom);
      context.lineTo(frame.x(run[0][0]), frame.bottom);
      context.globalAlpha = 0.1;
      context.fillStyle = colour;
      context.fill();
      context.globalAlpha = 1;
    }
    context.restore();
  }

  /** Unbroken stretches of one emotion's line, as lists of [time, weight]; rest at zero has no line. */
  #runs(label, now) {
    const runs = [];
    let run = null;
    let last = null; // [time, weight] of the sample before, null across a break
    for (const { at, weights } of this.#samples) {
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
    if (run && last[1] > 0) run.push([now, last[1]]);
    return runs;
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

function readLook(canvas) {
  const style = getComputedStyle(canvas);
  return {
    line: style.getPropertyValue("--line").trim(),
    text: style.getPropertyValue("--faint").trim(),
    font: style.fontFamily,
  };
}
