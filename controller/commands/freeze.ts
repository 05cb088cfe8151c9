import { Command } from "commander";
import type { Bottle } from "../api/bottle.ts";
import { conditionOf } from "../api/conditions.ts";
import { keyOf } from "../api/meta.ts";
import { changeBottle } from "./bottles.ts";
import type { CommandContext } from "./context.ts";
import { perform } from "./perform.ts";
import { parseDuration } from "./duration.ts";
import { CommandError, EXIT } from "./exit.ts";
import { print } from "./io.ts";
import { bottleLine, createProgress, isCurrent, sayIfNoController, throwIfStalled, WAIT_MS, waitFor } from "./wait.ts";

export interface FreezeFlags {
  wait?: boolean;
  timeout?: number;
}

export function freezeCommand(): Command {
  return new Command("freeze")
    .description("stop a bottle and keep its disk; an interrupted turn goes on when it is resumed")
    .argument("<name>", "the bottle")
    .option("--wait", "wait until nothing but the disk is left")
    .option("--timeout <duration>", "how long to wait (default 10m)", parseDuration)
    .action((name: string, flags: FreezeFlags, command: Command) =>
      perform(command, (context) => runFreeze(context, name, flags)),
    );
}

export async function runFreeze(context: CommandContext, name: string, flags: FreezeFlags): Promise<number> {
  const bottle = await changeBottle(context, name, (current) => ({ ...current.spec, operatingMode: "Frozen" }));
  print(context.io, `bottle/${bottle.metadata.name} is to be frozen`);
  sayIfNoController(context);
  if (flags.wait !== true) return EXIT.ok;
  const what = `bottle "${bottle.metadata.name}" to be frozen`;
  await waitForBottle(context, bottle, { what, timeoutMs: flags.timeout ?? WAIT_MS, isDone: isAtRest });
  print(context.io, `bottle/${bottle.metadata.name} is frozen`);
  return EXIT.ok;
}

/** Nothing of it runs, and nothing more is to be done. */
function isAtRest(bottle: Bottle): boolean {
  return isReady(bottle) && conditionOf(bottle.status?.conditions, "AgentRunning")?.status !== "True";
}

/** It is what its newest spec asks for. */
export function isReady(bottle: Bottle): boolean {
  return isCurrent(bottle) && conditionOf(bottle.status?.conditions, "Ready")?.status === "True";
}

export async function waitForBottle(
  context: CommandContext,
  bottle: Bottle,
  target: { what: string; timeoutMs: number; isDone: (bottle: Bottle) => boolean },
): Promise<void> {
  const progress = createProgress(context.io);
  const { what, timeoutMs } = target;
  try {
    await waitFor(context, { kind: "Bottle", key: keyOf(bottle), what, timeoutMs }, (now) => {
      if (now === undefined || now.metadata.uid !== bottle.metadata.uid) {
        throw new CommandError(EXIT.notFound, `bottle "${bottle.metadata.name}" was deleted`);
      }
      if (target.isDone(now)) return true;
      throwIfStalled(now);
      progress.show(bottleLine(now));
      return undefined;
    });
  } finally {
    progress.clear();
  }
}
