import { randomBytes } from "node:crypto";
import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { BackendError } from "../../controller/ports/backend.ts";
import { findBottle, hintPath, partDir, type Bottle, type Part } from "./bottles.ts";
import type { Context } from "./context.ts";
import { endUnit } from "./end.ts";
import { isCode } from "./errors.ts";
import { HOST_ENV } from "./sandbox.ts";
import { listUnits, namesIn, readUnit, unitDir, type UnitEntry } from "./units.ts";

type Signal = AbortSignal | undefined;

/** Agents and sessions go before the guard, so that no agent is left without one; the sockets go with the last of holder and guard. */
export async function removeUnits(
  context: Context,
  uid: string,
  unitIds: readonly string[],
  signal: Signal,
): Promise<void> {
  const bottle = findBottle(context, uid);
  if (bottle === undefined) return;
  const wanted = new Set(unitIds);
  const units = listUnits(bottle).filter(({ spec }) => wanted.has(spec.id));
  refuseUnguarding(bottle, units);
  for (const guarding of [false, true]) {
    const group = units.filter(({ spec }) => isGuarding(spec.role) === guarding);
    await Promise.all(group.map((unit) => removeUnit(context, bottle, unit, signal)));
  }
  await sweep(context, bottle);
  if (!listUnits(bottle).some(({ spec }) => isGuarding(spec.role)))
    await removePart(context, bottle, "sockets", signal);
  await removeIfEmpty(context, bottle, signal);
}

/** An agent without its holder has no guard, and one without its guard waits for ever on what it asks. */
function refuseUnguarding(bottle: Bottle, units: readonly UnitEntry[]): void {
  if (!units.some(({ spec }) => isGuarding(spec.role))) return;
  const running = listUnits(bottle).find(
    (unit) => unit.spec.role === "agent" && unit.state === "running" && !units.some(({ name }) => name === unit.name),
  );
  if (running === undefined) return;
  const message = `bottle "${bottle.meta.uid}" has a running agent "${running.name}": stop it before holder and guard`;
  throw new BackendError("Conflict", "AgentRunning", message);
}

function isGuarding(role: string): boolean {
  return role === "holder" || role === "guard";
}

async function removeUnit(context: Context, bottle: Bottle, unit: UnitEntry, signal: Signal): Promise<void> {
  await context.call(`unit.end:${unit.spec.role}`, () => endForEver(bottle, unit, signal), {
    signal,
    subject: unit.name,
  });
  await context.call(`unit.remove:${unit.spec.role}`, () => removeUnitDir(bottle, unit.name), {
    signal,
    subject: unit.name,
  });
}

/** Takes a unit that has not begun, as its start would have: nobody can start it any more. One that has is ended. */
async function endForEver(bottle: Bottle, unit: UnitEntry, signal: Signal): Promise<void> {
  try {
    await writeFile(join(unit.dir, "started"), "removed", { flag: "wx" });
  } catch (error) {
    if (isCode(error, "ENOENT")) return;
    if (!isCode(error, "EEXIST")) throw error;
    await endUnit(bottle, readUnit(bottle, unit.name) ?? unit, signal);
  }
}

/** Under another name first: a unit of which a part is gone must not be seen as one. */
export async function removeUnitDir(bottle: Bottle, name: string): Promise<void> {
  const out = unitDir(bottle, `.out-${name}-${randomBytes(4).toString("hex")}`);
  try {
    await rename(unitDir(bottle, name), out);
  } catch (error) {
    if (!isCode(error, "ENOENT")) throw error;
  }
  await rm(out, { recursive: true, force: true });
}

/** What a crash left of removals that had begun. */
async function sweep(context: Context, bottle: Bottle): Promise<void> {
  const units = join(bottle.dir, "units");
  const left = namesIn(units).filter((name) => name.startsWith(".out-"));
  if (left.length === 0) return;
  await context.call("unit.sweep", async () => {
    for (const name of left) await rm(join(units, name), { recursive: true, force: true });
  });
}

export async function removeDisk(context: Context, uid: string, signal: Signal): Promise<void> {
  const bottle = findBottle(context, uid);
  if (bottle === undefined) return;
  refuseInUse(bottle);
  for (const part of PARTS) await removePart(context, bottle, part, signal);
  await removeIfEmpty(context, bottle, signal);
}

const PARTS: readonly Part[] = ["home", "workspace", "sockets"];

function refuseInUse(bottle: Bottle): void {
  if (listUnits(bottle).length === 0) return;
  const message = `bottle "${bottle.meta.uid}" still has units: remove them before its disk`;
  throw new BackendError("Conflict", "UnitsExist", message);
}

async function removePart(context: Context, bottle: Bottle, part: Part, signal: Signal): Promise<void> {
  const path = partDir(bottle, part);
  if (!existsSync(path)) return;
  await context.call(`disk.remove:${part}`, () => removeTree(path), { signal, subject: bottle.meta.uid });
}

/**
 * Nothing of the bottle runs any more, so nobody exchanges directories for links while this goes through them; links themselves are removed,
 * never followed. An agent may have left directories that even their owner cannot empty.
 */
async function removeTree(path: string): Promise<void> {
  try {
    await rm(path, { recursive: true, force: true });
  } catch (error) {
    if (!isCode(error, "EACCES", "EPERM", "ENOTEMPTY")) throw error;
    await run("chmod", ["-R", "u+rwx", "--", path]);
    await rm(path, { recursive: true, force: true });
  }
}

function run(command: string, words: readonly string[]): Promise<void> {
  return new Promise((resolve, reject) => {
    const child = spawn(command, words, { env: HOST_ENV, stdio: "ignore", timeout: 60_000 });
    child.once("error", reject);
    // What could not be changed shows in the removal that follows.
    child.once("close", () => resolve());
  });
}

/** The directory itself goes with the last thing in it; the file that says whose it is goes last. */
async function removeIfEmpty(context: Context, bottle: Bottle, signal: Signal): Promise<void> {
  if (listUnits(bottle).length > 0 || PARTS.some((part) => existsSync(partDir(bottle, part)))) return;
  await context.call(
    "bottle.remove",
    async () => {
      for (const name of namesIn(bottle.dir)) {
        if (name !== "meta.json") await rm(join(bottle.dir, name), { recursive: true, force: true });
      }
      await rm(hintPath(context, bottle.meta.uid), { force: true });
      await rm(bottle.dir, { recursive: true, force: true });
    },
    { signal, subject: bottle.meta.uid },
  );
}

export function partId(bottle: Bottle, part: Part): string {
  return `${bottle.meta.uid}/${part}`;
}
