import { Command, InvalidArgumentError } from "commander";
import type { Bottle } from "../api/bottle.ts";
import { keyOf } from "../api/meta.ts";
import type { TurnKey } from "../ports/journal.ts";
import { getBottle } from "./bottles.ts";
import type { CommandContext } from "./context.ts";
import { perform } from "./perform.ts";
import { parseDuration } from "./duration.ts";
import { CommandError, EXIT } from "./exit.ts";
import { runningRun, showRun } from "./follow.ts";
import { say } from "./io.ts";
import { bottleLine, createProgress, throwIfStalled, WAIT_MS, waitFor } from "./wait.ts";

export interface LogsFlags {
  turn?: string;
  attempt?: number;
  follow?: boolean;
  all?: boolean;
  timeout?: number;
}

export function logsCommand(): Command {
  return new Command("logs")
    .description("show what the agent wrote")
    .argument("<name>", "the bottle")
    .option("--turn <id>", "of this turn (default: the newest that ran)")
    .option("--attempt <n>", "of this attempt (default: the newest)", parseAttempt)
    .option("-f, --follow", "go on while the turn runs; wait for one that is about to start")
    .option("--all", "of every turn, in order")
    .option("--timeout <duration>", "how long -f waits for a turn to start (default 10m)", parseDuration)
    .action((name: string, flags: LogsFlags, command: Command) =>
      perform(command, (context) => runLogs(context, name, flags)),
    );
}

export function parseAttempt(text: string): number {
  if (!/^[1-9][0-9]{0,5}$/.test(text)) throw new InvalidArgumentError("Attempts count from 1.");
  return Number(text);
}

export async function runLogs(context: CommandContext, name: string, flags: LogsFlags): Promise<number> {
  if (flags.all === true && (flags.turn !== undefined || flags.attempt !== undefined)) {
    throw new CommandError(EXIT.usage, "write --all, or --turn and --attempt, not both");
  }
  let bottle = await getBottle(context, name);
  if (flags.follow === true && flags.all !== true) bottle = await waitForStart(context, bottle, flags);
  const runs = await runsOf(context, bottle);
  const wanted = flags.all === true ? runs : runs.filter((run) => matches(run, flags)).slice(-1);
  if (wanted.length === 0) throw nothingToShow(bottle, flags);
  for (const key of wanted) {
    if (flags.all === true) say(context.io, `==> turn ${key.turn}, attempt ${key.attempt} <==`);
    const shown = await showRun(context, bottle, { key, follow: flags.follow === true });
    if (shown === undefined && flags.all !== true) {
      const what = `the output of turn "${key.turn}", attempt ${key.attempt}`;
      throw new CommandError(EXIT.notFound, `${what} of bottle "${bottle.metadata.name}" was not kept`);
    }
  }
  return context.signal.aborted ? EXIT.interrupted : EXIT.ok;
}

function matches(run: TurnKey, flags: LogsFlags): boolean {
  const { turn = run.turn, attempt = run.attempt } = flags;
  return run.turn === turn && run.attempt === attempt;
}

function nothingToShow(bottle: Bottle, flags: LogsFlags): CommandError {
  const { name } = bottle.metadata;
  if (flags.turn === undefined && flags.attempt === undefined) {
    return new CommandError(EXIT.notFound, `no turn of bottle "${name}" has run yet: use -f to wait for one`);
  }
  const attempt = flags.attempt === undefined ? "" : `, attempt ${flags.attempt},`;
  const turn = flags.turn === undefined ? "a turn" : `turn "${flags.turn}"`;
  return new CommandError(EXIT.notFound, `${turn}${attempt} of bottle "${name}" has not run`);
}

/** Every run so far, in order, the one that goes on included. */
async function runsOf(context: CommandContext, bottle: Bottle): Promise<TurnKey[]> {
  const kept = await context.transcripts.keys(bottle.metadata.uid);
  const running = runningRun(bottle);
  const isNew = running !== undefined && !kept.some((run) => matches(run, running));
  return isNew ? [...kept, running] : kept;
}

/** The bottle as soon as a turn runs, or nothing is left to run. */
async function waitForStart(context: CommandContext, bottle: Bottle, flags: LogsFlags): Promise<Bottle> {
  const progress = createProgress(context.io);
  const { name, uid } = bottle.metadata;
  const timeoutMs = flags.timeout ?? WAIT_MS;
  const target = {
    kind: "Bottle",
    key: keyOf(bottle),
    timeoutMs,
    what: `a turn of bottle "${name}" to start`,
  } as const;
  try {
    return await waitFor(context, target, (now) => {
      if (now === undefined || now.metadata.uid !== uid) {
        throw new CommandError(EXIT.notFound, `bottle "${name}" was deleted`);
      }
      const declared = now.spec.turns ?? [];
      const open = declared.filter((turn) => flags.turn === undefined || turn.id === flags.turn);
      const states = open.map((turn) => now.status?.turns?.find((each) => each.id === turn.id)?.state ?? "Pending");
      if (states.includes("Running") || !states.includes("Pending")) return now;
      if (now.spec.operatingMode === "Frozen") return now;
      throwIfStalled(now);
      progress.show(bottleLine(now));
      return undefined;
    });
  } finally {
    progress.clear();
  }
}
