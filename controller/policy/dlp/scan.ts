import type { DlpRules } from "./compile.ts";
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
 */
export function createScan(
  rules: DlpRules,
  options: { mode?: "Block" | "Audit"; ignore?: (id: string) => boolean } = {},
): BodyScan {
  const blocks = options.mode !== "Audit";
  const lengthMax = Math.max(HOLD_BYTES_MIN, rules.everything.lengthMax);
  const told = new Set<string>();
  let window: Buffer = Buffer.alloc(0);
  // Positions in the window: probed groups that begin before `examined` are done; bytes before `released` are out.
  let examined = 0;
  let released = 0;

  function step(to: number, ended: boolean): ScanStep {
    const findings: string[] = [];
    search(rules.everything, window, { from: examined, to }, (id) => {
      if (told.has(id) || options.ignore?.(id) === true) return;
      told.add(id);
      findings.push(id);
    });
    examined = to;
    if (!blocks) return { findings, release: [] };
    if (told.size > 0) return { findings, release: [] };
    const end = ended ? window.length : Math.max(released, examined - lengthMax);
    const release = end > released ? [window.subarray(released, end)] : [];
    released = end;
    return { findings, release };
  }

  return {
    push(chunk) {
      if (blocks && told.size > 0) return { findings: [], release: [] };
      window = joined(window, chunk);
      const { findings, release } = step(Math.max(examined, window.length - lengthMax), false);
      const dropped = Math.max(0, examined - lengthMax - CONTEXT_BYTES);
      window = window.subarray(dropped);
      examined -= dropped;
      released -= dropped;
      return { findings, release: blocks ? release : [chunk] };
    },
    end() {
      if (blocks && told.size > 0) return { findings: [], release: [] };
      return step(window.length, true);
    },
  };
}

function joined(window: Buffer, chunk: Uint8Array): Buffer {
  if (window.length === 0) return Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength);
  return Buffer.concat([window, chunk]);
}
