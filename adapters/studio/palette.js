/** One colour per emotion, for dark and for light surroundings (contrast at least 3:1 on the cards). */

import { recall, remember } from "./memory.js";

const COLOURS = {
  neutral: ["#8f99a8", "#7b8494"],
  happy: ["#f2b84b", "#b87a00"],
  sad: ["#63a4f4", "#2b6fd0"],
  surprised: ["#f08acb", "#bf3f94"],
  angry: ["#f2705c", "#cc3a28"],
  disgusted: ["#79c47c", "#35863f"],
  fearful: ["#ac90f7", "#7553d8"],
};
const DARK = matchMedia("(prefers-color-scheme: dark)");
const THEMES = ["auto", "light", "dark"];
const changed = new EventTarget();

DARK.addEventListener("change", () => changed.dispatchEvent(new Event("change")));

function isDark() {
  const { theme } = document.documentElement.dataset;
  return theme ? theme === "dark" : DARK.matches;
}

/** @returns {string} CSS colour of an emotion; further emotions get one made from their name */
export function colourOf(label, dark = isDark()) {
  const known = COLOURS[label];
  if (known) return known[dark ? 0 : 1];
  return `hsl(${hueOf(label)} ${dark ? "65% 70%" : "60% 38%"})`;
}

/** Call back whenever the surroundings change between dark and light. */
export function onSchemeChange(callback) {
  changed.addEventListener("change", callback);
}

/** @returns {string} `auto`, `light` or `dark` */
export function theme() {
  const chosen = recall("theme");
  return THEMES.includes(chosen) ? chosen : "auto";
}

/** Go on to the next theme. */
export function nextTheme() {
  const next = THEMES[(THEMES.indexOf(theme()) + 1) % THEMES.length];
  remember("theme", next === "auto" ? null : next);
  if (next === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = next;
  changed.dispatchEvent(new Event("change"));
  return next;
}

function hueOf(text) {
  let hash = 0;
  for (const character of text) hash = (hash * 31 + character.codePointAt(0)) % 360;
  return hash;
}
