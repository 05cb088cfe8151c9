/** Fewer different characters are no token: documentation writes `xxxxxxxx`. */
const DISTINCT_MIN = 8;
/** What documentation, tests and templates write in place of a token. None of it stands in a random one. */
const DUMMY =
  /example|changeme|change[-_]me|placeholder|redacted|dummy|your[-_]|my[-_]?secret|x{6}|0{8}|\*{4}|1234567|7654321|abcdefg|\$\{|\{\{/i;
/** The payload of the token that every page about JWT shows, `{"sub":"123456…`. */
const DUMMY_PAYLOAD = "eyJzdWIiOiIxMjM0NTY";

/** Tells real tokens in one text from those that are nobody's. */
export interface Dummies {
  /**
   * Whether a stretch has too few different characters. Asked for stretches that begin ever later, it reads each character once or twice: a text
   * that repeats the beginning of a token without end costs no more than another.
   */
  isDullNext(start: number, end: number): boolean;
  /** The same for any stretch. */
  isDull(start: number, end: number): boolean;
  /** Whether a stretch says that it is an example. */
  isDummy(start: number, end: number): boolean;
}

export function createDummies(text: string): Dummies {
  // How often each character stands in [from, to), and how many different ones do: as many as it takes, or fewer.
  const counts = new Uint32Array(256);
  let from = 0;
  let to = 0;
  let distinct = 0;
  return {
    isDullNext(start, end) {
      for (; from < Math.min(start, to); from += 1) {
        const code = text.charCodeAt(from) & 0xff;
        counts[code] = (counts[code] ?? 0) - 1;
        if (counts[code] === 0) distinct -= 1;
      }
      if (from < start) from = to = start;
      for (; distinct < DISTINCT_MIN && to < Math.min(end, text.length); to += 1) {
        const code = text.charCodeAt(to) & 0xff;
        counts[code] = (counts[code] ?? 0) + 1;
        if (counts[code] === 1) distinct += 1;
      }
      return distinct < DISTINCT_MIN;
    },
    isDull: (start, end) => isDull(text, start, end),
    isDummy(start, end) {
      const token = text.slice(start, end);
      return DUMMY.test(token) || token.includes(DUMMY_PAYLOAD);
    },
  };
}

function isDull(text: string, start: number, end: number): boolean {
  const seen = [0, 0, 0, 0, 0, 0, 0, 0];
  let distinct = 0;
  for (let at = start; at < end; at += 1) {
    const code = text.charCodeAt(at) & 0xff;
    const bit = 1 << (code & 31);
    const known = seen[code >> 5] ?? 0;
    if ((known & bit) !== 0) continue;
    distinct += 1;
    if (distinct === DISTINCT_MIN) return false;
    seen[code >> 5] = known | bit;
  }
  return true;
}
