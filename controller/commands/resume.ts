import { Command } from "commander";
import { changeBottle } from "./bottles.ts";
import type { CommandContext } from "./context.ts";
import { perform } from "./perform.ts";
import { parseDuration } from "./duration.ts";
import { EXIT } from "./exit.ts";
import { followTurn } from "./follow.ts";
import { isReady, waitForBottle } from "./freeze.ts";
import { print } from "./io.ts";
import { appendTurn, promptOf, type TurnOptions } from "./turn.ts";
import { sayIfNoController, WAIT_MS } from "./wait.ts";

export function resumeCommand(): Command {
  return new Command("resume")
    .description("let a frozen bottle run again, with another turn if a prompt is given")
    .argument("<name>", "the bottle")
    .option("--prompt <text>", "what the agent is asked to do next")
    .option("--prompt-file <file>", "read the prompt from a file, or from stdin with -")
    .option("--id <id>", "names the turn (default: the next free number)")
    .option("--wait", "with a prompt: show the agent's output and exit with its code; else wait until it runs")
    .option("--timeout <duration>", "how long to wait (default 10m)", parseDuration)
    .action((name: string, options: TurnOptions, command: Command) =>
      perform(command, (context) => runResume(context, name, options)),
    );
}

export async function runResume(context: CommandContext, name: string, options: TurnOptions): Promise<number> {
  const prompt = await promptOf(context, options);
  const timeoutMs = options.timeout ?? WAIT_MS;
  if (prompt !== undefined) {
    const spec = { operatingMode: "Running" } as const;
    const { bottle, turn } = await appendTurn(context, name, { prompt, id: options.id, spec });
    print(context.io, `bottle/${bottle.metadata.name} is to run turn ${turn}`);
    sayIfNoController(context);
    return options.wait === true ? await followTurn(context, bottle, { turn, timeoutMs }) : EXIT.ok;
  }
  const bottle = await changeBottle(context, name, (current) => ({ ...current.spec, operatingMode: "Running" }));
  print(context.io, `bottle/${bottle.metadata.name} is to run`);
  sayIfNoController(context);
  if (options.wait !== true) return EXIT.ok;
  await waitForBottle(context, bottle, {
    what: `bottle "${bottle.metadata.name}" to run`,
    timeoutMs,
    isDone: isReady,
  });
  return EXIT.ok;
}
