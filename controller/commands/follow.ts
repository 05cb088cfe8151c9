import type { Bottle, TurnStatus } from "../api/bottle.ts";
import { keyOf } from "../api/meta.ts";
import { BackendError } from "../ports/backend.ts";
import type { TurnKey } from "../ports/journal.ts";
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
  const shown = new Set<number>();
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
        shown.add(seen.attempt);
        await showRun(context, seen.bottle, { key: { turn: id, attempt: seen.attempt }, follow: true, timeoutMs });
        continue;
      }
      if (!shown.has(seen.turn.attempts)) {
        await showRun(context, seen.bottle, { key: { turn: id, attempt: seen.turn.attempts }, follow: false });
      }
      say(context.io, endLine(seen.turn));
      return turnExitCode(seen.turn);
    }
  } finally {
    progress.clear();
  }
}

function lookAt(bottle: Bottle | undefined, id: string, shown: ReadonlySet<number>): Seen | undefined {
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

/** Writes the output of one run: live from the backend while its unit is there, else what was kept of it. False if nothing is known. */
export async function showRun(
  context: CommandContext,
  bottle: Bottle,
  run: { key: TurnKey; follow: boolean; timeoutMs?: number },
): Promise<boolean> {
  const { uid } = bottle.metadata;
  const kept = await context.transcripts.load(uid, run.key);
  if (kept !== undefined) {
    if (kept.truncated) say(context.io, "note: the beginning of this transcript was dropped because it is too long");
    await outputWriter(context.io)(kept.bytes);
    return true;
  }
  const backend = await backendOf(context, bottle);
  if (backend === undefined) return false;
  const ends = run.timeoutMs === undefined ? [] : [AbortSignal.timeout(Math.min(run.timeoutMs, 2 ** 31 - 1))];
  const signal = AbortSignal.any([context.signal, ...ends]);
  const write = outputWriter(context.io);
  let bytes = 0;
  try {
    for await (const chunk of backend.logs({ uid, ...run.key }, { follow: run.follow, signal })) {
      bytes += chunk.byteLength;
      await write(chunk);
    }
    return true;
  } catch (error) {
    if (signal.aborted) return true;
    if (!(error instanceof BackendError) || error.kind !== "NotFound") throw error;
  }
  // The controller may have kept the output and removed the unit since.
  const late = await context.transcripts.load(uid, run.key);
  if (late === undefined) return bytes > 0;
  if (!late.truncated || bytes === 0) await write(late.bytes.subarray(bytes));
  return true;
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
