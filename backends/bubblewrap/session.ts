import { spawn, type ChildProcessWithoutNullStreams } from "node:child_process";
import { randomBytes } from "node:crypto";
import { constants } from "node:os";
import { join } from "node:path";
import { BackendError, type Blueprint, type ExecRequest, type ExecSession } from "../../controller/ports/backend.ts";
import { findBottle, readOrAbsent, type Bottle } from "./bottles.ts";
import type { Context } from "./context.ts";
import { endUnit } from "./end.ts";
import { runningHolder } from "./lifecycle.ts";
import { removeUnitDir } from "./remove.ts";
import { agentCommand, asUser, HOST_ENV } from "./sandbox.ts";
import { BECOME } from "./scripts.ts";
import { scriptArguments } from "./spawn.ts";
import { createUnit, readUnit, sandboxOf, type UnitEntry } from "./units.ts";

const PIDS_DEFAULT = 512;

/** Runs a command as a unit of its own beside the agent. It ends with the controller: nobody could read it any more. */
export async function openSession(
  context: Context,
  blueprint: Blueprint,
  request: ExecRequest,
  signal?: AbortSignal,
): Promise<ExecSession> {
  const bottle = findBottle(context, blueprint.uid);
  const holder = bottle && (await runningHolder(context, bottle, signal).catch(asNotRunning));
  if (bottle === undefined || holder === undefined) throw notRunning(blueprint);
  const name = `session-${randomBytes(6).toString("hex")}`;
  const spec = {
    role: "session" as const,
    specHash: blueprint.specHash,
    env: blueprint.env,
    hostname: blueprint.name,
    pidsMax: blueprint.limits.pids ?? PIDS_DEFAULT,
  };
  await createUnit(context, bottle, { name, spec }, signal);
  const unit = readUnit(bottle, name);
  if (unit === undefined) throw notRunning(blueprint);
  const argv = request.tty ? withTerminal(request) : request.argv;
  const command = agentCommand(context, bottle, { ...spec, argv }, holder);
  const child = await context.call(
    "session.open",
    async () =>
      spawn("sh", ["-c", BECOME, ...scriptArguments(context, bottle, unit), ...command], {
        cwd: "/",
        // A group of its own: Ctrl-C in the controller's terminal is not meant for the bottle.
        detached: true,
        env: HOST_ENV,
        stdio: "pipe",
      }),
    { signal, subject: name },
  );
  return attach(context, bottle, { unit, child });
}

function asNotRunning(error: unknown): undefined {
  if (error instanceof BackendError && error.reason === "GuardNotRunning") return undefined;
  throw error;
}

function notRunning(blueprint: Blueprint): BackendError {
  const message = `bottle "${blueprint.name}" does not run: wake it, then try again`;
  return new BackendError("Unavailable", "BottleNotRunning", message);
}

function attach(
  context: Context,
  bottle: Bottle,
  { unit, child }: { unit: UnitEntry; child: ChildProcessWithoutNullStreams },
): ExecSession {
  // A command that ends before it has read its input breaks the pipe; its exit code says enough.
  child.stdin.on("error", () => {});
  const exit = ended(child).then(async (code) => {
    const wasMade = code !== 1 || readOrAbsent(join(unit.dir, "status"))?.includes("exit-code") === true;
    await context.call("session.close", () => close(bottle, unit), { subject: unit.name });
    return wasMade ? code : 125;
  });
  // Who never asks for the exit code must not bring down the controller with it.
  exit.catch((error: unknown) =>
    context.log.warn({ session: unit.name, error: String(error) }, "session was not closed"),
  );
  return {
    stdin: child.stdin,
    stdout: child.stdout,
    stderr: child.stderr,
    exit,
    resize: (size) => resize(bottle, unit, size),
    kill: async () => {
      const sandbox = sandboxOf(unit);
      // Before there is a sandbox the process is a chain of programs in one another's place: ending it ends all.
      if (sandbox === undefined) child.kill("SIGKILL");
      else await endUnit(bottle, unit);
      await exit;
    },
  };
}

async function close(bottle: Bottle, unit: UnitEntry): Promise<void> {
  await endUnit(bottle, unit);
  await removeUnitDir(bottle, unit.name);
}

function ended(child: ChildProcessWithoutNullStreams): Promise<number> {
  return new Promise((resolve) => {
    child.once("error", () => resolve(125));
    child.once("close", (code, signal) => resolve(code ?? 128 + (signal === null ? 0 : constants.signals[signal])));
  });
}

/**
 * `script` of util-linux gives the command a terminal of the sandbox's own. It takes one shell command line; echo is on, because the user's own
 * terminal is in raw mode.
 */
function withTerminal({ argv, size }: ExecRequest): string[] {
  const setup = size === undefined ? "stty echo" : `stty echo rows ${count(size.rows)} columns ${count(size.columns)}`;
  return ["script", "-qefc", `${setup} 2>/dev/null; exec ${argv.map(quoted).join(" ")}`, "/dev/null"];
}

function count(cells: number): number {
  return Math.min(Math.max(Math.trunc(cells) || 1, 1), 10_000);
}

function quoted(word: string): string {
  return `'${word.replaceAll("'", `'\\''`)}'`;
}

/** The first terminal of the sandbox is the session's. Reached through /proc as the agent's user; the place is a mount, which no command can replace. */
async function resize(bottle: Bottle, unit: UnitEntry, size: { columns: number; rows: number }): Promise<void> {
  const sandbox = sandboxOf(unit);
  if (sandbox === undefined) return;
  const { users } = bottle.meta;
  const terminal = `/proc/${sandbox.pid}/root/dev/pts/0`;
  const stty = ["stty", "-F", terminal, "rows", String(count(size.rows)), "columns", String(count(size.columns))];
  const [command = "stty", ...words] = users === undefined ? stty : [...asUser(users.agent), ...stty];
  await new Promise<void>((resolve) => {
    const child = spawn(command, words, { env: HOST_ENV, stdio: "ignore", timeout: 5_000 });
    child.once("error", () => resolve());
    child.once("close", () => resolve());
  });
}
