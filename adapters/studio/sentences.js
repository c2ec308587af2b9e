/** The protocol's messages in short sentences, for people. */

import { duration } from "./dom.js";

/** What a message was sent for. */
export function sentSentence(message) {
  switch (message.type) {
    case "emotion":
      return [
        `${message.emotion} ${percent(message.intensity)}`,
        ...Object.entries(message.mix ?? {}).map(([label, share]) => `+ ${label} ${percent(share)}`),
        message.policy && message.policy !== "replace" ? message.policy : "",
      ].filter(Boolean).join(", ").replaceAll(", +", " +");
    case "text":
      return `“${message.delta}”${message.final ? ", the end" : ""}`;
    case "state":
      return message.state;
    case "mood":
      return `valence ${message.valence}, arousal ${message.arousal}`;
    case "controls":
      return controlsSentence(message);
    case "character":
      return message.character;
    case "interrupt":
      return "every cue";
    default:
      return "";
  }
}

function controlsSentence({ weights = {}, head = {}, mode }) {
  const names = [...Object.keys(weights), ...Object.keys(head)];
  if (!names.length) return "let go";
  const more = names.length > 3 ? ` and ${names.length - 3} more` : "";
  return `${mode} ${names.slice(0, 3).join(", ")}${more}`;
}

/** What an answer says. */
export function receivedSentence(message, label) {
  switch (message.type) {
    case "emotion.accepted":
      return accepted(message);
    case "emotion.started":
    case "emotion.peaked":
      return shown(message);
    case "emotion.finished":
      return `${label} is gone by frame ${message.seq}`;
    case "emotion.superseded":
      return `${label} gave way at frame ${message.seq}`;
    case "emotion.expired":
      return `${label} could not start in time`;
    case "interrupt.done":
      return `at rest by frame ${message.seq} after ${duration(message.latency_ms)}`;
    case "text.clean":
      return `“${message.delta}”${message.cues.length ? `, ${message.cues.length} cue${message.cues.length > 1 ? "s" : ""}` : ""}`;
    case "character.switched":
      return `${message.character} since frame ${message.seq}`;
    case "hello":
      return `${message.server}, ${message.character} on ${message.stage}`;
    case "emotion.rejected":
    case "error":
      return refused(message.error);
    default:
      return "";
  }
}

function accepted({ used, intensity, mapped_from: from, clamped, duplicate }) {
  const parts = [`${used} ${percent(intensity)}`];
  if (from) parts.push(`meant by “${from}”`);
  if (clamped) parts.push("brought into range");
  if (duplicate) parts.push("known already");
  return parts.join(", ");
}

function shown({ seq, latency_ms: latency, no_change: unchanged }) {
  return `frame ${seq} after ${duration(latency)}${unchanged ? ", nothing to change" : ""}`;
}

function refused({ message, suggestions }) {
  return suggestions?.length ? `${message}. Try ${suggestions.join(", ")}.` : message;
}

function percent(share) {
  return `${Math.round(share * 100)} %`;
}
