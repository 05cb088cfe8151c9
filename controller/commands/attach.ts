import { Command } from "commander";
import { getBottle } from "./bottles.ts";
import type { CommandContext } from "./context.ts";
import { perform } from "./perform.ts";
import { parseDuration } from "./duration.ts";
import { CommandError, EXIT } from "./exit.ts";
import { followTurn, runningRun } from "./follow.ts";
import { say } from "./io.ts";

/** A turn may run for a week; the turn's own deadline ends it. */
const ATTACH_MS = 8 * 86_400_000;

export function attachCommand(): Command {
  return new Command("attach")
    .description("show the running turn live and exit with its code; Ctrl-C leaves it running")
    .argument("<name>", "the bottle")
    .option("--timeout <duration>", "how long to stay at most", parseDuration)
    .action((name: string, flags: { timeout?: number }, command: Command) =>
      perform(command, (context) => runAttach(context, name, flags)),
    );
}

export async function runAttach(context: CommandContext, name: string, flags: { timeout?: number }): Promise<number> {
  const bottle = await getBottle(context, name);
  const { name: shortName } = bottle.metadata;
  const pending = (bottle.spec.turns ?? []).find((turn) => {
    const state = bottle.status?.turns?.find((each) => each.id === turn.id)?.state ?? "Pending";
    return state === "Pending" && bottle.spec.operatingMode === "Running";
  });
  const turn = runningRun(bottle)?.turn ?? pending?.id;
  if (turn === undefined) {
    const hint = `read what ran with "bot-bottle logs ${shortName}"`;
    throw new CommandError(EXIT.notFound, `no turn of bottle "${shortName}" is running: ${hint}`);
  }
  try {
    return await followTurn(context, bottle, { turn, timeoutMs: flags.timeout ?? ATTACH_MS });
  } catch (error) {
    if (context.signal.aborted) say(context.io, `detached: turn ${turn} goes on`);
    throw error;
  }
}
