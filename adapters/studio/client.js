/**
 * Avatar Orchestrator's client for browsers: one module, no dependencies, served at `/client.js`.
 *
 *     import { Producer, Viewer } from "/client.js";
 *     const producer = new Producer();
 *     const cue = await producer.emotion("happy", 0.7);   // accepted, or EmotionRejected
 *     await cue.started;                                   // the frame that first shows it
 *     await cue.ended;                                     // finished, superseded or expired
 *     new Viewer().drawTo(document.querySelector("canvas"));
 *
 * Both reconnect by themselves. What is not settled then is sent again with the same ids, which the
 * daemon takes once. Messages and answers have the protocol's own field names; times are milliseconds.
 */

const FIRST_DELAY_MS = 400;
const MAX_DELAY_MS = 5_000;
const HEARTBEAT_MS = 5_000;
const SILENCE_MS = 8_000;
const UPGRADE_REQUIRED = 426;
const FINAL_STATUSES = new Set([400, 401, 403, 404]);
const MESSAGE_TOO_BIG = 1009;
const MAX_PENDING = 128;
const REMEMBERED_MS = 570_000; // the daemon knows an id for ten minutes
const REMEMBERED_IDS = 4_096;
const BURST = 100; // messages; the daemon takes 200 at once and 200 a second
const BURST_PAUSE_MS = 600;
const CONTROLS_LAPSE_MS = 1_000;
const MAX_TEXTS = 64;
const MAX_TEXT_CUES = 256;
const CLOSE_MS = 2_000;
const MAGIC = "AVF1";
const PREFIX_BYTES = 8;
const ENDINGS = new Set(["emotion.finished", "emotion.superseded", "emotion.expired"]);
const HERE = new URL(".", import.meta.url).href;

// --- errors ---------------------------------------------------------------------------------

/** Root of what this client throws. */
export class ClientError extends Error {
  get name() {
    return this.constructor.name;
  }
}

/** There is no connection, and trying again does not help; `status` is the daemon's answer. */
export class ConnectError extends ClientError {
  constructor(message, status = null) {
    super(message);
    this.status = status;
  }
}

/** The client was closed. */
export class ClosedError extends ClientError {}

/** Too much waits for an answer already; this was not sent. */
export class FullError extends ClientError {}

/** The answer went with a lost connection and cannot be asked for again. */
export class ReceiptLostError extends ClientError {}

/** A message that is not an `avf1` frame. */
export class FrameError extends ClientError {}

/** The daemon refused a message; nothing has changed. */
export class RequestError extends ClientError {
  /** @param {{code?: string, message?: string, field?: string, suggestions?: string[]}} error */
  constructor({ code = "unknown", message = "", field = null, suggestions = [] } = {}) {
    super(message);
    this.code = code;
    this.field = field;
    this.suggestions = suggestions;
  }
}

/** The daemon did not accept an emotion; what is on the face stays. */
export class EmotionRejected extends RequestError {}

/** A cue ended (`ended`) before it had started or peaked. */
export class NotShownError extends ClientError {
  constructor(id, wanted, ended) {
    super(`the cue ${id} was ${ended.kind}${ended.by ? ` by ${ended.by}` : ""} before it had ${wanted}`);
    this.ended = ended;
  }
}

// --- codecs: no I/O -------------------------------------------------------------------------

/**
 * Take one frame message apart: "AVF1", header length (uint32, little-endian), header (JSON), image.
 *
 * @param {ArrayBuffer} message one binary WebSocket message
 * @returns {{header: object, image: Uint8Array}} the header as sent; the image still encoded, and
 *   sharing the message's memory
 * @throws {FrameError} the message is not an `avf1` frame
 */
export function decodeFrame(message) {
  if (message.byteLength < PREFIX_BYTES) {
    throw new FrameError(`a frame needs at least ${PREFIX_BYTES} bytes, got ${message.byteLength}`);
  }
  if (String.fromCharCode(...new Uint8Array(message, 0, MAGIC.length)) !== MAGIC) {
    throw new FrameError("not an avf1 frame");
  }
  const headerBytes = new DataView(message).getUint32(MAGIC.length, true);
  const imageStart = PREFIX_BYTES + headerBytes;
  if (imageStart > message.byteLength) {
    throw new FrameError(`the header wants ${headerBytes} bytes and the message is shorter`);
  }
  return {
    header: parseHeader(new Uint8Array(message, PREFIX_BYTES, headerBytes)),
    image: new Uint8Array(message, imageStart),
  };
}

function parseHeader(bytes) {
  let header;
  try {
    header = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch (cause) {
    throw new FrameError("the header is not JSON", { cause });
  }
  if (header === null || typeof header !== "object" || Array.isArray(header)) {
    throw new FrameError("the header is not an object");
  }
  return header;
}

/**
 * The end of a text that is neither in the clean answer nor in a tag: what the daemon holds back
 * because it may become a tag, and forgets with the connection.
 *
 * @param {string} text what it had held back before, and the delta that it read then
 * @param {string} clean what it answered
 * @param {number[]} ats for each tag, how many code points of `clean` come before it
 * @returns {string|null} null if these do not belong together
 */
export function heldBack(text, clean, ats) {
  const points = Array.from(clean);
  let at = 0;
  let done = 0;
  for (const [index, tagAt] of [...ats, points.length].entries()) {
    const piece = points.slice(done, tagAt).join("");
    if (!text.startsWith(piece, at)) return null;
    at += piece.length;
    done = tagAt;
    if (index === ats.length) break;
    const closer = { "[": "]", "<": text[at + 1] === "|" ? "|>" : ">" }[text[at]];
    const end = closer ? text.indexOf(closer, at) : -1;
    if (end < 0) return null;
    at = end + closer.length;
  }
  return text.slice(at);
}

/**
 * Address of an endpoint, `ws:` for `http:` and `wss:` for `https:`.
 *
 * @param {string} path relative to `base`, e.g. `v1/events`
 * @param {Object<string, string|number|null|undefined>} query empty values are left out
 * @param {string} base address of the daemon, below a path where a proxy wants that
 */
export function socketUrl(path, query = {}, base = HERE) {
  const url = new URL(path, base.endsWith("/") ? base : `${base}/`);
  url.protocol = { "https:": "wss:", "http:": "ws:" }[url.protocol] ?? url.protocol;
  url.search = "";
  url.hash = "";
  for (const [name, value] of Object.entries(query)) {
    if (value) url.searchParams.set(name, value);
  }
  return url.href;
}

// --- one WebSocket that comes back by itself --------------------------------------------------

/**
 * Delay before the next attempt: doubles up to 5 s, and takes a random 50 to 100 % of that, so that
 * many pages do not come back in step.
 *
 * @param {number} failures attempts that have failed in a row, from 0
 * @param {number} chance in [0, 1)
 */
export function backoffMs(failures, chance = Math.random()) {
  const full = Math.min(MAX_DELAY_MS, FIRST_DELAY_MS * 2 ** Math.min(failures, 16));
  return full * (0.5 + chance / 2);
}

/**
 * Events:
 * - `state`: `.state` has changed to `connecting`, `open`, `waiting` (until `.retryAt`), `refused`
 *   (for good, unless `retryNow` is called) or `closed`;
 * - `reason`: `.reason` says why there is no connection;
 * - `message`: MessageEvent of the socket, in order.
 */
export class Connection extends EventTarget {
  #heartbeat;
  #socket = null;
  #timer = 0;
  #failures = 0;
  #lastHeard = 0;
  #asked = 0;

  /**
   * @param {string} url
   * @param {{heartbeat?: () => string}} options `heartbeat` makes a text message that the peer answers
   */
  constructor(url, { heartbeat = null } = {}) {
    super();
    this.url = url;
    this.#heartbeat = heartbeat;
    /** @type {"connecting"|"open"|"waiting"|"refused"|"closed"} */
    this.state = "closed";
    /** When the next attempt starts, on the clock of `performance.now()`. */
    this.retryAt = 0;
    /** Whether the last attempt got as far as an open socket. */
    this.reached = false;
    /** Whether the peer fell silent, so that whatever else runs to it is likely gone too. */
    this.silent = false;
    /** Close code of the last socket. */
    this.closeCode = 0;
    /** Why there is no connection, as far as that can be found out; null if it is not known. */
    this.reason = null;
  }

  /** Connect, and stay connected until `close`. */
  open() {
    if (this.state === "closed") this.#connect();
  }

  /** End for good. */
  close() {
    this.#drop();
    this.#enter("closed");
  }

  /** Do not wait out the back-off, or try again though the daemon has refused. */
  retryNow() {
    if (this.state === "waiting" || this.state === "refused") this.#connect();
  }

  /** Give the present socket up for lost and connect again. */
  restart() {
    if (this.state === "open" || this.state === "connecting") this.#lost();
  }

  /** @returns {boolean} whether the text was handed to an open socket */
  send(text) {
    if (this.state !== "open") return false;
    this.#socket.send(text);
    return true;
  }

  #connect() {
    this.#drop();
    this.reached = false;
    this.silent = false;
    const socket = new WebSocket(this.url);
    socket.binaryType = "arraybuffer";
    socket.onopen = () => this.#opened();
    socket.onmessage = (event) => this.#heard(event);
    socket.onclose = (event) => this.#lost(event.code);
    this.#socket = socket;
    this.#enter("connecting");
  }

  #opened() {
    this.reached = true;
    this.reason = null;
    this.#lastHeard = performance.now();
    this.#asked = 0;
    if (this.#heartbeat) this.#timer = setInterval(() => this.#beat(), HEARTBEAT_MS);
    this.#enter("open");
  }

  #heard(event) {
    this.#failures = 0; // a message, not the mere handshake, proves that the peer is well
    this.#lastHeard = performance.now();
    this.dispatchEvent(new MessageEvent("message", { data: event.data }));
  }

  /** Timers of a hidden page are late, so silence counts from the question, not from the last beat. */
  #beat() {
    const now = performance.now();
    const unanswered = this.#asked > this.#lastHeard;
    if (unanswered && now - this.#asked > SILENCE_MS) {
      this.silent = true;
      this.#lost();
    } else if (!unanswered) {
      this.#asked = now;
      this.send(this.#heartbeat());
    }
  }

  #lost(code = 0) {
    this.closeCode = code;
    this.#drop();
    const delay = backoffMs(this.#failures);
    this.#failures += 1;
    this.retryAt = performance.now() + delay;
    this.#timer = setTimeout(() => this.#connect(), delay);
    this.#enter("waiting");
    if (!this.reached) this.#ask();
  }

  /** A refused handshake tells a page nothing; the same question over HTTP gets an answer. */
  async #ask() {
    let reason;
    try {
      reason = await reasonOf(await fetch(this.url.replace(/^ws/, "http"), { cache: "no-store" }));
    } catch {
      reason = new ConnectError("The daemon does not answer, or does not allow this page");
    }
    if (this.state === "open" || this.state === "closed") return;
    this.reason = reason;
    this.dispatchEvent(new Event("reason"));
    if (FINAL_STATUSES.has(reason?.status)) {
      this.#drop();
      this.#enter("refused");
    }
  }

  #drop() {
    clearTimeout(this.#timer);
    clearInterval(this.#timer);
    const socket = this.#socket;
    this.#socket = null;
    if (!socket) return;
    socket.onopen = socket.onmessage = socket.onclose = null;
    socket.close();
  }

  #enter(state) {
    this.state = state;
    this.dispatchEvent(new Event("state"));
  }
}

/** Why the daemon refuses; null where a socket would be welcome by now. */
async function reasonOf(answer) {
  const { status } = answer;
  if (answer.ok || status === UPGRADE_REQUIRED) return null;
  if (status === 401) {
    return new ConnectError("This daemon wants its token: open the page with ?token=… in the address", 401);
  }
  const body = await answer.json().catch(() => null);
  const text = body?.error?.message ?? `The daemon answers ${status}`;
  return new ConnectError(text[0].toUpperCase() + text.slice(1), status);
}

// --- receipts -------------------------------------------------------------------------------

/** A promise that others settle; nobody has to wait for it. */
function receipt() {
  const made = Promise.withResolvers ? Promise.withResolvers() : withResolvers();
  made.promise.catch(() => {});
  return made;
}

function withResolvers() {
  const made = {};
  made.promise = new Promise((resolve, reject) => Object.assign(made, { resolve, reject }));
  return made;
}

/**
 * An emotion on the daemon's timeline.
 *
 * - `id`, `emotion` (canonical label), `intensity`; `accepted`: all that the daemon said, null for a
 *   tag of a text;
 * - `started`, `peaked`: promises of `{seq, pts_ms, latency_ms, no_change}`; they reject with
 *   NotShownError if the cue ended before;
 * - `ended`: promise of `{kind: "finished" | "superseded" | "expired", by, seq, pts_ms}`.
 */
export class Cue {
  #receipts = { started: receipt(), peaked: receipt(), ended: receipt() };

  constructor(id, emotion, intensity, accepted = null) {
    this.id = id;
    this.emotion = emotion;
    this.intensity = intensity;
    this.accepted = accepted;
    for (const [name, { promise }] of Object.entries(this.#receipts)) this[name] = promise;
  }

  /** Take one receipt of the daemon; the producer calls it. */
  take(message) {
    const { started, peaked, ended } = this.#receipts;
    const { type, id, ...what } = message;
    if (type === "emotion.started") started.resolve(what);
    if (type === "emotion.peaked") {
      started.reject(new ReceiptLostError(`the start of ${id} was lost with the connection`));
      peaked.resolve(what);
    }
    if (!ENDINGS.has(type)) return;
    const end = { kind: type.split(".")[1], by: null, seq: null, pts_ms: null, ...what };
    started.reject(new NotShownError(id, "started", end));
    peaked.reject(new NotShownError(id, "peaked", end));
    ended.resolve(end);
  }

  /** No receipt comes any more; the producer calls it. */
  fail(error) {
    for (const each of Object.values(this.#receipts)) each.reject(error);
  }
}

// --- producer -------------------------------------------------------------------------------

/**
 * Tells one stage what to show.
 *
 * Methods return promises that settle when the daemon has answered. While there is no connection they
 * wait for one; `signal` (an AbortSignal) withdraws a message that did not go out yet.
 *
 * Events (CustomEvents): `hello` (detail is the daemon's hello), `sent` (the message), `received`
 * (`{message, sent, sentAt, afterMs}`: `sent` is what it answers, or null), `state`.
 */
export class Producer extends EventTarget {
  #maxPending;
  #ledger = [];
  #unsent = [];
  #texts = new Map();
  #textCues = new Map();
  #textId = null;
  #usedIds = new Set();
  #controls = null;
  #controlsError = null;
  #prefix = randomPrefix();
  #count = 0;
  #greeted = false;
  #connections = 0;
  #looking = false;
  #window = { start: 0, count: 0 };
  #flushTimer = 0;
  #error = null;
  #ready = receipt();

  /**
   * @param {string} url of the daemon, `http(s):` or `ws(s):`; by default where this module came from
   * @param {{token?: string, stage?: string, maxPending?: number}} options
   */
  constructor(url = HERE, { token, stage, maxPending = MAX_PENDING } = {}) {
    super();
    this.#maxPending = maxPending;
    /** The daemon's last hello: emotions, policies and more; null before the first. */
    this.hello = null;
    /** Promise of the first hello; rejects with ConnectError if the daemon refuses. */
    this.ready = this.#ready.promise;
    this.connection = new Connection(socketUrl("v1/events", { stage, token }, url), {
      heartbeat: () => JSON.stringify({ type: "ping", t: null }),
    });
    this.connection.addEventListener("message", (event) => this.#heard(event.data));
    this.connection.addEventListener("state", () => this.#stateChanged());
    this.connection.open();
  }

  /** Whether messages go out at once. */
  get connected() {
    return this.#greeted;
  }

  /**
   * Show an emotion.
   *
   * @param {string|null} emotion label or alias; null where `options.mix` says it all
   * @param {number} intensity 0 to 1
   * @param {object} options `mix, attack_ms, hold_ms, decay_ms, at_ms, policy, priority, ttl_ms, id`
   *   as in the protocol, and `signal`
   * @returns {Promise<Cue>} once it is accepted; rejects with EmotionRejected
   */
  emotion(emotion, intensity = 1, { signal, id, ...options } = {}) {
    const message = { type: "emotion", id: id ?? this.#newId(), intensity, ...options };
    if (emotion !== null && emotion !== undefined) message.emotion = emotion;
    return this.#ask(message, { signal });
  }

  /**
   * Send the next piece of a text with emotion tags in it; they may be cut anywhere.
   *
   * @param {string} delta
   * @param {{id?: string, final?: boolean}} options without `id`, the text that was begun without one
   * @returns {Promise<{text: string, cues: Cue[], at: number[]}>} what is clear by now, without tags
   */
  text(delta, { id, final = false, signal } = {}) {
    if (id === undefined) {
      id = this.#textId ?? this.#newId();
      this.#textId = final ? null : id;
    }
    return this.#ask({ type: "text", id, delta, final }, { key: `text ${id}`, signal });
  }

  /** Send the last piece of a text, if there is more, and get what was held back. */
  textFinal(delta = "", options = {}) {
    return this.text(delta, { ...options, final: true });
  }

  /**
   * Send a text as it streams from an LLM, and pass on what is left of it without tags.
   *
   * @param {AsyncIterable<string>|Iterable<string>|ReadableStream<string>} deltas
   * @returns {AsyncGenerator<{text: string, cues: Cue[], at: number[]}>}
   */
  async *pipe(deltas) {
    const id = this.#newId();
    let ended = false;
    try {
      for await (const delta of iterable(deltas)) {
        const piece = await this.text(delta, { id });
        if (piece.text || piece.cues.length) yield piece;
      }
      ended = true;
      const rest = await this.textFinal("", { id });
      if (rest.text || rest.cues.length) yield rest;
    } finally {
      if (!ended) this.textFinal("", { id }).catch(() => {}); // left early: nobody wants the rest
    }
  }

  /** Say what the character is doing: `idle`, `listening`, `thinking` or `speaking`. */
  state(state, { signal } = {}) {
    return this.#ask({ type: "state", id: this.#newId(), state }, { signal });
  }

  /** Set the slow layer under the emotions, both from -1 to 1. */
  mood(valence, arousal = 0, { signal, ...options } = {}) {
    return this.#ask({ type: "mood", id: this.#newId(), valence, arousal, ...options }, { signal });
  }

  /**
   * Drive ARKit blendshapes (0 to 1) and the head (degrees). The daemon does not answer: the newest
   * counts, and what found no connection within a second is forgotten.
   *
   * @param {Object<string, number>} weights
   * @param {{head?: {pitch?: number, yaw?: number, roll?: number}, mode?: "set"|"add", weight?: number}} options
   * @throws {RequestError} the daemon refused an earlier call
   * @throws {ClosedError|ConnectError} there is no daemon to wait for any more
   */
  controls(weights = {}, options = {}) {
    const over = this.#over();
    if (over) throw over;
    const error = this.#controlsError;
    this.#controlsError = null;
    if (error) throw error;
    const message = { type: "controls", id: `${this.#prefix}-c`, weights, ...options };
    this.#controls = { message, at: performance.now() };
    this.#flush();
  }

  /** Fade out every cue and empty the queue; settles when the last has left the face. */
  interrupt({ signal, ...options } = {}) {
    return this.#ask({ type: "interrupt", id: this.#newId(), ...options }, { signal });
  }

  /** Show another character; settles when it is on the face. */
  character(character, { signal } = {}) {
    return this.#ask({ type: "character", id: this.#newId(), character }, { signal });
  }

  /** The stage's snapshot, as GET `/v1/state` has it. */
  getState({ signal } = {}) {
    return this.#ask({ type: "get_state", id: this.#newId() }, { signal });
  }

  /** Milliseconds to the daemon and back; rejects with ReceiptLostError if the connection is lost. */
  ping({ signal } = {}) {
    const id = this.#newId();
    return this.#ask({ type: "ping", t: id }, { key: `ping ${id}`, repeatable: false, signal });
  }

  /** Hang up, after unanswered messages had their time; what is awaited then rejects with ClosedError. */
  async close({ timeoutMs = CLOSE_MS } = {}) {
    this.#error ??= new ClosedError("the producer is closed");
    const answers = this.#ledger.filter((each) => !each.answered).map((each) => each.promise);
    let timer = 0;
    const timeUp = new Promise((resolve) => {
      timer = setTimeout(resolve, timeoutMs);
    });
    if (answers.length) await Promise.race([Promise.allSettled(answers), timeUp]);
    clearTimeout(timer);
    this.#failAll(this.#error);
    this.connection.close();
  }

  // --- asking

  #newId() {
    this.#count += 1;
    return `${this.#prefix}-${this.#count}`;
  }

  /** Why there is no daemon to wait for any more; null while there may be one. */
  #over() {
    return this.#error ?? (this.connection.state === "refused" ? this.connection.reason : null);
  }

  /** An id counts once: the daemon says of the second only that it knows it. */
  #noteId(id) {
    this.#usedIds.add(id);
    if (this.#usedIds.size > REMEMBERED_IDS) {
      this.#usedIds.delete(this.#usedIds.values().next().value);
    }
  }

  /** Why this cannot be sent, whatever the daemon thinks of it; null if it can. */
  #wrong(message, key) {
    if ("id" in message && !/^[ -~]{1,64}$/.test(message.id)) {
      const problem = "an id is a string of 1 to 64 printable ASCII characters";
      return new RequestError({ code: "invalid_message", message: problem, field: "id" });
    }
    if (this.#usedIds.has(key)) {
      const problem = `${key} was used; take another id`;
      return new RequestError({ code: "id_reused", message: problem, field: "id" });
    }
    if (this.#ledger.length >= this.#maxPending) {
      return new FullError(
        `${this.#maxPending} messages and cues wait for their answers; wait for some`,
      );
    }
    return null;
  }

  #ask(message, { key = message.id, repeatable = true, signal = undefined } = {}) {
    const wrong = this.#over() ?? this.#wrong(message, key);
    if (wrong) return Promise.reject(wrong);
    if (signal?.aborted) return Promise.reject(signal.reason);
    const request = { key, message, repeatable, sentAt: null, acceptedAt: null, cue: null };
    Object.assign(request, receipt(), { answered: false, received: false });
    const abort = () => this.#withdraw(request, signal.reason);
    signal?.addEventListener("abort", abort, { once: true });
    const forget = () => signal?.removeEventListener("abort", abort);
    request.promise.then(forget, forget);
    if (message.type === "emotion") this.#noteId(key);
    this.#ledger.push(request);
    this.#unsent.push(request);
    this.#flush();
    return request.promise.then((value) => value); // unlike a receipt's, its rejection is to be seen
  }

  #withdraw(request, reason) {
    request.reject(reason);
    request.answered = true;
    // Answers of one text are told apart by their order, so this one's is still awaited.
    if (request.message.type === "text" && request.sentAt !== null) return;
    this.#drop(request);
    if (!this.#unsent.includes(request)) return;
    this.#unsent = this.#unsent.filter((each) => each !== request);
    this.#usedIds.delete(request.key);
  }

  #flush() {
    clearTimeout(this.#flushTimer);
    if (!this.#greeted || this.#looking) return;
    while (this.#unsent.length) {
      const now = performance.now();
      if (now - this.#window.start > BURST_PAUSE_MS) this.#window = { start: now, count: 0 };
      if (this.#window.count >= BURST) {
        this.#flushTimer = setTimeout(() => this.#flush(), BURST_PAUSE_MS);
        return;
      }
      this.#window.count += 1;
      const request = this.#unsent.shift();
      request.sentAt = now;
      this.#send(request.message.type === "text" ? this.#withHeld(request.message) : request.message);
    }
    const controls = this.#controls;
    this.#controls = null;
    if (controls && performance.now() - controls.at < CONTROLS_LAPSE_MS) this.#send(controls.message);
  }

  #send(message) {
    this.connection.send(JSON.stringify(message));
    this.dispatchEvent(new CustomEvent("sent", { detail: message }));
  }

  // --- what is not settled

  #find(key) {
    return this.#ledger.find((each) => each.key === key) ?? null;
  }

  #drop(request) {
    this.#ledger = this.#ledger.filter((each) => each !== request);
  }

  /** The first answer has come, so whatever was sent before has been received, too. */
  #answer(request, value) {
    request.answered = true;
    request.resolve(value);
    this.#markReceivedBefore(request);
  }

  #settle(request, value) {
    this.#answer(request, value);
    this.#drop(request);
  }

  #markReceivedBefore(request) {
    for (const earlier of this.#ledger) {
      if (earlier === request) return;
      earlier.received = earlier.sentAt !== null;
    }
  }

  #fail(request, error) {
    this.#drop(request);
    request.answered = true;
    request.reject(error);
    request.cue?.fail(error);
  }

  #failAll(error) {
    for (const request of this.#ledger.slice()) this.#fail(request, error);
    for (const cue of this.#textCues.values()) cue.fail(error);
    this.#textCues.clear();
    this.#unsent = [];
    this.#ready.reject(error);
  }

  // --- connections

  #stateChanged() {
    const { state } = this.connection;
    if (state !== "open") {
      this.#greeted = this.#looking = false;
      if (this.connection.closeCode === MESSAGE_TOO_BIG) this.#failLargest();
    }
    if (state === "refused") this.#failAll(this.connection.reason);
    this.dispatchEvent(new CustomEvent("state"));
  }

  /** The daemon hung up on a message because of its size: that one must not be sent again. */
  #failLargest() {
    const suspects = this.#ledger.filter((each) => !each.answered && each.sentAt !== null);
    const size = (request) => JSON.stringify(request.message).length;
    suspects.sort((one, other) => size(other) - size(one));
    const error = { code: "too_large", message: "the daemon does not take messages of this size" };
    if (suspects.length) this.#fail(suspects[0], new RequestError(error));
    this.connection.closeCode = 0;
  }

  #greet(hello) {
    this.hello = hello;
    this.#connections += 1;
    this.#greeted = true;
    if (this.#connections > 1) {
      for (const text of this.#texts.values()) text.carry = true;
      for (const cue of this.#textCues.values()) {
        cue.fail(new ReceiptLostError(`the receipts of ${cue.id} were lost with the connection`));
      }
      this.#textCues.clear();
    }
    // An interrupt has no memory in the daemon: sent twice, it would end what came after it.
    const interrupts = this.#ledger.some(
      ({ message, sentAt }) => message.type === "interrupt" && sentAt !== null,
    );
    this.#looking = this.#connections > 1 && interrupts;
    if (this.#looking) this.connection.send(JSON.stringify({ type: "get_state", id: this.#prefix }));
    else this.#sendAgain(new Set());
    this.#ready.resolve(hello);
    this.dispatchEvent(new CustomEvent("hello", { detail: hello }));
  }

  #sendAgain(onStage) {
    this.#looking = false;
    for (const request of this.#ledger.toReversed?.() ?? this.#ledger.slice().reverse()) {
      if (request.sentAt === null) continue;
      if (onStage.has(request.key)) this.#markReceivedBefore(request);
      const old = request.acceptedAt !== null && performance.now() - request.acceptedAt > REMEMBERED_MS;
      const done = request.message.type === "interrupt" && request.received;
      if (old || done || !request.repeatable) {
        const what = `the answer to ${request.message.type} was lost with the connection`;
        this.#fail(request, new ReceiptLostError(what));
      }
    }
    this.#unsent = this.#ledger.slice();
    this.#flush();
  }

  // --- texts

  #withHeld(message) {
    const text = this.#texts.get(message.id);
    if (!text?.carry) return message;
    text.carry = false;
    return { ...message, delta: text.held + message.delta };
  }

  #clean(request, { delta, cues }) {
    const { id, final, delta: asked } = request.message;
    const held = this.#texts.get(id)?.held ?? "";
    const at = cues.map((cue) => cue.at);
    this.#texts.delete(id);
    if (!final) this.#texts.set(id, { held: heldBack(held + asked, delta, at) ?? "", carry: false });
    if (this.#texts.size > MAX_TEXTS) this.#texts.delete(this.#texts.keys().next().value);
    const made = cues.map((cue) => new Cue(cue.id, cue.emotion, cue.intensity));
    for (const cue of made) this.#textCues.set(cue.id, cue);
    while (this.#textCues.size > MAX_TEXT_CUES) {
      const [oldest] = this.#textCues.values();
      oldest.fail(new ReceiptLostError(`${oldest.id} is one of too many cues`));
      this.#textCues.delete(oldest.id);
    }
    this.#settle(request, { text: delta, cues: made, at });
  }

  // --- what it hears

  #heard(data) {
    const message = JSON.parse(data);
    if (message.type === "hello") {
      this.#greet(message);
      return;
    }
    const request = this.#requestOf(message);
    const sentAt = request?.sentAt ?? null;
    const detail = {
      message,
      sent: request?.message ?? null,
      sentAt,
      afterMs: sentAt === null ? null : performance.now() - sentAt,
    };
    this.#take(message, request);
    this.dispatchEvent(new CustomEvent("received", { detail }));
  }

  #requestOf({ type, id, t }) {
    if (type === "pong") return this.#find(`ping ${t}`);
    if (type === "text.clean") return this.#find(`text ${id}`);
    if (type !== "error") return this.#find(id);
    return this.#find(id) ?? this.#find(`text ${id}`) ?? (id === null ? this.#nextAnswered() : null);
  }

  /** Whose answer is due next, for one that does not say whose it is. */
  #nextAnswered() {
    const due = this.#ledger.filter((each) => !each.answered && each.sentAt !== null);
    const late = ["interrupt", "character"];
    return due.find((each) => !late.includes(each.message.type)) ?? null;
  }

  #take(message, request) {
    const { type, id, ...what } = message;
    const cue = request?.cue ?? this.#textCues.get(id);
    if (type === "state_snapshot" && id === this.#prefix) {
      this.#sendAgain(new Set([...what.cues, ...what.queue].map((each) => each.id)));
    } else if (type === "emotion.rejected" || type === "error") {
      this.#refused(message, request, cue);
    } else if (type === "emotion.started" || type === "emotion.peaked") {
      cue?.take(message);
    } else if (ENDINGS.has(type)) {
      cue?.take(message);
      this.#textCues.delete(id);
      if (request) this.#drop(request);
    } else if (!request) {
      return; // nobody waits for it
    } else if (type === "emotion.accepted") {
      request.acceptedAt = performance.now();
      request.cue ??= new Cue(id, what.used, what.intensity, what);
      this.#answer(request, request.cue);
    } else if (type === "text.clean") {
      this.#clean(request, what);
    } else if (type === "pong") {
      this.#settle(request, performance.now() - request.sentAt);
    } else if (type === "state.ok" || type === "mood.ok") {
      this.#settle(request);
    } else if (["interrupt.done", "character.switched", "state_snapshot"].includes(type)) {
      this.#settle(request, what);
    }
  }

  #refused({ type, id, error }, request, cue) {
    const ofEmotion = type === "emotion.rejected" || request?.message.type === "emotion";
    const refusal = new (ofEmotion ? EmotionRejected : RequestError)(error);
    // The daemon says so after it has answered the delta, whose tags were too many.
    const ofAnsweredText = refusal.code === "rate_limited" && refusal.field === "delta";
    if (request && !(ofAnsweredText && request.message.type === "text")) {
      this.#usedIds.delete(request.key);
      this.#fail(request, refusal);
    } else if (cue) {
      this.#textCues.delete(id);
      cue.fail(refusal);
    } else if (id === `${this.#prefix}-c`) {
      this.#controlsError = refusal;
    }
  }
}

/** ReadableStream is async iterable in newer browsers only. */
async function* iterable(source) {
  if (source[Symbol.asyncIterator] || source[Symbol.iterator]) {
    yield* source;
    return;
  }
  const reader = source.getReader();
  try {
    for (let next = await reader.read(); !next.done; next = await reader.read()) yield next.value;
  } finally {
    reader.cancel().catch(() => {});
  }
}

/** `crypto.randomUUID` is missing where the page is served over plain HTTP to another machine. */
function randomPrefix() {
  const bytes = crypto.getRandomValues(new Uint8Array(6));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

// --- viewer ---------------------------------------------------------------------------------

/** One picture of the face: its header as sent, and the image still encoded. */
export class Frame {
  constructor(header, image, dropped) {
    this.header = header;
    this.image = image;
    /** Frames that this viewer has missed so far, at the daemon and here. */
    this.dropped = dropped;
  }

  get blob() {
    return new Blob([this.image], { type: `image/${this.header.format}` });
  }

  /** @returns {Promise<ImageBitmap>} */
  bitmap() {
    return createImageBitmap(this.blob);
  }
}

/**
 * Watches one stage: `drawTo` a canvas or `<img>`, iterate with `for await (const frame of viewer)`
 * (newest wins), or listen.
 *
 * Events: `frame` (CustomEvent, detail is a Frame), `drawn` (CustomEvent, detail is the header of
 * what was just drawn), `bad` (CustomEvent, detail is a FrameError), `state`.
 */
export class Viewer extends EventTarget {
  #newest = null;
  #wake = null;
  #skipped = 0;
  #before = 0;
  #there = 0;
  #iterating = 0;
  #painters = new Set();

  /**
   * @param {string} url of the daemon; by default where this module came from
   * @param {{token?: string, stage?: string, format?: "jpeg"|"webp"|"png", maxFps?: number}} options
   */
  constructor(url = HERE, { token, stage, format = "jpeg", maxFps } = {}) {
    super();
    const query = { stage, token, format, framing: "avf1", max_fps: maxFps };
    this.connection = new Connection(socketUrl("v1/frames", query, url));
    this.connection.addEventListener("message", (event) => this.#heard(event.data));
    this.connection.addEventListener("state", () => this.#stateChanged());
    this.connection.open();
  }

  /**
   * Show every frame that there is time to draw.
   *
   * @param {HTMLCanvasElement|HTMLImageElement} element its size follows the picture's
   * @returns {Painter} `stop()` ends it
   */
  drawTo(element) {
    const painter = new Painter(element, (header) => {
      this.dispatchEvent(new CustomEvent("drawn", { detail: header }));
    });
    painter.stop = () => {
      this.#painters.delete(painter);
      painter.leave();
    };
    this.#painters.add(painter);
    return painter;
  }

  /** Frames as they come, or the newest where one takes longer; ends with `close`. */
  async *[Symbol.asyncIterator]() {
    this.#iterating += 1;
    try {
      for (;;) {
        if (this.connection.state === "closed") return;
        if (this.connection.state === "refused") throw this.connection.reason;
        const frame = this.#newest;
        this.#newest = null;
        if (frame) yield frame;
        else await this.#woken();
      }
    } finally {
      this.#iterating -= 1;
    }
  }

  /** Hang up; iterations end. */
  close() {
    this.connection.close();
  }

  #woken() {
    this.#wake ??= receipt();
    return this.#wake.promise;
  }

  #wakeUp() {
    this.#wake?.resolve();
    this.#wake = null;
  }

  #stateChanged() {
    if (this.connection.state === "connecting") {
      this.#before += this.#there;
      this.#there = 0;
    }
    this.#wakeUp();
    this.dispatchEvent(new CustomEvent("state"));
  }

  #heard(data) {
    if (!(data instanceof ArrayBuffer)) return; // text tells of errors; the close that follows counts
    let decoded;
    try {
      decoded = decodeFrame(data);
    } catch (error) {
      if (!(error instanceof FrameError)) throw error;
      this.dispatchEvent(new CustomEvent("bad", { detail: error }));
      return;
    }
    const { header, image } = decoded;
    this.#there = header.dropped ?? 0;
    if (this.#iterating && this.#newest) this.#skipped += 1;
    const frame = new Frame(header, image, this.#before + this.#there + this.#skipped);
    this.#newest = frame;
    this.#wakeUp();
    this.dispatchEvent(new CustomEvent("frame", { detail: frame }));
    for (const painter of this.#painters) painter.offer(frame);
  }
}

/** Frames onto an element. One is decoded at a time; of those that arrive meanwhile the newest wins. */
class Painter {
  #element;
  #context;
  #shown;
  #next = null;
  #busy = false;
  #looked = () => this.#drain();

  constructor(element, shown) {
    this.#element = element;
    this.#context = element instanceof HTMLCanvasElement ? element.getContext("2d", { alpha: false }) : null;
    this.#shown = shown;
    /** Frames that came faster than this page could draw them. */
    this.skipped = 0;
    /** Frames whose image could not be decoded. */
    this.broken = 0;
    document.addEventListener("visibilitychange", this.#looked);
  }

  /** Nothing is drawn any more, and the document lets go of this; the viewer calls it. */
  leave() {
    document.removeEventListener("visibilitychange", this.#looked);
    this.#next = null;
  }

  /** @param {Frame} frame */
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
      try {
        await (this.#context ? this.#drawOnCanvas(frame) : this.#drawInImage(frame));
      } catch {
        this.broken += 1;
        continue;
      }
      this.#element.dataset.seq = frame.header.seq;
      this.#shown(frame.header);
    }
    this.#busy = false;
  }

  /** Setting a canvas size clears it, so only a real change may do that. */
  async #drawOnCanvas(frame) {
    const bitmap = await frame.bitmap();
    const canvas = this.#element;
    if (canvas.width !== bitmap.width) canvas.width = bitmap.width;
    if (canvas.height !== bitmap.height) canvas.height = bitmap.height;
    this.#context.drawImage(bitmap, 0, 0);
    bitmap.close();
  }

  async #drawInImage(frame) {
    const before = this.#element.src;
    const url = URL.createObjectURL(frame.blob);
    this.#element.src = url;
    try {
      await this.#element.decode();
    } finally {
      if (before.startsWith("blob:")) URL.revokeObjectURL(before);
    }
  }
}
