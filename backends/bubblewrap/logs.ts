import { closeSync, openSync, readSync } from "node:fs";
import { open, type FileHandle } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { BackendError, type ProbeReport } from "../../controller/ports/backend.ts";
import type { TurnKey } from "../../controller/ports/journal.ts";
import { findBottle } from "./bottles.ts";
import { until, type Context } from "./context.ts";
import { isCode } from "./errors.ts";
import { agentName, listUnits, namesIn, noAgent, readUnit, type UnitEntry } from "./units.ts";

const CHUNK_BYTES = 64 * 1024;
const FOLLOW_MS = 50;

/** Output of one run, segment after segment. A reader that is slower than the agent misses what was dropped in between, as the transcript does. */
export async function* logs(
  context: Context,
  key: { uid: string } & TurnKey,
  { follow, signal }: { follow: boolean; signal?: AbortSignal | undefined },
): AsyncGenerator<Uint8Array> {
  const bottle = findBottle(context, key.uid);
  const name = agentName(key);
  const unit = bottle && readUnit(bottle, name);
  if (bottle === undefined || unit === undefined) throw noAgent(key);
  let place: Place = { offset: 0 };
  for (;;) {
    if (signal?.aborted === true) return;
    // Asked before reading: what was written before the end is then in the segments.
    const state = readUnit(bottle, name)?.state;
    for await (const piece of readOn(unit.dir, place, signal)) {
      ({ place } = piece);
      if (piece.bytes.length > 0) yield piece.bytes;
    }
    // Removed meanwhile, and perhaps before it was read to its end: who keeps transcripts has the rest.
    if (readUnit(bottle, name) === undefined) throw noAgent(key);
    if (!follow || state === "exited") return;
    await delay(FOLLOW_MS, undefined, { signal }).catch(() => {});
  }
}

/** Which segment comes next, and how much of it was read. `undefined`: from the first one there is. */
interface Place {
  segment?: number;
  offset: number;
}

async function* readOn(
  dir: string,
  from: Place,
  signal?: AbortSignal,
): AsyncGenerator<{ place: Place; bytes: Uint8Array }> {
  for (const segment of segments(dir)) {
    if (from.segment !== undefined && segment < from.segment) continue;
    let offset = segment === from.segment ? from.offset : 0;
    const file = await openOrAbsent(join(dir, `output.${segment}`));
    if (file === undefined) continue;
    try {
      for (;;) {
        if (signal?.aborted === true) return;
        const { bytesRead, buffer } = await file.read(Buffer.alloc(CHUNK_BYTES), 0, CHUNK_BYTES, offset);
        offset += bytesRead;
        yield { place: { segment, offset }, bytes: buffer.subarray(0, bytesRead) };
        if (bytesRead === 0) break;
      }
    } finally {
      await file.close();
    }
  }
}

function segments(dir: string): number[] {
  return namesIn(dir)
    .filter((name) => /^output\.\d+$/.test(name))
    .map((name) => Number(name.slice("output.".length)))
    .sort((a, b) => a - b);
}

/** A segment may be dropped between the list and its opening. */
async function openOrAbsent(path: string): Promise<FileHandle | undefined> {
  try {
    return await open(path);
  } catch (error) {
    if (isCode(error, "ENOENT")) return undefined;
    throw error;
  }
}

const PROBE_MS_MAX = 20_000;
const FACTS_BYTES_MAX = 256 * 1024;

/** Waits for the line in which the holder says what it found. A holder that was asked before answers from its output. */
export async function probe(
  context: Context,
  { uid, holderId }: { uid: string; holderId: string },
  signal?: AbortSignal,
): Promise<ProbeReport> {
  const bottle = findBottle(context, uid);
  const holder = () => bottle && listUnits(bottle).find(({ spec }) => spec.id === holderId && spec.role === "holder");
  const report = await until(
    () => {
      const unit = holder();
      if (unit === undefined) throw new BackendError("NotFound", "UnitNotFound", `holder "${holderId}" does not exist`);
      const found = readLines(unit)
        .map(readReport)
        .find((line) => line !== undefined);
      if (found !== undefined || unit.state === "running") return found;
      throw new BackendError("Conflict", "HolderExited", `holder "${holderId}" ended before it reported`);
    },
    { timeoutMs: PROBE_MS_MAX, signal, what: `probe "${holderId}"` },
  );
  if (report !== undefined) return report;
  throw new BackendError("Transient", "ProbeTimeout", `holder "${holderId}" did not report within 20 s`);
}

function readReport(line: string): ProbeReport | undefined {
  if (!line.startsWith('{"probe":')) return undefined;
  const { probe: report }: { probe: ProbeReport } = JSON.parse(line);
  return { passed: report.passed === true, detail: String(report.detail) };
}

/** Complete lines at the beginning of a unit's output, where the guard program says its facts. */
export function readLines(unit: UnitEntry): string[] {
  const buffer = Buffer.alloc(FACTS_BYTES_MAX);
  try {
    const file = openSync(join(unit.dir, "output.0"), "r");
    try {
      const text = buffer.toString("utf8", 0, readSync(file, buffer, 0, FACTS_BYTES_MAX, 0));
      return text.split("\n").slice(0, -1);
    } finally {
      closeSync(file);
    }
  } catch (error) {
    if (isCode(error, "ENOENT")) return [];
    throw error;
  }
}
