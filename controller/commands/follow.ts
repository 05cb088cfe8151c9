import type { Bottle, TurnStatus } from "../api/bottle.ts";
import { keyOf } from "../api/meta.ts";
import { BackendError } from "../ports/backend.ts";
import type { Transcript, TurnKey } from "../ports/journal.ts";
import { backendOf } from "./bottles.ts";
import type { CommandContext } from "./context.ts";
import { CommandError, EXIT, turnExitCode } from "./exit.ts";
import { say, writeChunk, type Io } from "./io.ts";
import { createOutputFilter } from "./safe-output.ts";
import { bottleLine, createProgress, throwIfStalled, waitFor } from "./wait.ts";

type Seen =
  | { type: "gone" }
  | { type: "ended"; turn: TurnStatus; bottle: Bottle }
  | { type: "interrupted"; turn: TurnStatus; bottle: Bottle }
  | { type: "running"; attempt: number; bottle: Bottle };

/** Shows a turn's output from its beginning until the turn has ended, over all its attempts; returns the agent's exit code. */
export async function followTurn(
  context: CommandContext,
  bottle: Bottle,
  options: { turn: string; timeoutMs: number },
): Promise<number> {
  const { turn: id } = options;
  const deadlineMs = context.now() + options.timeoutMs;
  const progress = createProgress(context.io);
  /** Bytes that were shown of each attempt. */
  const shown = new Map<number, number>();
  try {
    for (;;) {
      const timeoutMs = Math.max(0, deadlineMs - context.now());
      const what = `turn "${id}" of bottle "${bottle.metadata.name}" to end`;
      const seen = await waitFor(context, { kind: "Bottle", key: keyOf(bottle), timeoutMs, what }, (now) => {
        if (now !== undefined && now.metadata.uid === bottle.metadata.uid) progress.show(bottleLine(now));
        return lookAt(now?.metadata.uid === bottle.metadata.uid ? now : undefined, id, shown);
      });
      progress.clear();
      if (seen.type === "gone") {
        throw new CommandError(EXIT.notFound, `bottle "${bottle.metadata.name}" was deleted before turn "${id}" ended`);
      }
      if (seen.type === "running") {
        const run = { key: { turn: id, attempt: seen.attempt }, follow: true, timeoutMs };
        shown.set(seen.attempt, (await showRun(context, seen.bottle, run)) ?? 0);
        continue;
      }
      // The unit may have been removed while its output was being followed; what was kept of it is complete.
      const key = { turn: id, attempt: seen.turn.attempts };
      await showRun(context, seen.bottle, { key, follow: false, from: shown.get(key.attempt) ?? 0 });
      say(context.io, endLine(seen.turn));
      return turnExitCode(seen.turn);
    }
  } finally {
    progress.clear();
  }
}

function lookAt(bottle: Bottle | undefined, id: string, shown: ReadonlyMap<number, number>): Seen | undefined {
  if (bottle === undefined) return { type: "gone" };
  const turn = bottle.status?.turns?.find((each) => each.id === id);
  if (turn?.state === "Ended") return { type: "ended", turn, bottle };
  if (turn?.state === "Running") {
    return shown.has(turn.attempts) ? undefined : { type: "running", attempt: turn.attempts, bottle };
  }
  // It goes on when somebody resumes the bottle: that is not for this command to wait for.
  const isFrozen = bottle.spec.operatingMode === "Frozen";
  if (isFrozen && turn?.outcome === "Interrupted") return { type: "interrupted", turn, bottle };
  throwIfStalled(bottle);
  return undefined;
}

function endLine(turn: TurnStatus): string {
  const code = turn.exitCode === undefined ? "" : ` (exit code ${turn.exitCode})`;
  return `turn ${turn.id}: ${turn.outcome ?? turn.state}${code}`;
}

/**
 * Writes the output of one run: live from the backend while its unit is there, else what was kept of it, without the `from` bytes that were shown
 * before. Returns how many bytes have been shown; undefined if nothing is known of the run.
 */
export async function showRun(
  context: CommandContext,
  bottle: Bottle,
  run: { key: TurnKey; follow: boolean; timeoutMs?: number; from?: number },
): Promise<number | undefined> {
  const { uid } = bottle.metadata;
  const from = run.from ?? 0;
  const kept = await context.transcripts.load(uid, run.key);
  if (kept !== undefined) {
    return showKept(context, kept, from);
  }
  if (from > 0) return from;
  const backend = await backendOf(context, bottle);
  if (backend === undefined) return undefined;
  const ends = run.timeoutMs === undefined ? [] : [AbortSignal.timeout(Math.min(run.timeoutMs, 2 ** 31 - 1))];
  const signal = AbortSignal.any([context.signal, ...ends]);
  const write = outputWriter(context.io);
  let bytes = 0;
  try {
    for await (const chunk of backend.logs({ uid, ...run.key }, { follow: run.follow, signal })) {
      bytes += chunk.byteLength;
      await write(chunk);
    }
    return bytes;
  } catch (error) {
    if (signal.aborted) return bytes;
    if (!(error instanceof BackendError) || error.kind !== "NotFound") throw error;
  }
  // The controller may have kept the output and removed the unit since.
  const late = await context.transcripts.load(uid, run.key);
  if (late === undefined) return bytes > 0 ? bytes : undefined;
  return showKept(context, late, bytes);
}

/** Of a transcript whose beginning was dropped nobody can tell where what was shown ended, so only one that is new is shown. */
async function showKept(context: CommandContext, { bytes, truncated }: Transcript, from: number): Promise<number> {
  if (truncated && from > 0) return from;
  if (truncated) say(context.io, "note: the beginning of this transcript was dropped because it is too long");
  await outputWriter(context.io)(bytes.subarray(from));
  return Math.max(from, bytes.byteLength);
}

/** What an agent wrote is not trusted on a terminal; a file or a pipe gets the very bytes. */
export function outputWriter(io: Io): (chunk: Uint8Array) => Promise<void> {
  if (!io.showsOutput) return (chunk) => writeChunk(io.stdout, chunk);
  const filter = createOutputFilter();
  return (chunk) => writeChunk(io.stdout, filter(chunk));
}

/** The run of the agent that goes on now. */
export function runningRun(bottle: Bottle): TurnKey | undefined {
  const turn = bottle.status?.turns?.find((each) => each.state === "Running");
  return turn === undefined ? undefined : { turn: turn.id, attempt: turn.attempts };
}
