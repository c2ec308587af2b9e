/**
 * The `avf1` frame message: "AVF1", header length (uint32, little-endian), header (UTF-8 JSON), image.
 * No I/O: bytes in, values out.
 */

const MAGIC = "AVF1";
const PREFIX_BYTES = 8;

/** A message that is not an `avf1` frame. */
export class FrameError extends Error {}

/**
 * Take one frame message apart.
 *
 * @param {ArrayBuffer} message one binary WebSocket message
 * @returns {{header: object, image: Uint8Array}} the header as sent; the image still encoded, and
 *   sharing the message's memory
 * @throws {FrameError} the message is not an `avf1` frame
 */
export function decodeFrame(message) {
  if (message.byteLength < PREFIX_BYTES) {
    throw new FrameError(`a frame needs at least ${PREFIX_BYTES} bytes, got ${message.byteLength}`);
  }
  const magic = String.fromCharCode(...new Uint8Array(message, 0, MAGIC.length));
  if (magic !== MAGIC) {
    throw new FrameError("not an avf1 frame");
  }
  const headerBytes = new DataView(message).getUint32(MAGIC.length, true);
  const imageStart = PREFIX_BYTES + headerBytes;
  if (imageStart > message.byteLength) {
    throw new FrameError(`the header wants ${headerBytes} bytes and the message is shorter`);
  }
  return {
    header: parseHeader(new Uint8Array(message, PREFIX_BYTES, headerBytes)),
    image: new Uint8Array(message, imageStart),
  };
}

function parseHeader(bytes) {
  let header;
  try {
    header = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch (cause) {
    throw new FrameError("the header is not JSON", { cause });
  }
  if (header === null || typeof header !== "object" || Array.isArray(header)) {
    throw new FrameError("the header is not an object");
  }
  return header;
}
