/** What the page remembers in this browser: preferences for good, the token for this tab alone. */

const PREFIX = "avatar-studio.";

/** @returns {string|null} null too where storage is forbidden */
export function recall(name, storage = "localStorage") {
  try {
    return window[storage].getItem(PREFIX + name);
  } catch {
    return null;
  }
}

/** Remember a text; null forgets it. */
export function remember(name, text, storage = "localStorage") {
  try {
    if (text === null) window[storage].removeItem(PREFIX + name);
    else window[storage].setItem(PREFIX + name, text);
  } catch {
    // Storage is forbidden here: it lasts until the page is closed.
  }
}

/**
 * The daemon's token, from the address or from this tab's memory. It does not stay in the address,
 * where it would be seen, kept in the history and shared.
 *
 * @returns {string|null}
 */
export function takeToken() {
  const url = new URL(location.href);
  const given = url.searchParams.get("token");
  if (given !== null) {
    url.searchParams.delete("token");
    history.replaceState(null, "", url);
    remember("token", given, "sessionStorage");
  }
  return given ?? recall("token", "sessionStorage");
}
