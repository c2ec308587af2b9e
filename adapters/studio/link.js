/** Says honestly how the page stands with the daemon, and why where that can be found out. */

import { byId, say, write } from "./dom.js";
import { FieldErrors } from "./fields.js";
import { remember } from "./memory.js";

const STALE_MS = 3_000;
const UNAUTHORIZED = 401;
const TEXT = {
  live: "Live",
  still: "At rest",
  connecting: "Connecting",
  lost: "Reconnecting",
  refused: "Not allowed",
};

export class LinkStatus {
  #session;
  #statistics;
  #log;
  #state = "connecting";
  #wasLive = false;
  #tried = false;
  #errors = new FieldErrors({ token: byId("token") }, byId("token-error"));

  /**
   * @param {import("./session.js").Session} session
   * @param {{statistics: object, log: object}} parts
   */
  constructor(session, { statistics, log }) {
    this.#session = session;
    this.#statistics = statistics;
    this.#log = log;
    session.addEventListener("link", () => this.update());
    session.addEventListener("open", () => this.#opened());
    byId("retry").addEventListener("click", () => this.#retry());
    byId("token-form").addEventListener("submit", (event) => this.#enterToken(event));
    addEventListener("online", () => this.#retry());
    document.addEventListener("visibilitychange", () => document.hidden || this.#retry());
  }

  /** Work out the state anew and show it. Cheap enough for every frame. */
  update() {
    const state = this.#judge();
    if (state !== this.#state) this.#enter(state);
    this.#show();
  }

  get #connections() {
    return [this.#session.producer.connection, this.#session.viewer.connection];
  }

  get #reason() {
    return this.#connections.map(({ reason }) => reason).find(Boolean) ?? null;
  }

  #opened() {
    this.#state = "connecting";
    this.#wasLive = false;
    this.#show();
  }

  #judge() {
    const states = this.#connections.map(({ state }) => state);
    if (states.includes("refused")) return "refused";
    if (states.includes("waiting")) return "lost";
    const { lastFrameAt } = this.#statistics;
    if (states.includes("connecting") || lastFrameAt === null) {
      return this.#state === "lost" || this.#state === "refused" ? this.#state : "connecting";
    }
    return performance.now() - lastFrameAt > STALE_MS ? "still" : "live";
  }

  #enter(state) {
    const before = this.#state;
    this.#state = state;
    if (state === "lost" && this.#wasLive) {
      this.#log.event("offline", "the connection to the daemon is lost");
      say("Connection lost. Trying again.");
    }
    if (state === "live" && before !== "still") {
      this.#log.event("online", this.#wasLive ? "the daemon is back" : "connected, frames are coming");
      say("Connected.");
      this.#wasLive = true;
      this.#tried = false;
    }
    if (state === "refused") this.#refused();
  }

  #refused() {
    say(this.#headline());
    if (this.#reason?.status !== UNAUTHORIZED) return;
    remember("token", null, "sessionStorage");
    if (this.#tried) this.#errors.show({ field: "token", message: "The daemon does not know this token" });
  }

  #show() {
    byId("link").dataset.state = this.#state;
    write(byId("link-text"), TEXT[this.#state]);
    const veiled = this.#state !== "live" && this.#state !== "still";
    byId("face").dataset.state = this.#state;
    byId("veil").hidden = !veiled;
    if (!veiled) return;
    const wantsToken = this.#state === "refused" && this.#reason?.status === UNAUTHORIZED;
    byId("token-form").hidden = !wantsToken;
    write(byId("veil-text"), this.#headline());
    write(byId("veil-note"), wantsToken ? "" : this.#note());
    byId("retry").hidden = wantsToken || !this.#waiting().length;
  }

  #headline() {
    const reason = this.#reason;
    if (reason?.status === UNAUTHORIZED) return "This daemon wants its token";
    if (reason) return reason.message;
    if (this.#state !== "lost") return "Waiting for the first frame";
    return this.#wasLive ? "The connection is lost" : "There is no connection yet";
  }

  #note() {
    const waiting = this.#waiting().filter(({ state }) => state === "waiting");
    if (!waiting.length) return this.#state === "lost" ? "Trying now" : "";
    const at = Math.min(...waiting.map(({ retryAt }) => retryAt));
    return `Next try in ${Math.max(1, Math.ceil((at - performance.now()) / 1000))} s`;
  }

  #waiting() {
    return this.#connections.filter(({ state }) => ["waiting", "refused"].includes(state));
  }

  #retry() {
    for (const connection of this.#waiting()) connection.retryNow();
  }

  #enterToken(event) {
    event.preventDefault();
    const token = byId("token").value.trim();
    if (!token) {
      this.#errors.show({ field: "token", message: "Paste the token of the setting auth.token" });
      return;
    }
    this.#errors.clear();
    this.#tried = true;
    remember("token", token, "sessionStorage");
    byId("token").value = "";
    this.#session.open({ token });
  }
}
