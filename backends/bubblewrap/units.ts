import { randomBytes } from "node:crypto";
import { readdirSync } from "node:fs";
import { mkdir, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { BackendError, type AgentRun, type Role, type Unit } from "../../controller/ports/backend.ts";
import type { TurnKey } from "../../controller/ports/journal.ts";
import { readOrAbsent, type Bottle } from "./bottles.ts";
import type { Context } from "./context.ts";
import { isCode } from "./errors.ts";
import { isAlive, type ProcessMark, type SandboxInit } from "./processes.ts";

/** `spec.json`: what a unit was made from. */
export interface UnitSpec {
  id: string;
  role: Role;
  specHash: string;
  createdMs: number;
  /** Of an agent. */
  run?: AgentRun;
  /** The blueprint's, with the run's laid over it. */
  env: Readonly<Record<string, string>>;
  hostname: string;
  pidsMax: number;
}

/** A unit as its directory shows it. */
export interface UnitEntry {
  name: string;
  dir: string;
  spec: UnitSpec;
  state: Unit["state"];
  /** Of a unit that was started: who stands over it. */
  mark?: ProcessMark & { startedMs: number };
  /** Of an exited unit; absent if its end was not recorded. */
  end?: { code: number; finishedMs: number };
}

export function agentName({ turn, attempt }: TurnKey): string {
  return `agent-${turn}-${attempt}`;
}

export function unitDir(bottle: Bottle, name: string): string {
  return join(bottle.dir, "units", name);
}

/** All units of a bottle. Directories whose names begin with a dot are on their way in or out, and are none. */
export function listUnits(bottle: Bottle): UnitEntry[] {
  return namesIn(join(bottle.dir, "units"))
    .filter((name) => !name.startsWith("."))
    .sort()
    .flatMap((name) => readUnit(bottle, name) ?? []);
}

export function namesIn(dir: string): string[] {
  try {
    return readdirSync(dir);
  } catch (error) {
    if (isCode(error, "ENOENT")) return [];
    throw error;
  }
}

export function readUnit(bottle: Bottle, name: string): UnitEntry | undefined {
  const dir = unitDir(bottle, name);
  const text = readOrAbsent(join(dir, "spec.json"));
  if (text === undefined) return undefined;
  const spec: UnitSpec = JSON.parse(text);
  const claim = readOrAbsent(join(dir, "started"));
  if (claim === undefined) return { name, dir, spec, state: "created" };
  const mark = parseClaim(claim);
  let end = readEnd(dir);
  if (end === undefined && mark !== undefined && isAlive(mark)) return { name, dir, spec, state: "running", mark };
  // It may have written its end between the two looks.
  end ??= readEnd(dir);
  return {
    name,
    dir,
    spec,
    state: "exited",
    ...(mark === undefined ? {} : { mark }),
    ...(end === undefined ? {} : { end }),
  };
}

function parseClaim(text: string): UnitEntry["mark"] {
  const [pid, startTicks, bootId, startedMs] = text.trim().split(" ");
  if (pid === undefined || startTicks === undefined || bootId === undefined) return undefined;
  return { pid: Number(pid), startTicks, bootId, startedMs: Number(startedMs) };
}

function readEnd(dir: string): UnitEntry["end"] {
  const [code, finishedMs] = readOrAbsent(join(dir, "exit"))?.trim().split(" ") ?? [];
  return code === undefined ? undefined : { code: Number(code), finishedMs: Number(finishedMs) };
}

/** The first process of the unit's sandbox, once bubblewrap has made it. It may have ended since. */
export function sandboxOf(unit: { dir: string }): SandboxInit | undefined {
  const line = readOrAbsent(join(unit.dir, "status"))?.split("\n")[0];
  if (line === undefined || !line.trim().endsWith("}")) return undefined;
  const status: Record<string, number> = JSON.parse(line);
  const pid = status["child-pid"];
  const pidNamespace = status["pid-namespace"];
  if (pid === undefined || pidNamespace === undefined) return undefined;
  return { pid, pidNamespace: `pid:[${pidNamespace}]`, netNamespace: `net:[${status["net-namespace"] ?? ""}]` };
}

/** Makes a unit in state `created`, at once and whole. One that exists is left alone. */
export async function createUnit(
  context: Context,
  bottle: Bottle,
  unit: { name: string; spec: Omit<UnitSpec, "id" | "createdMs"> },
  signal?: AbortSignal,
): Promise<void> {
  const suffix = randomBytes(4).toString("hex");
  const spec: UnitSpec = { id: `${bottle.meta.uid}/${unit.name}-${suffix}`, createdMs: context.now(), ...unit.spec };
  const draft = unitDir(bottle, `.new-${unit.name}`);
  await context.call(
    `unit.create:${spec.role}`,
    async () => {
      await rm(draft, { recursive: true, force: true });
      await mkdir(draft, { recursive: true, mode: 0o700 });
      // The run holds the prompt.
      await writeFile(join(draft, "spec.json"), JSON.stringify(spec), { mode: 0o600 });
      try {
        await rename(draft, unitDir(bottle, unit.name));
      } catch (error) {
        if (!isCode(error, "ENOTEMPTY", "EEXIST")) throw error;
        await rm(draft, { recursive: true, force: true });
      }
    },
    { signal, subject: unit.name },
  );
}

export function noAgent({ uid, turn, attempt }: { uid: string } & TurnKey): BackendError {
  const what = `agent of turn "${turn}", attempt ${attempt}, of bottle "${uid}"`;
  return new BackendError("NotFound", "UnitNotFound", `the ${what} does not exist: create it first`);
}
