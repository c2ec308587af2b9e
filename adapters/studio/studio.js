/** The studio page: wires sockets, face, controls, plot, log and figures together. */

import { Producer, Viewer } from "../client.js";
import { Controls } from "./controls.js";
import { LinkStatus } from "./link.js";
import { colourOf, onSchemeChange } from "./palette.js";
import { WeightPlot } from "./plot.js";
import { ReceiptLog } from "./receipts.js";
import { showFigures, Statistics } from "./status.js";

const FIGURES_EVERY_MS = 250;
const VISIBLE_WEIGHT = 0.05;
const RECEIPTS_SPOKEN = new Set(["emotion.started", "emotion.rejected", "emotion.expired", "error"]);

const byId = (id) => document.getElementById(id);
const asked = new URLSearchParams(location.search);
const access = { stage: asked.get("stage"), token: asked.get("token") };
const QUIET = new Set(["pong", "state_snapshot"]);

const producer = new Producer(document.baseURI, access);
const viewer = new Viewer(document.baseURI, access);
const statistics = new Statistics();
const plot = new WeightPlot(byId("plot"));
const log = new ReceiptLog(byId("log"));
const painter = viewer.drawTo(byId("face-canvas"));
const controls = new Controls(document, { emotion: askFor, interrupt });
const link = new LinkStatus(document, { producer, viewer, statistics, log, say });
let hello = null;
let degraded = null;

producer.addEventListener("hello", ({ detail }) => greet(detail));
producer.addEventListener("received", ({ detail }) => answered(detail));
viewer.addEventListener("frame", ({ detail }) => arrived(detail));
viewer.addEventListener("drawn", ({ detail }) => shown(detail));
viewer.addEventListener("state", () => {
  if (viewer.connection.state !== "waiting") return;
  statistics.reset();
  painter.skipped = 0;
  plot.cut();
  controls.show({});
});
onSchemeChange(() => hello && showLegend(Object.keys(hello.emotions)));
byId("clear").addEventListener("click", () => log.clear());
setInterval(showFiguresNow, FIGURES_EVERY_MS);

function greet(message) {
  hello = message;
  degraded = message.renderer?.degraded ?? null;
  const labels = Object.keys(message.emotions);
  controls.offer(message);
  plot.setLabels(labels);
  showLegend(labels);
  byId("who").firstChild.data = message.character;
  byId("where").textContent = ` on stage ${message.stage}`;
  byId("version").textContent = `${message.server.replace("/", " ")}, protocol ${message.protocol}`;
  showFiguresNow();
}

/** Somebody at a button wants it now: what cannot be sent at once is not sent later either. */
function reachable(label = null) {
  if (producer.connected) return true;
  log.event("not sent", "there is no connection", label);
  say("Not sent: there is no connection.");
  return false;
}

function askFor(label) {
  const options = controls.options();
  if (!options || !reachable(label)) return;
  const { intensity, ...further } = options;
  producer.emotion(label, intensity, further).catch(() => {}); // the log shows what is refused
  const policy = further.policy === "replace" ? "" : `, ${further.policy}`;
  log.event("sent", `${label} ${Math.round(intensity * 100)} %${policy}`, label);
}

function interrupt() {
  if (!reachable()) return;
  producer.interrupt().catch(() => {});
  log.event("sent", "interrupt");
}

function answered(receipt) {
  const { message, sent, sentAt } = receipt;
  if (QUIET.has(message.type)) return;
  log.receipt(receipt);
  if (message.type === "emotion.started") {
    statistics.started(message, sentAt);
    if (!message.no_change) plot.mark(message.pts_ms, sent?.emotion ?? "neutral");
  }
  if (RECEIPTS_SPOKEN.has(message.type)) {
    say(message.error?.message ?? `${sent?.emotion ?? message.id} ${message.type.split(".")[1]}`);
  }
}

function arrived(frame) {
  statistics.arrived(frame.header);
  plot.push(frame.header.pts_ms, frame.header.emotion);
}

function shown(header) {
  statistics.drawn(header);
  controls.show(header.emotion);
  degraded = header.degraded;
  showDegraded();
  const caption = describe(header.emotion);
  if (byId("caption").textContent !== caption) byId("caption").textContent = caption;
  link.update();
}

function describe(weights) {
  const strongest = Object.entries(weights)
    .filter(([label, weight]) => label !== "neutral" && weight >= VISIBLE_WEIGHT)
    .sort(([, one], [, other]) => other - one);
  if (!strongest.length) return "neutral";
  return strongest.map(([label, weight]) => `${label} ${Math.round(weight * 100)} %`).join("  ·  ");
}

function showDegraded() {
  const banner = byId("degraded");
  banner.hidden = !degraded;
  const text = degraded ? `Fallback picture: ${degraded}` : "";
  if (banner.textContent !== text) banner.textContent = text;
}

function showLegend(labels) {
  byId("legend").replaceChildren(
    ...labels.map((label) => {
      const entry = document.createElement("li");
      entry.textContent = label;
      entry.style.setProperty("--tint", colourOf(label));
      return entry;
    }),
  );
}

function showFiguresNow() {
  link.update();
  showFigures(document, { statistics, hello, degraded, skipped: painter.skipped });
}

/** Tell those who cannot see the page. */
function say(text) {
  byId("announce").textContent = text;
}
