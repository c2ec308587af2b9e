/** The daemon's HTTP side, with the session's token in a header. */

/** A request that was refused or did not arrive; `field` names what it is about. */
export class ApiError extends Error {
  constructor({ code = "unknown", message = "the daemon does not answer", field = null, suggestions = [] } = {}, status = 0) {
    super(message);
    Object.assign(this, { code, field, suggestions, status });
  }
}

export class Api {
  #session;

  /** @param {import("./session.js").Session} session */
  constructor(session) {
    this.#session = session;
  }

  /**
   * Ask for JSON.
   *
   * @param {string} path
   * @param {{method?: string, body?: object, query?: Object<string, string|null>}} options
   * @returns {Promise<object|null>} null where there is no body
   * @throws {ApiError}
   */
  async json(path, { method = "GET", body, query } = {}) {
    const answer = await this.#fetch(path, { method, body: body && JSON.stringify(body), query });
    return answer.status === 204 ? null : answer.json();
  }

  /** @returns {Promise<Blob>} a picture */
  async blob(path) {
    return (await this.#fetch(path, {})).blob();
  }

  /**
   * Send a form, and tell how far it is: 0 to 1. XMLHttpRequest, because `fetch` does not say.
   *
   * @param {string} path
   * @param {FormData} form
   * @param {(share: number) => void} progress
   * @returns {{done: Promise<object>, abort: () => void}}
   */
  upload(path, form, progress) {
    const request = new XMLHttpRequest();
    const done = new Promise((resolve, reject) => {
      request.upload.onprogress = ({ loaded, total }) => progress(total ? loaded / total : 0);
      request.onload = () => {
        const body = parsed(request.responseText);
        if (request.status < 300) resolve(body);
        else reject(new ApiError(body?.error, request.status));
      };
      request.onerror = () => reject(new ApiError());
      request.onabort = () => reject(new ApiError({ code: "aborted", message: "stopped" }));
      request.open("POST", this.#url(path));
      for (const [name, value] of Object.entries(this.#headers())) request.setRequestHeader(name, value);
      request.send(form);
    });
    return { done, abort: () => request.abort() };
  }

  async #fetch(path, { method = "GET", body, query }) {
    const headers = { ...this.#headers(), ...(body ? { "Content-Type": "application/json" } : {}) };
    let answer;
    try {
      answer = await fetch(this.#url(path, query), { method, body, headers });
    } catch {
      throw new ApiError();
    }
    if (!answer.ok) {
      throw new ApiError(parsed(await answer.text().catch(() => ""))?.error, answer.status);
    }
    return answer;
  }

  #headers() {
    const { token } = this.#session;
    return token ? { Authorization: `Bearer ${token}` } : {};
  }

  #url(path, query = {}) {
    const url = new URL(path, document.baseURI);
    url.search = "";
    url.hash = "";
    for (const [name, value] of Object.entries(query)) if (value) url.searchParams.set(name, value);
    return url.href;
  }
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}
