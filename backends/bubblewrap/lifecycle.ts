import { BackendError, type AgentRun, type Blueprint, type BottleIdentity } from "../../controller/ports/backend.ts";
import type { TurnKey } from "../../controller/ports/journal.ts";
import { ensureBottle, ensurePart, findBottle, type Bottle } from "./bottles.ts";
import {
  ensureStateDir,
  filterPath,
  refuseAborted,
  sameBytes,
  until,
  writeAtomically,
  type Context,
} from "./context.ts";
import { endUnit, sandboxGone } from "./end.ts";
import { readLines } from "./logs.ts";
import { programOf, signal as sendSignal, type SandboxInit } from "./processes.ts";
import { ensureProgram } from "./program.ts";
import { agentCommand, guardCommand } from "./sandbox.ts";
import { architecture, systemCallFilter } from "./seccomp.ts";
import { startUnit } from "./spawn.ts";
import { copyUpstreamCa } from "./upstream-ca.ts";
import { agentName, createUnit, noAgent, readUnit, sandboxOf, type UnitEntry } from "./units.ts";

const PIDS_DEFAULT = 512;
const HOLDER_READY_MS_MAX = 20_000;

type Signal = AbortSignal | undefined;

/** Disk, holder and guard. Holder and guard do not need one another to start, so they start side by side. */
export async function prepare(context: Context, blueprint: Blueprint, signal: Signal): Promise<void> {
  refuseAborted("prepare", signal);
  const known = findBottle(context, blueprint.uid);
  if (known !== undefined) for (const role of GUARDING) refuseOther(readUnit(known, role), blueprint);
  const bottle = await makeDisk(context, blueprint, signal);
  await ensureFilter(context, signal);
  const fresh = GUARDING.every((role) => readUnit(bottle, role) === undefined);
  await ensureProgram(context, bottle, { fresh, signal });
  await ensurePart(context, bottle, "sockets", signal);
  // Before anything runs: a holder probes when it starts, and one that waited for its guard until somebody mended the file would have failed.
  if (readUnit(bottle, "guard")?.state !== "running") await copyUpstreamCa(context, bottle, signal);
  await all(GUARDING.map((role) => ensureRunning(context, bottle, { role, blueprint }, signal)));
}

const GUARDING = ["holder", "guard"] as const;

/** Like Promise.all, but nothing is still at work when it throws. */
async function all(promises: readonly Promise<void>[]): Promise<void> {
  await Promise.allSettled(promises);
  await Promise.all(promises);
}

function refuseOther(unit: UnitEntry | undefined, { uid, specHash }: Blueprint): void {
  if (unit === undefined) return;
  const what = `the ${unit.spec.role} of bottle "${uid}"`;
  if (unit.spec.specHash !== specHash) {
    throw new BackendError("Conflict", "SpecChanged", `${what} was made from another blueprint: remove it first`);
  }
  if (unit.state === "exited") {
    throw new BackendError("Conflict", "UnitExited", `${what} has exited and is never started again: remove it first`);
  }
}

export async function makeDisk(context: Context, identity: BottleIdentity, signal: Signal): Promise<Bottle> {
  const bottle = await ensureBottle(context, identity, signal);
  await ensurePart(context, bottle, "home", signal);
  await ensurePart(context, bottle, "workspace", signal);
  return bottle;
}

export async function ensureFilter(context: Context, signal: Signal): Promise<void> {
  const name = architecture(process.arch);
  if (name === undefined) {
    throw new BackendError(
      "Unavailable",
      "ArchitectureUnsupported",
      `there is no system call filter for ${process.arch}`,
    );
  }
  const filter = systemCallFilter(name);
  if (await sameBytes(filterPath(context), filter)) return;
  await context.call(
    "filter.write",
    async () => {
      await ensureStateDir(context);
      await writeAtomically(filterPath(context), filter);
    },
    { signal },
  );
}

async function ensureRunning(
  context: Context,
  bottle: Bottle,
  { role, blueprint }: { role: "holder" | "guard"; blueprint: Blueprint },
  signal: Signal,
): Promise<void> {
  if (readUnit(bottle, role) === undefined) {
    const { specHash, name } = blueprint;
    const spec = { role, specHash, env: {}, hostname: name, pidsMax: PIDS_DEFAULT };
    await createUnit(context, bottle, { name: role, spec }, signal);
  }
  const unit = readUnit(bottle, role);
  refuseOther(unit, blueprint);
  if (unit?.state !== "created") return;
  await startUnit(context, bottle, unit, { command: guardCommand(context, bottle, role), signal });
}

export async function createAgent(
  context: Context,
  blueprint: Blueprint,
  run: AgentRun,
  signal: Signal,
): Promise<void> {
  const bottle = findBottle(context, blueprint.uid);
  if (bottle === undefined) {
    throw new BackendError("Conflict", "BottleGone", `bottle "${blueprint.uid}" does not exist: prepare it first`);
  }
  const name = agentName(run);
  if (readUnit(bottle, name) !== undefined) return;
  const { turn, attempt, argv } = run;
  const { specHash, limits } = blueprint;
  const spec = {
    role: "agent" as const,
    specHash,
    run: { turn, attempt, argv, env: run.env },
    env: { ...blueprint.env, ...run.env },
    hostname: blueprint.name,
    pidsMax: limits.pids ?? PIDS_DEFAULT,
  };
  await createUnit(context, bottle, { name, spec }, signal);
}

export async function startAgent(context: Context, key: { uid: string } & TurnKey, signal: Signal): Promise<void> {
  const bottle = findBottle(context, key.uid);
  const unit = bottle && readUnit(bottle, agentName(key));
  if (bottle === undefined || unit === undefined) throw noAgent(key);
  if (unit.state !== "created") return;
  const holder = await runningHolder(context, bottle, signal);
  const { run, env, hostname, pidsMax } = unit.spec;
  const program = { argv: run?.argv ?? [], env, hostname, pidsMax };
  await startUnit(context, bottle, unit, { command: agentCommand(context, bottle, program, holder), signal });
}

/** The holder's namespace, once both units run and the holder listens. Conflict if one does not run: no agent without its guard. */
export async function runningHolder(context: Context, bottle: Bottle, signal: Signal): Promise<SandboxInit> {
  const found = await until(
    () => {
      const units = GUARDING.map((role) => readUnit(bottle, role));
      const [holder] = units;
      if (holder === undefined || units.some((unit) => unit?.state !== "running")) {
        throw new BackendError(
          "Conflict",
          "GuardNotRunning",
          `bottle "${bottle.meta.uid}" has no running holder and guard: prepare it`,
        );
      }
      return readLines(holder).includes(READY) ? sandboxOf(holder) : undefined;
    },
    { timeoutMs: HOLDER_READY_MS_MAX, signal, what: "start of an agent" },
  );
  if (found !== undefined) return found;
  context.log.warn({ uid: bottle.meta.uid }, "holder is not ready");
  throw new BackendError(
    "Transient",
    "HolderNotReady",
    `the holder of bottle "${bottle.meta.uid}" does not listen: look at its output`,
  );
}

const READY = JSON.stringify({ ready: true });

/** The program gets SIGTERM, not its sandbox, which would take its children with it at once; when time is up the whole sandbox is killed. */
export async function stopAgent(
  context: Context,
  key: { uid: string } & TurnKey,
  { graceMs, signal }: { graceMs: number; signal?: Signal },
): Promise<void> {
  const bottle = findBottle(context, key.uid);
  const name = agentName(key);
  if (bottle === undefined || readUnit(bottle, name)?.state !== "running") return;
  await context.call(
    "unit.stop:agent",
    async () => {
      let told = false;
      const ended = await until(
        () => {
          const unit = readUnit(bottle, name);
          if (unit?.state !== "running") return true;
          const sandbox = sandboxOf(unit);
          const program = told || sandbox === undefined ? undefined : programOf(sandbox);
          if (program !== undefined) told = sendSignal(program, "SIGTERM");
          return undefined;
        },
        { timeoutMs: graceMs, signal, what: `stop of "${name}"` },
      );
      const unit = readUnit(bottle, name);
      if (unit === undefined) return;
      if (ended === undefined) await endUnit(bottle, unit, signal);
      else await sandboxGone(unit);
    },
    { signal, subject: name },
  );
}
