/** What all plots share: a sharp canvas that is drawn only while it can be seen. */

import { onSchemeChange } from "./palette.js";

const REDUCED_STEP_MS = 500;
const REDUCED_MOTION = matchMedia("(prefers-reduced-motion: reduce)");
const painters = new Set();
let running = false;

/**
 * Draw on a canvas, sized by CSS, before every frame of the screen in which it shows.
 *
 * @param {HTMLCanvasElement} canvas
 * @param {(context: CanvasRenderingContext2D, view: {width: number, height: number, now: number,
 *   look: {line: string, text: string, font: string}}) => void} draw in CSS pixels
 * @param {number} everyMs at most so often
 */
export function paint(canvas, draw, everyMs = 0) {
  const context = canvas.getContext("2d");
  let drawnAt = -Infinity;
  let look = null;
  onSchemeChange(() => (look = null));
  new ResizeObserver(() => {
    const ratio = Math.min(devicePixelRatio || 1, 3);
    canvas.width = Math.round(canvas.clientWidth * ratio);
    canvas.height = Math.round(canvas.clientHeight * ratio);
    drawnAt = -Infinity;
  }).observe(canvas);
  painters.add((now) => {
    const pause = Math.max(everyMs, REDUCED_MOTION.matches ? REDUCED_STEP_MS : 0);
    if (now - drawnAt < pause || !canvas.clientWidth || !canvas.width) return;
    drawnAt = now;
    look ??= lookOf(canvas);
    const ratio = canvas.width / canvas.clientWidth;
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, canvas.clientWidth, canvas.clientHeight);
    draw(context, { width: canvas.clientWidth, height: canvas.clientHeight, now, look });
  });
  if (!running) {
    running = true;
    requestAnimationFrame(tick);
  }
}

function tick(now) {
  for (const each of painters) each(now);
  requestAnimationFrame(tick);
}

/** Colours come from CSS: `color` for text, `border-color` for lines. */
function lookOf(canvas) {
  const { color, borderTopColor, fontFamily } = getComputedStyle(canvas);
  return { text: color, line: borderTopColor, font: `11px ${fontFamily}` };
}

/**
 * Horizontal lines with their values at the left.
 *
 * @param {CanvasRenderingContext2D} context
 * @param {{left: number, right: number, y: (value: number) => number, look: object}} area
 * @param {[number, string][]} values
 */
export function rules(context, { left, right, y, look }, values) {
  context.strokeStyle = look.line;
  context.fillStyle = look.text;
  context.font = look.font;
  context.lineWidth = 1;
  context.textAlign = "right";
  context.textBaseline = "middle";
  for (const [value, text] of values) {
    const at = Math.round(y(value)) + 0.5;
    context.beginPath();
    context.moveTo(left, at);
    context.lineTo(right, at);
    context.stroke();
    context.fillText(text, left - 7, at);
  }
  context.textBaseline = "alphabetic";
}
