/** The studio page: wires the session to the panels. */

import { Api } from "./api.js";
import { Being } from "./being.js";
import { Cast } from "./cast.js";
import { Cues } from "./cues.js";
import { byId, make, say, write } from "./dom.js";
import { Emotions } from "./emotions.js";
import { Shortcuts } from "./keys.js";
import { LinkStatus } from "./link.js";
import { MessageLog } from "./log.js";
import { takeToken } from "./memory.js";
import { colourOf, nextTheme, onSchemeChange, theme } from "./palette.js";
import { WeightHistory, WeightPlot } from "./plot.js";
import { Sculpt } from "./sculpt.js";
import { Session } from "./session.js";
import { Sheet } from "./sheet.js";
import { Speak } from "./speak.js";
import { Stages } from "./stages.js";
import { showFacts, showFigures, Statistics } from "./status.js";
import { Tabs } from "./tabs.js";
import { IntervalPlot, LatencyPlot } from "./timing.js";

const FIGURES_EVERY_MS = 250;
const POLL_BUSY_MS = 250;
const POLL_IDLE_MS = 1_000;
const SLOW_POLL_MS = 5_000;
const NOT_FOUND = 404;
const VISIBLE_WEIGHT = 0.05;
const DEGRADED_TIMES = 3; // one late frame is told by the figures alone
const DEGRADED_SHOWN_MS = 2_500; // long enough to be read, also where it was one frame
const CHANGES_CUES = /^(emotion\.(accepted|finished|superseded|expired)|interrupt\.done|text\.clean|(state|mood)\.ok|character\.switched)$/;
const SPOKEN = new Set(["emotion.started", "emotion.rejected", "emotion.expired", "error"]);

const session = new Session(byId("face-canvas"));
const api = new Api(session);
const statistics = new Statistics();
const weights = new WeightHistory();
const log = new MessageLog();
const intervals = new IntervalPlot(byId("intervals"));
const latencies = new LatencyPlot(byId("latencies"));
const emotions = new Emotions({ emotion: askFor, interrupt });
const cues = new Cues();
const being = new Being(session);
new Speak(session);
const sculpt = new Sculpt(session);
const sheet = new Sheet(api);
const cast = new Cast(session, api, sheet);
const stages = new Stages(api, go);
const link = new LinkStatus(session, { statistics, log });
const tabs = new Tabs(byId("tabs"));
const shortcuts = new Shortcuts();
let snapshot = null;
let health = null;
let degraded = null; // why the picture is a fallback, or was a moment ago
let degradedAt = -Infinity;
let degradedTimes = 0;
let polledAt = -Infinity;
let polling = false;
let slowAt = -Infinity;

new WeightPlot(byId("plot"), weights);
new WeightPlot(byId("trace"), weights, { bare: true });

session.addEventListener("open", forget);
session.addEventListener("hello", ({ detail }) => greet(detail));
session.addEventListener("sent", ({ detail }) => log.sent(detail));
session.addEventListener("received", ({ detail }) => answered(detail));
session.addEventListener("frame", ({ detail }) => arrived(detail));
session.addEventListener("drawn", ({ detail }) => shown(detail));
session.addEventListener("link", () => {
  const { state, reason } = session.viewer.connection;
  if (["waiting", "closed"].includes(state)) broken();
  if (state === "refused" && reason?.status === NOT_FOUND) stages.refresh(); // to choose another from
});
cast.addEventListener("change", () => stages.offer(cast.characters));
cast.addEventListener("dropped", () => tabs.show("cast"));
onSchemeChange(() => session.hello && showLegend(weights.labels));
addEventListener("popstate", () => go(new URL(location.href).searchParams.get("stage"), { remembered: true }));
byId("theme").addEventListener("click", () => {
  nextTheme();
  showTheme();
});
bindKeys();
showTheme();
setInterval(() => document.hidden || tick(), FIGURES_EVERY_MS);
const token = takeToken();
session.open({ stage: new URL(location.href).searchParams.get("stage"), token });

// --- where the page is -------------------------------------------------------------------------

/** Watch another stage. The address says which, so that it can be shared. */
function go(stage, { remembered = false } = {}) {
  if (!remembered) {
    const url = new URL(location.href);
    url.searchParams.set("stage", stage);
    history.pushState(null, "", url);
  }
  session.open({ stage });
}

/** Nothing of another stage is shown as if it were of this one. */
function forget() {
  snapshot = degraded = null;
  degradedAt = -Infinity;
  degradedTimes = 0;
  sculpt.letGo();
  cues.update(null);
  broken();
  showDegraded();
  link.update();
}

function broken() {
  statistics.reset();
  weights.cut();
  intervals.cut();
  emotions.show({});
}

function greet(hello) {
  noteDegraded(hello.renderer?.degraded ?? null);
  weights.labels = Object.keys(hello.emotions);
  intervals.fps = hello.fps;
  for (const each of [emotions, being, sculpt, cast]) each.offer(hello);
  showLegend(weights.labels);
  log.received({ message: hello, afterMs: null });
  document.title = hello.stage === "main" ? "Avatar Studio" : `${hello.stage} – Avatar Studio`;
  stages.on(hello.stage);
  stages.refresh();
  cast.on(hello.character);
  cast.refresh();
  polledAt = slowAt = -Infinity;
  tick();
}

// --- what the visitor wants --------------------------------------------------------------------

/** Somebody at a button wants it now: what cannot be sent at once is not sent later either. */
function reachable(label = null) {
  if (session.producer.connected) return true;
  log.event("not sent", "there is no connection", label);
  say("Not sent: there is no connection.");
  return false;
}

function askFor(label) {
  const options = emotions.options();
  if (!options || !reachable(label)) return;
  const { intensity, ...further } = options;
  session.producer.emotion(label, intensity, further).catch((error) => emotions.refused(error));
}

function interrupt() {
  const options = emotions.interruptOptions();
  if (!options || !reachable()) return;
  session.producer.interrupt(options).catch((error) => emotions.refused(error));
}

function bindKeys() {
  for (let number = 1; number <= 9; number += 1) {
    const act = () => emotions.labels[number - 1] && askFor(emotions.labels[number - 1]);
    shortcuts.add(String(number), "Show the first to the ninth emotion", act, number === 1 ? "1 … 9" : "");
  }
  shortcuts.add("Escape", "Interrupt: every cue fades out", interrupt, "Esc");
  shortcuts.add("+", "More intensity", () => emotions.step(1));
  shortcuts.add("-", "Less intensity", () => emotions.step(-1), "−");
  shortcuts.add("t", "Write text", () => {
    tabs.show("speak");
    byId("text").focus();
  }, "T");
  for (const [key, name, what] of [
    ["p", "perform", "Perform"],
    ["c", "sculpt", "Controls"],
    ["a", "cast", "Cast"],
    ["m", "measure", "Measure"],
  ]) shortcuts.add(key, what, () => tabs.show(name).focus(), key.toUpperCase());
  shortcuts.add("/", "Filter the messages", () => byId("log-filter").focus());
  shortcuts.mention("Ctrl Enter", "Send the text");
}

function showTheme() {
  const chosen = theme();
  const button = byId("theme");
  write(button.firstElementChild, { auto: "◐", light: "☀", dark: "☾" }[chosen]);
  button.setAttribute("aria-label", `Theme: ${chosen}`);
  button.title = `Theme: ${chosen}`;
}

// --- what the daemon says ----------------------------------------------------------------------

function answered(receipt) {
  const { message, sentAt } = receipt;
  log.received(receipt);
  if (message.type === "state_snapshot") return;
  const label = log.labelOf(message.id) ?? "neutral";
  if (message.type === "emotion.started" && !message.no_change) {
    weights.mark(message.pts_ms, label);
    latencies.started(message.id, label, message.latency_ms);
  }
  if (message.type === "emotion.started") {
    statistics.started(message, sentAt, (ms) => latencies.seen(message.id, ms));
  }
  if (message.type === "emotion.peaked") latencies.peaked(message.id, message.latency_ms);
  if (message.type === "character.switched") cast.on(message.character);
  if (CHANGES_CUES.test(message.type)) polledAt = -Infinity;
  if (SPOKEN.has(message.type)) {
    say(message.error?.message ?? `${label} ${message.type.split(".")[1]}`);
  }
}

function arrived(frame) {
  statistics.arrived({ ...frame.header, dropped: frame.dropped });
  intervals.push();
  weights.push(frame.header.pts_ms, frame.header.emotion);
}

function shown(header) {
  statistics.drawn(header);
  emotions.show(header.emotion);
  noteDegraded(header.degraded);
  write(byId("caption"), describe(header.emotion));
  link.update();
}

/** The stage's snapshot has what no frame says: cues, mood, viewers, cache. */
async function poll() {
  const { producer } = session;
  polling = true;
  try {
    const found = await producer.getState();
    if (producer !== session.producer) return;
    snapshot = found;
    cues.update(found);
    being.update(found);
    sculpt.update(found);
    cast.on(found.character);
    noteDegraded(found.renderer.degraded);
  } catch {
    // The link says what is wrong with the connection.
  } finally {
    polling = false;
  }
}

async function pollSlowly() {
  slowAt = performance.now();
  const stage = session.stage;
  health = await api.json("health", { query: { stage } }).catch(() => null);
  if (!byId("cast").hidden) {
    await stages.refresh();
    await cast.refresh();
  }
}

function tick() {
  const now = performance.now();
  const every = cues.busy || !byId("sculpt").hidden ? POLL_BUSY_MS : POLL_IDLE_MS;
  if (session.producer.connected && !polling && now - polledAt >= every) {
    polledAt = now;
    poll();
  }
  if (session.producer.connected && now - slowAt >= SLOW_POLL_MS) pollSlowly();
  if (!session.producer.connected && snapshot) {
    snapshot = null;
    cues.update(null);
  }
  link.update();
  const view = { statistics, hello: session.hello, snapshot, health, degraded, skipped: session.skipped };
  showFigures(view);
  if (!byId("measure").hidden) showFacts(view);
}

// --- small things to show ----------------------------------------------------------------------

function describe(face) {
  const strongest = Object.entries(face)
    .filter(([label, weight]) => label !== "neutral" && weight >= VISIBLE_WEIGHT)
    .sort(([, one], [, other]) => other - one);
  if (!strongest.length) return "neutral";
  return strongest.map(([label, weight]) => `${label} ${Math.round(weight * 100)} %`).join("  ·  ");
}

function noteDegraded(reason) {
  const now = performance.now();
  if (reason) {
    [degraded, degradedAt] = [reason, now];
    degradedTimes += 1;
  } else if (now - degradedAt > DEGRADED_SHOWN_MS) {
    degraded = null;
    degradedTimes = 0;
  }
  showDegraded();
}

function showDegraded() {
  byId("degraded").hidden = !degraded || degradedTimes < DEGRADED_TIMES;
  write(byId("degraded"), degraded ? `Fallback picture: ${degraded}` : "");
}

function showLegend(labels) {
  byId("legend").replaceChildren(
    ...labels.map((label) => {
      const entry = make("li", {}, label);
      entry.style.setProperty("--tint", colourOf(label));
      return entry;
    }),
  );
}
