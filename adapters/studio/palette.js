/** One colour per emotion, for dark and for light surroundings (contrast at least 3:1 on the cards). */

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

/** @returns {string} CSS colour of an emotion; further emotions get one made from their name */
export function colourOf(label) {
  const known = COLOURS[label];
  if (known) return known[DARK.matches ? 0 : 1];
  return `hsl(${hueOf(label)} ${DARK.matches ? "65% 70%" : "60% 38%"})`;
}

/** Call back whenever the surroundings change between dark and light. */
export function onSchemeChange(callback) {
  DARK.addEventListener("change", callback);
}

function hueOf(label) {
  let hash = 0;
  for (const char of label) hash = (hash * 31 + char.codePointAt(0)) % 360;
  return hash;
}
