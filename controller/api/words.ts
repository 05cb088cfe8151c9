/** Characters of a value that a message shows. */
const SHOWN_MAX = 60;
/** A name that differs in more places than this is another word, not a slip. */
const SLIPS_MAX = 3;

/** A scalar as a message shows it: in quotes if it is a string, on one line, shortened. Of anything else only what it is. */
export function quote(value: unknown): string {
  switch (typeof value) {
    case "string": {
      const characters = Array.from(value.slice(0, 2 * SHOWN_MAX + 2));
      const cut = characters.length > SHOWN_MAX;
      const shown = cut ? `${characters.slice(0, SHOWN_MAX).join("")}…` : value;
      return JSON.stringify(shown.replaceAll(/[\p{Cf}\p{Zl}\p{Zp}\u0080-\u009f]/gu, "\u{fffd}"));
    }
    case "number":
    case "boolean":
      return String(value);
    default:
      return typeOf(value);
  }
}

/** What a value is, in words. */
export function typeOf(value: unknown): string {
  if (value === undefined) return "nothing";
  if (value === null) return "null";
  if (Array.isArray(value)) return "a list";
  return typeof value === "object" ? "an object" : `a ${typeof value}`;
}

/** `a`, `a or b`, `a, b or c`. */
export function oneOf(words: readonly string[]): string {
  if (words.length < 2) return words.join("");
  return `${words.slice(0, -1).join(", ")} or ${words.at(-1)}`;
}

/** `32,000`: the same on every machine, whatever its locale. */
export function count(value: number): string {
  return String(value).replaceAll(/\B(?=(\d{3})+$)/g, ",");
}

/** The word that was probably meant, if one is near enough. */
export function nearest(word: string, known: readonly string[]): string | undefined {
  if (word.length > SHOWN_MAX) return undefined;
  let best: { word: string; slips: number } | undefined;
  for (const candidate of known) {
    const slips = distance(word.toLowerCase(), candidate.toLowerCase());
    const bound = Math.min(SLIPS_MAX, Math.ceil(candidate.length / 3));
    if (slips <= bound && (best === undefined || slips < best.slips)) best = { word: candidate, slips };
  }
  return best?.word;
}

/** Insertions, deletions and replacements between two words (Levenshtein). */
function distance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, index) => index);
  for (const [i, x] of [...a].entries()) {
    const next = [i + 1];
    for (const [j, y] of [...b].entries()) {
      const replaced = (row[j] ?? 0) + (x === y ? 0 : 1);
      next.push(Math.min(replaced, (row[j + 1] ?? 0) + 1, (next[j] ?? 0) + 1));
    }
    row = next;
  }
  return row.at(-1) ?? 0;
}
