/** Raw bytes for people: as hex with offsets, and as text. */

export function fromBase64(text: string): Uint8Array<ArrayBuffer> {
  return Uint8Array.from(atob(text), character => character.charCodeAt(0));
}

const printable = (byte: number) => (byte >= 0x20 && byte < 0x7f ? String.fromCharCode(byte) : ".");

/** Lines of 16 bytes: offset, hex, text. */
export function hexLines(bytes: Uint8Array): string[] {
  const lines: string[] = [];
  for (let offset = 0; offset < bytes.length; offset += 16) {
    const part = [...bytes.subarray(offset, offset + 16)];
    const hex = part.map(byte => byte.toString(16).padStart(2, "0")).join(" ");
    lines.push(`${offset.toString(16).padStart(6, "0")}  ${hex.padEnd(47)}  ${part.map(printable).join("")}`);
  }
  return lines;
}

/** UTF-8 where it is valid, with dots for control characters; else its printable bytes. */
export function asText(bytes: Uint8Array): string {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes).replaceAll(/[^\P{C}\n\t]/gu, ".");
  } catch {
    return [...bytes].map(byte => (byte === 10 ? "\n" : printable(byte))).join("");
  }
}
