import { readFile } from "node:fs/promises";
import { Command } from "commander";
import { PROMPT_LENGTH_MAX, type Bottle, type Turn } from "../api/bottle.ts";
import { bottleKey, changeBottle, getBottle } from "./bottles.ts";
import type { CommandContext } from "./context.ts";
import { perform } from "./perform.ts";
import { parseDuration } from "./duration.ts";
import { CommandError, EXIT } from "./exit.ts";
import { followTurn } from "./follow.ts";
import { print } from "./io.ts";
import { readStdin } from "./inputs.ts";
import { sayIfNoController, WAIT_MS } from "./wait.ts";

export interface TurnOptions {
  prompt?: string;
  promptFile?: string;
  id?: string;
  wait?: boolean;
  timeout?: number;
}

export function turnCommand(): Command {
  return new Command("turn")
    .description("give a bottle another turn")
    .argument("<name>", "the bottle")
    .option("--prompt <text>", "what the agent is asked to do")
    .option("--prompt-file <file>", "read the prompt from a file, or from stdin with -")
    .option("--id <id>", "names the turn (default: the next free number)")
    .option("--wait", "show the agent's output and exit with its code")
    .option("--timeout <duration>", "how long to wait", parseDuration)
    .addHelpText("after", '\nExample:\n  bot-bottle turn fix-login --prompt "Address the review" --wait')
    .action((name: string, options: TurnOptions, command: Command) =>
      perform(command, (context) => runTurn(context, name, options)),
    );
}

/** Appends a turn and, with `wait`, follows it to its end. */
export async function runTurn(context: CommandContext, name: string, options: TurnOptions): Promise<number> {
  const prompt = await promptOf(context, options);
  if (prompt === undefined) throw new CommandError(EXIT.usage, "write the prompt with --prompt or --prompt-file");
  const bottle = await getBottle(context, name);
  if (options.wait === true && bottle.spec.operatingMode === "Frozen") {
    const key = bottleKey(context, name);
    const hint = `use "bot-bottle resume ${key.name} --prompt … --wait"`;
    throw new CommandError(EXIT.refused, `bottle "${key.name}" is frozen and would not run the turn: ${hint}`);
  }
  const appended = await appendTurn(context, name, { prompt, id: options.id });
  print(context.io, `bottle/${appended.bottle.metadata.name} turn ${appended.turn} added`);
  sayIfNoController(context);
  if (options.wait !== true) return EXIT.ok;
  return await followTurn(context, appended.bottle, { turn: appended.turn, timeoutMs: options.timeout ?? WAIT_MS });
}

export async function promptOf(context: CommandContext, options: TurnOptions): Promise<string | undefined> {
  if (options.prompt !== undefined && options.promptFile !== undefined) {
    throw new CommandError(EXIT.usage, "write --prompt or --prompt-file, not both");
  }
  if (options.promptFile === undefined) return options.prompt;
  // One UTF-16 unit is at most three bytes of UTF-8, so a longer file cannot hold an acceptable prompt.
  const bytesMax = 3 * PROMPT_LENGTH_MAX;
  if (options.promptFile === "-") return (await readStdin(context.io, bytesMax)).toString("utf8");
  try {
    const bytes = await readFile(options.promptFile);
    if (bytes.length <= bytesMax) return bytes.toString("utf8");
  } catch (error) {
    const why = error instanceof Error && "code" in error ? String(error.code) : String(error);
    throw new CommandError(EXIT.error, `cannot read prompt file "${options.promptFile}": ${why}`, { cause: error });
  }
  const limit = `a prompt has at most ${PROMPT_LENGTH_MAX} characters`;
  throw new CommandError(EXIT.refused, `prompt file "${options.promptFile}" is too long: ${limit}`);
}

/** Adds a turn at the end of the bottle's turns; `spec` may change more of it in the same write. */
export async function appendTurn(
  context: CommandContext,
  name: string,
  turn: { prompt: string; id?: string; spec?: Partial<Bottle["spec"]> },
): Promise<{ bottle: Bottle; turn: string }> {
  let id = "";
  const bottle = await changeBottle(context, name, (current) => {
    const turns = current.spec.turns ?? [];
    if (turn.id !== undefined && turns.some((each) => each.id === turn.id)) {
      const hint = "turns are append-only: choose another id";
      throw new CommandError(
        EXIT.refused,
        `bottle "${current.metadata.name}" has a turn "${turn.id}" already: ${hint}`,
      );
    }
    id = turn.id ?? nextTurnId(turns);
    return { ...current.spec, ...turn.spec, turns: [...turns, { id, prompt: turn.prompt }] };
  });
  return { bottle, turn: id };
}

/** One above the highest number among the ids, and never below how many there are. */
export function nextTurnId(turns: readonly Turn[]): string {
  const numbers = turns.map((turn) => (/^[1-9][0-9]{0,8}$/.test(turn.id) ? Number(turn.id) : 0));
  return String(Math.max(turns.length, ...numbers, 0) + 1);
}
