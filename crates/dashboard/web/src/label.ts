/** Labels as a scanner types them: GS1 element strings. The server reads them; the page only tells them from words. */

/** Separator of elements, as a scanner sends it. */
export const FNC1 = "\u001d";
/** Longest time between two characters of a scanner, ms, and the fewest characters that are taken for a scan. */
const SCAN_MS = 50;
const SCAN_CHARACTERS = 8;

/** The text of a label; undefined where the text is no label. */
export function labelOf(typed: string): string | undefined {
  const text = typed.trim();
  // The prefix of AIM says which code it was: `]d2`, `]C1`, `]Q3`, `]e0`.
  const named = /^\][A-Za-z]\d/.test(text);
  const plain = named ? text.slice(3) : text;
  if (plain.startsWith(FNC1) || named) return text;
  if (/^\(\d{2,4}\)./.test(plain) || plain.includes(FNC1) || /^01\d{14}/.test(plain)) return text;
  return undefined;
}

/** Whether a key is FNC1: scanners send it as the character 29, which keyboards have as Ctrl and `]`. */
export const isFnc1 = (event: { key: string; ctrlKey: boolean }): boolean => event.key === FNC1 || (event.ctrlKey && event.key === "]");

/** Characters that come as fast as only a scanner types them. */
export class Scan {
  private text = "";
  private at = Number.NEGATIVE_INFINITY;

  /** Takes a key. A number of characters that came as a scan; the whole text once Enter ends it. */
  take(event: { key: string; ctrlKey: boolean; timeStamp: number }): { fast: boolean; scanned?: string } {
    const fast = event.timeStamp - this.at <= SCAN_MS;
    if (event.key === "Enter") {
      const scanned = fast && this.text.length >= SCAN_CHARACTERS ? this.text : undefined;
      this.text = "";
      return { fast, scanned };
    }
    const character = isFnc1(event) ? FNC1 : event.key;
    // Shift, Control and the like come between the characters of a scanner.
    if (character.length !== 1) return { fast: false };
    this.text = fast ? this.text + character : character;
    this.at = event.timeStamp;
    return { fast: fast && this.text.length > 1 };
  }
}
