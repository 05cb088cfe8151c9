import { Command } from "commander";
import type { ExecSession } from "../ports/backend.ts";
import { blueprintFor, getBottle, requireBackend } from "./bottles.ts";
import type { CommandContext } from "./context.ts";
import { perform } from "./perform.ts";
import { interrupted } from "./exit.ts";
import { say, writeChunk } from "./io.ts";

export interface ExecFlags {
  stdin?: boolean;
  tty?: boolean;
}

export function execCommand(): Command {
  return new Command("exec")
    .description("run a command beside the agent, sealed in as the agent is")
    .argument("<name>", "the bottle; it must be running")
    .argument("<command...>", "the command, behind --")
    .option("-i, --stdin", "pass stdin on")
    .option("-t, --tty", "with a terminal")
    .addHelpText("after", "\nExample:\n  bot-bottle exec fix-login -it -- sh")
    .action((name: string, argv: string[], flags: ExecFlags, command: Command) =>
      perform(command, (context) => runExec(context, name, { argv, flags })),
    );
}

/** The exit code is the command's own. */
export async function runExec(
  context: CommandContext,
  name: string,
  request: { argv: readonly string[]; flags: ExecFlags },
): Promise<number> {
  const bottle = await getBottle(context, name);
  const backend = await requireBackend(context, bottle);
  const blueprint = await blueprintFor(context, bottle, backend);
  const terminal = request.flags.tty === true ? terminalOf(context) : undefined;
  if (request.flags.tty === true && terminal === undefined) {
    say(context.io, "note: stdin is not a terminal, so -t has no effect");
  }
  const tty = terminal !== undefined;
  const size = terminal?.size();
  const session = await backend.exec(blueprint, { argv: request.argv, tty, size }, context.signal);
  const restore = terminal?.start(session);
  try {
    return await relay(context, session, { stdin: request.flags.stdin === true || tty });
  } finally {
    restore?.();
  }
}

async function relay(context: CommandContext, session: ExecSession, passes: { stdin: boolean }): Promise<number> {
  const { io, signal } = context;
  const stop = () => void session.kill().catch(() => undefined);
  signal.addEventListener("abort", stop, { once: true });
  // The command may end before it has read its input: that is no error of ours.
  session.stdin.on("error", () => undefined);
  if (passes.stdin) io.stdin.pipe(session.stdin);
  else session.stdin.end();
  try {
    const copies = [copy(session.stdout, io.stdout), copy(session.stderr, io.stderr)];
    const code = await session.exit;
    await Promise.all(copies);
    if (signal.aborted) throw interrupted();
    return code;
  } finally {
    signal.removeEventListener("abort", stop);
    io.stdin.unpipe(session.stdin);
    io.stdin.pause();
  }
}

async function copy(
  from: NodeJS.ReadableStream,
  to: NodeJS.WritableStream & Parameters<typeof writeChunk>[0],
): Promise<void> {
  for await (const chunk of from) await writeChunk(to, typeof chunk === "string" ? Buffer.from(chunk) : chunk);
}

interface Terminal {
  size(): { columns: number; rows: number } | undefined;
  /** Raw mode and resizes; returns what puts the terminal back. */
  start(session: ExecSession): () => void;
}

function terminalSize(): { columns: number; rows: number } | undefined {
  const { columns, rows } = process.stdout;
  return columns > 0 && rows > 0 ? { columns, rows } : undefined;
}

function terminalOf({ io }: CommandContext): Terminal | undefined {
  if (io.stdin !== process.stdin || !process.stdin.isTTY) return undefined;
  return {
    size: terminalSize,
    start(session) {
      const resize = () => {
        const now = terminalSize();
        if (now !== undefined) void session.resize(now).catch(() => undefined);
      };
      process.stdin.setRawMode(true);
      process.stdout.on("resize", resize);
      return () => {
        process.stdin.setRawMode(false);
        process.stdout.off("resize", resize);
      };
    },
  };
}
