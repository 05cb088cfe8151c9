import type { DlpRules } from "./compile.ts";
import { createPercentDecoder } from "./percent.ts";
import { CONTEXT_BYTES, search } from "./search.ts";

/** Least that is held back, so that a change of the rules does not change how a stream flows. */
const HOLD_BYTES_MIN = 512;

/** What one piece of a body brought. */
export interface ScanStep {
  /** Ids that were not told before. */
  findings: string[];
  /** Bytes that may be sent on now, in order. */
  release: Uint8Array[];
}

/** Looks for secrets in a body that arrives in pieces. How it was cut into pieces changes no finding. */
export interface BodyScan {
  push(chunk: Uint8Array): ScanStep;
  /** Call once, after the last piece. */
  end(): ScanStep;
}

/**
 * In mode `Block`, the default, a byte is released only when no match that holds it can still be completed, and after a finding
 * nothing is released any more. In mode `Audit` everything is released as it comes. Findings for which `ignore` is true are not told
 * and stop nothing: that is for placeholders on the way to where they belong.
 *
 * The body is read as it stands, in every form of a secret, and, from its first percent-encoded byte on, percent-decoded as well: that finds
 * a secret of which an encoder wrote more bytes in that way than it had to.
 */
export function createScan(
  rules: DlpRules,
  options: { mode?: "Block" | "Audit"; ignore?: (id: string) => boolean } = {},
): BodyScan {
  const blocks = options.mode !== "Audit";
  const told = new Set<string>();
  let findings: string[] = [];
  const tell = (id: string): void => {
    if (told.has(id) || options.ignore?.(id) === true) return;
    told.add(id);
    findings.push(id);
  };
  const plain = createReading(rules, tell);
  const decoded = createReading(rules, tell);
  const decoder = createPercentDecoder(plain.lengthMax);
  const unreleased = createQueue();

  function step(): ScanStep {
    const result = { findings, release: [] };
    findings = [];
    if (told.size > 0) return result;
    // An encoded byte takes three.
    const held = Math.max(plain.held(), decoder.heldBytes() + 3 * decoded.held());
    return { ...result, release: unreleased.take(unreleased.length() - held) };
  }

  return {
    push(chunk) {
      if (blocks && told.size > 0) return { findings: [], release: [] };
      plain.push(chunk);
      for (const piece of decoder.push(chunk)) decoded.push(piece);
      if (!blocks) return { ...step(), release: [chunk] };
      unreleased.add(chunk);
      return step();
    },
    end() {
      if (blocks && told.size > 0) return { findings: [], release: [] };
      plain.end();
      for (const piece of decoder.end()) decoded.push(piece);
      decoded.end();
      return step();
    },
  };
}

/** One way to read a body. */
interface Reading {
  lengthMax: number;
  push(piece: Uint8Array): void;
  end(): void;
  /** How many bytes at the end may belong to a match that is not complete. */
  held(): number;
}

function createReading(rules: DlpRules, tell: (id: string) => void): Reading {
  const lengthMax = Math.max(HOLD_BYTES_MIN, rules.everything.lengthMax);
  let window: Buffer = Buffer.alloc(0);
  // Probed groups of the window that begin before this position are done.
  let examined = 0;
  let ended = false;
  const examine = (to: number): void => {
    search(rules.everything, window, { from: examined, to }, tell);
    examined = to;
  };
  return {
    lengthMax,
    push(piece) {
      window = joined(window, piece);
      examine(Math.max(examined, window.length - lengthMax));
      const dropped = Math.max(0, examined - lengthMax - CONTEXT_BYTES);
      window = window.subarray(dropped);
      examined -= dropped;
    },
    end() {
      examine(window.length);
      ended = true;
    },
    held: () => (ended ? 0 : Math.min(window.length, window.length - examined + lengthMax)),
  };
}

interface Queue {
  add(bytes: Uint8Array): void;
  length(): number;
  /** The first bytes, out of the queue; none if `bytes` is not positive. */
  take(bytes: number): Uint8Array[];
}

function createQueue(): Queue {
  const chunks: Uint8Array[] = [];
  let length = 0;
  return {
    add(bytes) {
      chunks.push(bytes);
      length += bytes.length;
    },
    length: () => length,
    take(bytes) {
      const taken: Uint8Array[] = [];
      for (let left = bytes; left > 0;) {
        const [first] = chunks;
        if (first === undefined) break;
        taken.push(first.subarray(0, left));
        if (first.length <= left) chunks.shift();
        else chunks[0] = first.subarray(left);
        left -= first.length;
      }
      length -= Math.max(0, bytes);
      return taken;
    },
  };
}

function joined(window: Buffer, chunk: Uint8Array): Buffer {
  if (window.length === 0) return Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength);
  return Buffer.concat([window, chunk]);
}
