/** Says honestly how the page stands with the daemon, and why where that can be found out. */

const STALE_MS = 3_000;
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
  #wasLive = false;

  /**
   * @param {Document|HTMLElement} root
   * @param {object} parts `{producer, viewer, statistics, log, say}`
   */
  constructor(root, parts) {
    this.#root = root;
    this.#parts = parts;
    const { producer, viewer } = parts;
    producer.addEventListener("state", () => this.#producerChanged());
    viewer.addEventListener("state", () => this.update());
    for (const { connection } of [producer, viewer]) {
      connection.addEventListener("reason", () => this.update());
    }
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
    if (states.includes("refused")) return "refused";
    if (states.includes("waiting")) return "lost";
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
    }
    if (state === "refused") say(this.#reason());
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
    if (this.#reason()) return this.#reason();
    if (this.#state !== "lost") return "Waiting for the first frame";
    return this.#wasLive ? "The connection is lost" : "There is no connection yet";
  }

  #reason() {
    const { producer, viewer } = this.#parts;
    return (producer.connection.reason ?? viewer.connection.reason)?.message ?? "";
  }

  #note() {
    const waiting = this.#waiting().filter(({ state }) => state === "waiting");
    if (!waiting.length) return this.#state === "lost" ? "Trying now" : "";
    const at = Math.min(...waiting.map((connection) => connection.retryAt));
    return `Next try in ${Math.max(1, Math.ceil((at - performance.now()) / 1000))} s`;
  }

  #waiting() {
    const { producer, viewer } = this.#parts;
    return [producer.connection, viewer.connection].filter(({ state }) =>
      ["waiting", "refused"].includes(state),
    );
  }

  #retry() {
    for (const connection of this.#waiting()) connection.retryNow();
  }

  #producerChanged() {
    const { producer, viewer } = this.#parts;
    if (producer.connection.silent) viewer.connection.restart();
    this.update();
  }

  #find(id) {
    return this.#root.querySelector(`#${id}`);
  }
}

function write(node, text) {
  if (node.textContent !== text) node.textContent = text;
}
