/** Says honestly how the page stands with the daemon, and why where that can be found out. */

const STALE_MS = 3_000;
const UPGRADE_REQUIRED = 426;
const NO_REASON = { text: "", final: false };
const TEXT = {
  live: "Live",
  still: "Connected, no new frames",
  connecting: "Connecting",
  lost: "Reconnecting",
  refused: "Not allowed",
};

export class LinkStatus {
  #root;
  #parts;
  #state = "connecting";
  #reason = NO_REASON;
  #wasLive = false;

  /**
   * @param {Document|HTMLElement} root
   * @param {object} parts `{producer, viewer, statistics, log, say}`
   */
  constructor(root, parts) {
    this.#root = root;
    this.#parts = parts;
    const { producer, viewer } = parts;
    producer.addEventListener("state", ({ detail }) => this.#producerChanged(detail.unanswered));
    viewer.addEventListener("state", () => this.#changed(viewer.connection));
    this.#find("retry").addEventListener("click", () => this.#retry());
    addEventListener("online", () => this.#retry());
    document.addEventListener("visibilitychange", () => document.hidden || this.#retry());
    this.update();
  }

  /** Work out the state anew and show it. Cheap enough for every frame. */
  update() {
    const state = this.#judge();
    if (state !== this.#state) this.#enter(state);
    this.#show();
  }

  #judge() {
    const { producer, viewer, statistics } = this.#parts;
    const states = [producer.connection.state, viewer.connection.state];
    if (states.includes("waiting")) return this.#reason.final ? "refused" : "lost";
    if (states.includes("connecting") || statistics.lastFrameAt === null) {
      return this.#state === "lost" || this.#state === "refused" ? this.#state : "connecting";
    }
    return performance.now() - statistics.lastFrameAt > STALE_MS ? "still" : "live";
  }

  #enter(state) {
    const { log, say } = this.#parts;
    const before = this.#state;
    this.#state = state;
    if (state === "lost" && this.#wasLive) {
      log.event("offline", "the connection to the daemon is lost");
      say("Connection lost. Trying again.");
    }
    if (state === "live" && before !== "still") {
      log.event("online", this.#wasLive ? "the daemon is back" : "connected, frames are coming");
      say("Connected.");
      this.#wasLive = true;
      this.#reason = NO_REASON;
    }
    if (state === "refused") say(this.#reason.text);
  }

  #show() {
    const pill = this.#find("link");
    pill.dataset.state = this.#state;
    write(this.#find("link-text"), TEXT[this.#state]);
    const veiled = this.#state !== "live" && this.#state !== "still";
    const face = this.#find("face");
    face.dataset.state = this.#state;
    this.#find("veil").hidden = !veiled;
    if (!veiled) return;
    write(this.#find("veil-text"), this.#headline());
    write(this.#find("veil-note"), this.#note());
    this.#find("retry").hidden = !this.#waiting().length;
  }

  #headline() {
    if (this.#reason.text) return this.#reason.text;
    if (this.#state !== "lost") return "Waiting for the first frame";
    return this.#wasLive ? "The connection is lost" : "There is no connection yet";
  }

  #note() {
    const waiting = this.#waiting();
    if (!waiting.length) return this.#state === "lost" ? "Trying now" : "";
    const at = Math.min(...waiting.map((connection) => connection.retryAt));
    return `Next try in ${Math.max(1, Math.ceil((at - performance.now()) / 1000))} s`;
  }

  #waiting() {
    const { producer, viewer } = this.#parts;
    return [producer.connection, viewer.connection].filter(({ state }) => state === "waiting");
  }

  #retry() {
    for (const connection of this.#waiting()) connection.retryNow();
  }

  #producerChanged(unanswered) {
    const { producer, viewer, log } = this.#parts;
    if (producer.connection.silent) viewer.connection.restart();
    this.#changed(producer.connection);
    if (unanswered) {
      const cues = unanswered === 1 ? "one request" : `${unanswered} requests`;
      log.event("offline", `no more receipts for ${cues}`);
    }
  }

  #changed(connection) {
    if (connection.state === "waiting" && !connection.reached) this.#ask(connection);
    this.update();
  }

  /** A refused handshake tells a page nothing; the same question over HTTP gets an answer. */
  async #ask(connection) {
    try {
      this.#reason = await reasonOf(await fetch(connection.url.replace(/^ws/, "http")));
    } catch {
      this.#reason = { text: "The daemon does not answer", final: false };
    }
    this.update();
  }

  #find(id) {
    return this.#root.querySelector(`#${id}`);
  }
}

/** Why the daemon refuses; `final` where trying again cannot help. */
async function reasonOf(answer) {
  const { status } = answer;
  if (answer.ok || status === UPGRADE_REQUIRED) return NO_REASON; // a socket would be welcome by now
  if (status === 401) {
    const text = "This daemon wants its token: open the page with ?token=… in the address";
    return { text, final: true };
  }
  const body = await answer.json().catch(() => null);
  const text = body?.error?.message ?? `The daemon answers ${status}`;
  return { text: text[0].toUpperCase() + text.slice(1), final: status === 403 || status === 404 };
}

function write(node, text) {
  if (node.textContent !== text) node.textContent = text;
}
