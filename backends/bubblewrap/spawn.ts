import { spawn, type ChildProcess } from "node:child_process";
import { BackendError } from "../../controller/ports/backend.ts";
import { hintPath, type Bottle } from "./bottles.ts";
import { filterPath, until, type Context } from "./context.ts";
import { isCode } from "./errors.ts";
import { HOST_ENV } from "./sandbox.ts";
import { STAND_OVER } from "./scripts.ts";
import { readUnit, type UnitEntry } from "./units.ts";

const STARTED_MS_MAX = 10_000;

/** Starts a unit that is `created`, under a process of its own session that outlives this one. Returns once the unit has been claimed. */
export async function startUnit(
  context: Context,
  bottle: Bottle,
  unit: UnitEntry,
  { command, signal }: { command: readonly string[]; signal?: AbortSignal | undefined },
): Promise<void> {
  await context.call(
    `unit.start:${unit.spec.role}`,
    async () => {
      const child = spawn("sh", ["-c", STAND_OVER, ...scriptArguments(context, bottle, unit), ...command], {
        cwd: "/",
        detached: true,
        env: HOST_ENV,
        stdio: ["ignore", "pipe", "ignore"],
      });
      child.unref();
      await claimed(child);
    },
    { signal, subject: unit.name },
  );
  const found = await until(() => startedOrGone(bottle, unit), {
    timeoutMs: STARTED_MS_MAX,
    signal,
    what: `unit.start "${unit.name}"`,
  });
  if (found === undefined) {
    throw new BackendError(
      "Transient",
      "NotStarted",
      `"${unit.name}" of bottle "${bottle.meta.uid}" did not start: try again`,
    );
  }
}

function startedOrGone(bottle: Bottle, unit: UnitEntry): true | undefined {
  const state = readUnit(bottle, unit.name)?.state;
  return state === "created" ? undefined : true;
}

export function scriptArguments(context: Context, bottle: Bottle, unit: { dir: string }): string[] {
  return ["sh", unit.dir, hintPath(context, bottle.meta.uid), filterPath(context)];
}

/** The script closes its output when it has claimed the unit, or found it claimed. A word of the command line that is too long fails here. */
function claimed(child: ChildProcess): Promise<void> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, STARTED_MS_MAX);
    const end = (finish: () => void) => {
      clearTimeout(timer);
      child.stdout?.destroy();
      finish();
    };
    child.once("error", (error) => end(() => reject(tooLong(error))));
    child.stdout?.once("close", () => end(resolve));
    child.stdout?.resume();
  });
}

function tooLong(error: Error): Error {
  if (!isCode(error, "E2BIG")) return error;
  return new BackendError(
    "Invalid",
    "CommandTooLong",
    "the command line and environment are too long for this system: shorten the prompt",
    {
      cause: error,
    },
  );
}
