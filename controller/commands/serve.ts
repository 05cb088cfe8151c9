import { Command } from "commander";
import { perform, type CommandContext } from "./context.ts";
import { EXIT } from "./exit.ts";
import { say } from "./io.ts";
import { createLogger } from "./logger.ts";
import { holdController } from "./with-controller.ts";

export interface ServeOptions {
  watch?: string[];
  backend?: string;
  defaultImage?: string;
  logLevel?: string;
}

export function serveCommand(): Command {
  return new Command("serve")
    .description("run the control loop: keep every bottle as it is declared")
    .option("--watch <dir>", "apply the manifests in this folder and keep following them (repeatable)", collect)
    .option("--backend <name>", "for bottles that name none (default: BOT_BOTTLE_BACKEND, then the first that works)")
    .option("--default-image <image>", "image of agents whose templates name none (default: BOT_BOTTLE_IMAGE)")
    .addHelpText(
      "after",
      "\nExample:\n  bot-bottle serve --watch bottles/\n\nSIGTERM lets the steps under way end; bottles keep running.",
    )
    .action((_options: unknown, command: Command) =>
      perform(command, (context) => runServe(context, command.optsWithGlobals())),
    );
}

function collect(dir: string, dirs: string[] = []): string[] {
  return [...dirs, dir];
}

/** Runs until a signal asks it to end, then lets the work under way finish. */
export async function runServe(context: CommandContext, options: ServeOptions): Promise<number> {
  const { watch, backend, defaultImage } = options;
  const folders = watch === undefined ? "" : ` and watches ${watch.map((dir) => `"${dir}"`).join(", ")}`;
  await holdController(context, {
    log: createLogger(context.io, options.logLevel ?? "info"),
    watch,
    backend,
    defaultImage,
    ready: () => say(context.io, `bot-bottle serves "${context.stateDir}"${folders}; Ctrl-C ends it, bottles go on`),
  });
  return EXIT.ok;
}
