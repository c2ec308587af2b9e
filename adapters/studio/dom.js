/** Small helpers around the document. Text only ever goes in as text. */

export const byId = (id) => document.getElementById(id);

/**
 * Make an element.
 *
 * @param {string} tag
 * @param {Object<string, *>} properties `class`, `data` (an object), `on` (event name to listener),
 *   `aria-…` and other attributes with a dash, and properties of the element
 * @param {...(Node|string)} children
 */
export function make(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined) continue;
    if (name === "class") node.className = value;
    else if (name === "data") Object.assign(node.dataset, value);
    else if (name === "on") for (const [type, call] of Object.entries(value)) node.addEventListener(type, call);
    else if (name.includes("-") || name === "role" || name === "for") node.setAttribute(name, value);
    else node[name] = value;
  }
  node.append(...children);
  return node;
}

/** Set a text, without work where it is there already. */
export function write(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** Tell those who cannot see the page. */
export function say(text) {
  byId("announce").textContent = text;
}

/** Milliseconds as people read them: `14 ms`, `0.26 s`, `3.1 s`, `2 min`. */
export function duration(ms) {
  if (ms < 100) return `${Math.round(ms)} ms`;
  if (ms < 1000) return `${(ms / 1000).toFixed(2)} s`;
  return ms < 90_000 ? `${(ms / 1000).toFixed(1)} s` : `${Math.round(ms / 60_000)} min`;
}

/** Copy a text; also where the page is not served securely, and the clipboard is closed to it. */
export async function copy(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const area = make("textarea", { value: text, class: "unseen", readOnly: true });
  document.body.append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  if (!done) throw new Error("this browser does not let the page copy");
}

/** Show how far a slider is moved. */
export function fillSlider(slider) {
  const share = (slider.value - slider.min) / (slider.max - slider.min);
  slider.style.setProperty("--fill", `${100 * share}%`);
}

/**
 * Call at most every `ms`, and once more with the last arguments.
 *
 * @param {(...args: *) => void} call
 */
export function throttled(call, ms) {
  let timer = 0;
  let last = -Infinity;
  return (...args) => {
    clearTimeout(timer);
    const run = () => {
      last = performance.now();
      call(...args);
    };
    const wait = last + ms - performance.now();
    if (wait <= 0) run();
    else timer = setTimeout(run, wait);
  };
}
