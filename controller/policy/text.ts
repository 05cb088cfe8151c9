const QUOTED_LENGTH_MAX = 80;

/** A value from outside as one printable line in quotes: nothing in it can end a line, colour a terminal or turn the direction of text. */
export function quoted(value: string): string {
  const cut = value.length > QUOTED_LENGTH_MAX ? `${value.slice(0, QUOTED_LENGTH_MAX)}…` : value;
  return JSON.stringify(cut).replaceAll(/[^\x20-\x7e…]/g, codePoint);
}

/** A text of a person as one line: what controls a terminal becomes a space. */
export function oneLine(text: string): string {
  return text.replaceAll(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}]+/gu, " ").trim();
}

/** `U+0009`: how a character is named that must not be shown. */
export function codePoint(character: string): string {
  const code = character.codePointAt(0) ?? 0;
  return `U+${code.toString(16).toUpperCase().padStart(4, "0")}`;
}
