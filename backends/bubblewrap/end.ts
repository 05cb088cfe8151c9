import { BackendError } from "../../controller/ports/backend.ts";
import type { Bottle } from "./bottles.ts";
import { until } from "./context.ts";
import { isAlive, killSandbox, signal as sendSignal } from "./processes.ts";
import { readUnit, sandboxOf, type UnitEntry } from "./units.ts";

/** A sandbox is made in milliseconds; a unit that has none after this long hangs before it. */
const SANDBOX_MS_MAX = 3_000;
const RECORDED_MS_MAX = 10_000;
const GONE_MS_MAX = 5_000;

/** Kills a running unit and waits until its end is recorded and nothing of it runs. Ended already is success. */
export async function endUnit(bottle: Bottle, unit: UnitEntry, signal?: AbortSignal): Promise<void> {
  const what = `end of "${unit.name}"`;
  const begun = performance.now();
  const ended = await until(
    () => {
      const now = readUnit(bottle, unit.name);
      if (now?.state !== "running") return true;
      const sandbox = sandboxOf(now);
      if (sandbox !== undefined) killSandbox(sandbox);
      else if (performance.now() - begun > SANDBOX_MS_MAX) killGroup(now);
      return undefined;
    },
    { timeoutMs: RECORDED_MS_MAX, signal, what },
  );
  if (ended === undefined) killGroup(unit);
  await sandboxGone(unit);
  await keeperGone(bottle, unit, signal);
}

/** Who stands over a unit hints at its end after it has recorded it, and would leave a hint of a bottle that is gone. */
async function keeperGone(bottle: Bottle, unit: UnitEntry, signal?: AbortSignal): Promise<void> {
  const mark = readUnit(bottle, unit.name)?.mark ?? unit.mark;
  if (mark === undefined || unit.spec.role === "session") return;
  const what = `end of "${unit.name}"`;
  await until(() => (isAlive(mark) ? undefined : true), { timeoutMs: GONE_MS_MAX, signal, what });
}

/** Who stands over a unit leads a process group with everything outside the sandbox; what is inside ends with it. */
function killGroup(unit: UnitEntry): void {
  if (unit.mark === undefined || !isAlive(unit.mark)) return;
  sendSignal(unit.spec.role === "session" ? unit.mark.pid : -unit.mark.pid, "SIGKILL");
}

/** The exit code is known a moment before the last process of the sandbox is gone. */
export async function sandboxGone(unit: UnitEntry): Promise<void> {
  const sandbox = sandboxOf(unit);
  if (sandbox === undefined) return;
  const gone = await until(() => (killSandbox(sandbox) ? undefined : true), {
    timeoutMs: GONE_MS_MAX,
    what: `end of "${unit.name}"`,
  });
  if (gone !== undefined) return;
  throw new BackendError(
    "Transient",
    "ProcessStays",
    `processes of "${unit.name}" do not end, although they were killed`,
  );
}
