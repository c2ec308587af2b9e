/**
 * One WebSocket that comes back by itself: jittered exponential back-off, and an optional heartbeat
 * that notices a peer which is gone without having said so.
 */

const FIRST_DELAY_MS = 400;
const MAX_DELAY_MS = 5_000;
const HEARTBEAT_MS = 5_000;
const SILENCE_MS = 8_000;

/**
 * Address of an endpoint beside the page, `ws:` for `http:` and `wss:` for `https:`.
 *
 * @param {string} path relative to `base`, e.g. `v1/events`
 * @param {Object<string, string|null|undefined>} query empty values are left out
 * @param {string} base address that `path` is relative to
 */
export function socketUrl(path, query = {}, base = document.baseURI) {
  const url = new URL(path, base);
  url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  url.search = "";
  url.hash = "";
  for (const [name, value] of Object.entries(query)) {
    if (value) url.searchParams.set(name, value);
  }
  return url.href;
}

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
 * - `state`: `.state` has changed to `connecting`, `open`, `waiting` (until `.retryAt`) or `closed`;
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
    /** @type {"connecting"|"open"|"waiting"|"closed"} */
    this.state = "closed";
    /** When the next attempt starts, on the clock of `performance.now()`. */
    this.retryAt = 0;
    /** Whether the last attempt got as far as an open socket. */
    this.reached = false;
    /** Whether the peer fell silent, so that whatever else runs to it is likely gone too. */
    this.silent = false;
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

  /** Do not wait out the back-off. */
  retryNow() {
    if (this.state === "waiting") this.#connect();
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
    socket.onclose = () => this.#lost();
    this.#socket = socket;
    this.#enter("connecting");
  }

  #opened() {
    this.reached = true;
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

  #lost() {
    this.#drop();
    const delay = backoffMs(this.#failures);
    this.#failures += 1;
    this.retryAt = performance.now() + delay;
    this.#timer = setTimeout(() => this.#connect(), delay);
    this.#enter("waiting");
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
