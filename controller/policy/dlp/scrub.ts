import type { DlpRules } from "./compile.ts";
import { partialStart, search } from "./search.ts";

/** Takes known secrets out of a response that arrives in pieces; its length stays as it is. */
export interface Scrubber {
  /** What may go on to the agent now. Only bytes that may be the beginning of a secret are kept, so that a stream of events flows. */
  push(chunk: Uint8Array): Uint8Array[];
  /** Call once, after the last piece. */
  end(): Uint8Array[];
  /** How many places were overwritten. */
  readonly hits: number;
}

const STAR = 0x2a;

/**
 * Overwrites every form of every secret with `*`. The body must not be compressed: whoever injects a secret asks for a response that
 * is not. Without secrets it hands on what it gets.
 */
export function createScrubber(rules: DlpRules): Scrubber {
  if (rules.secrets.lengthMax === 0) return { push: (chunk) => [chunk], end: () => [], hits: 0 };
  // Bytes that may begin a secret, as they came; the first `covered` of them belong to a secret that was found already.
  let held: Buffer = Buffer.alloc(0);
  let covered = 0;
  let hits = 0;

  function step(chunk: Uint8Array, ended: boolean): Uint8Array[] {
    // A copy, because it is written to and the piece belongs to the caller.
    const text = Buffer.concat([held, chunk]);
    const spans = spansIn(rules, text);
    const keepFrom = ended ? text.length : partialStart(rules.secrets, text);
    const before = covered;
    held = Buffer.from(text.subarray(keepFrom));
    covered = Math.max(0, before - keepFrom, ...spans.map(([, end]) => end - keepFrom));
    hits += spans.filter(([start]) => start < keepFrom).length;
    text.fill(STAR, 0, Math.min(before, text.length));
    for (const [start, end] of spans) text.fill(STAR, start, end);
    return keepFrom === 0 ? [] : [text.subarray(0, keepFrom)];
  }

  return {
    push: (chunk) => step(chunk, false),
    end: () => (held.length === 0 ? [] : step(new Uint8Array(0), true)),
    get hits() {
      return hits;
    },
  };
}

/** Stretches that belong to secrets, by their start and joined where they overlap: two forms of one secret in one place are one hit. */
function spansIn(rules: DlpRules, text: Buffer): [start: number, end: number][] {
  const found: [number, number][] = [];
  search(rules.secrets, text, { from: 0, to: text.length }, (_id, start, end) => found.push([start, end]));
  found.sort(([a], [b]) => a - b);
  const spans: [number, number][] = [];
  for (const [start, end] of found) {
    const last = spans.at(-1);
    if (last !== undefined && start < last[1]) last[1] = Math.max(last[1], end);
    else spans.push([start, end]);
  }
  return spans;
}
