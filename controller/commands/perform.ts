import type { Command } from "commander";
import type { CommandContext, GlobalOptions } from "./context.ts";
import { errorLines, exitCodeOf, interrupted } from "./exit.ts";
import { say, type Io } from "./io.ts";

/** Runs a verb with a context of its own, prints what it throws and sets the exit code. */
export async function perform(command: Command, run: (context: CommandContext) => Promise<number>): Promise<void> {
  const options: GlobalOptions = command.optsWithGlobals();
  const io = processIo(options);
  const stop = new AbortController();
  // Only the first Ctrl-C is waited for; the second one ends the process the hard way.
  process.once("SIGINT", () => stop.abort());
  process.once("SIGTERM", () => stop.abort());
  let context: CommandContext | undefined;
  try {
    // Stores and backends are loaded only when a verb really runs.
    const { openContext } = await import("./context.ts");
    context = openContext(options, { io, signal: stop.signal });
    process.exitCode = await run(context);
  } catch (error) {
    const shown = stop.signal.aborted ? interrupted() : error;
    for (const line of errorLines(shown, process.env["BOT_BOTTLE_DEBUG"] === "1")) say(io, line);
    process.exitCode = exitCodeOf(shown);
  } finally {
    context?.close();
    // A pipe or terminal that is still open must not keep a finished command alive.
    process.stdin.unref?.();
  }
}

export function processIo(options: GlobalOptions): Io {
  const { stdin, stdout, stderr } = process;
  const noColor = options.color === false || (process.env["NO_COLOR"] ?? "") !== "";
  return {
    stdin,
    stdout,
    stderr,
    isTerminal: stderr.isTTY === true,
    showsOutput: stdout.isTTY === true,
    color: stdout.isTTY === true && !noColor,
  };
}
