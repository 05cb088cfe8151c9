/** Longest escape sequence that is looked at as one; a longer one is dropped up to here. */
const SEQUENCE_MAX = 64;
const ESC = 0x1b;

/**
 * Makes an agent's output safe for a terminal: text, tabs, line ends and colours pass; every other control sequence is dropped, because it
 * could move the cursor over earlier lines, change the title, or write the clipboard. Works on chunks; a sequence may be cut between two.
 */
export function createOutputFilter(): (chunk: Uint8Array) => Uint8Array {
  let state: "text" | "escape" | "csi" | "string" | "string-escape" | "c1" = "text";
  let sequence: number[] = [];
  return (chunk) => {
    const kept: number[] = [];
    for (const byte of chunk) {
      switch (state) {
        case "text":
          if (byte === ESC) state = "escape";
          else if (byte === 0xc2) state = "c1";
          else if (byte >= 0x20 ? byte !== 0x7f : byte === 0x09 || byte === 0x0a || byte === 0x0d) kept.push(byte);
          break;
        case "c1":
          // U+0080 to U+009F are control characters of two bytes.
          state = "text";
          if (byte < 0x80 || byte > 0x9f) kept.push(0xc2, byte);
          break;
        case "escape":
          state = afterEscape(byte);
          sequence = [ESC, byte];
          break;
        case "csi":
          sequence.push(byte);
          if (byte >= 0x40 && byte <= 0x7e) {
            if (byte === 0x6d) kept.push(...sequence);
            state = "text";
          } else if (byte < 0x20 || byte > 0x3f || sequence.length > SEQUENCE_MAX) state = "text";
          break;
        case "string":
          if (byte === 0x07) state = "text";
          else if (byte === ESC) state = "string-escape";
          break;
        case "string-escape":
          state = byte === ESC ? "string-escape" : byte === 0x5c ? "text" : "string";
          break;
      }
    }
    return Uint8Array.from(kept);
  };
}

/** OSC, DCS, SOS, PM and APC carry a string up to their terminator; other sequences end with the next byte. */
function afterEscape(byte: number): "escape" | "csi" | "string" | "text" {
  if (byte === 0x5b) return "csi";
  if (byte === ESC) return "escape";
  return [0x5d, 0x50, 0x58, 0x5e, 0x5f].includes(byte) ? "string" : "text";
}

/** What a terminal obeys or hides: controls, formatting (bidirectional overrides, zero width), line and paragraph separators. */
const UNSAFE = /[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu;
/** Characters of one cell. */
const CELL_LENGTH_MAX = 160;

/** One cell of text that an agent had a hand in: on one line, as it is read, with a bound. */
export function safeCell(text: string): string {
  const shown = text.length > CELL_LENGTH_MAX ? `${text.slice(0, CELL_LENGTH_MAX - 1)}…` : text;
  return shown.replaceAll(UNSAFE, "\u{fffd}");
}

/** JSON on one line that a terminal may show: the same value, with everything unsafe written as an escape. */
export function safeJson(value: unknown, indent?: number): string {
  return JSON.stringify(value, undefined, indent).replaceAll(/[\u007f-\u009f\p{Cf}\p{Zl}\p{Zp}]/gu, (character) =>
    Array.from({ length: character.length }, (_, index) => escaped(character.charCodeAt(index))).join(""),
  );
}

function escaped(unit: number): string {
  return `\\u${unit.toString(16).padStart(4, "0")}`;
}
