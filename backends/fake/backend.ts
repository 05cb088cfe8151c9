import type {
  AgentRun,
  Backend,
  Blueprint,
  BottleIdentity,
  BottleView,
  DiskPart,
  Observation,
  Role,
  Unit,
} from "../../controller/ports/backend.ts";
import { BackendError } from "../../controller/ports/backend.ts";
import type { TurnKey } from "../../controller/ports/journal.ts";
import {
  agentName,
  DISK,
  diskNames,
  find,
  identityOf,
  isKind,
  own,
  unitName,
  unless,
  volumeName,
  type FakeContext,
} from "./context.ts";
import { Engine } from "./engine.ts";
import type { ControllerProcess } from "./faults.ts";
import { copyFrom, copyTo } from "./copy.ts";
import { followLogs } from "./logs.ts";
import { readAudit } from "./read-audit.ts";
import { openSession } from "./session.ts";
import type { World } from "./world.ts";

/** What a fake backend is made from. */
export interface FakeBackendOptions {
  world: World;
  /** The installation whose objects this backend sees and makes. */
  owner: string;
  /** Dates observations. Default: the world's clock. */
  now?: () => number;
  /** Shared by everything that dies together in a simulated crash. */
  process?: ControllerProcess;
}

const PARTS = ["home", "workspace", "sockets"] as const satisfies readonly DiskPart["part"][];
/** Teardown order: whoever works first, the way out last. */
const REMOVAL_ORDER: readonly Role[] = ["agent", "session", "guard", "holder"];

/** A backend over an in-memory world, composed of primitive calls as the Docker backend is. It passes the contract suite, else simulations lie. */
export function createFakeBackend(options: FakeBackendOptions): Backend {
  const { world, owner } = options;
  const process = options.process ?? { crashed: false };
  const now = options.now ?? (() => world.now());
  const context: FakeContext = { world, owner, engine: (signal) => new Engine({ world, process, signal }) };
  const { engine } = context;
  return {
    name: "fake",
    features: { images: true, limits: { cpu: true, memory: true, pids: true } },
    async available(signal) {
      try {
        await engine(signal).ping();
        return { ok: true, version: "fake" };
      } catch (error) {
        if (!isKind(error, "Unavailable")) throw error;
        return { ok: false, reason: error.message, fix: "world.down = false" };
      }
    },
    observe: async (signal) => ({ atMs: now(), bottles: await view(context, signal) }),
    watch(hint, signal) {
      if (signal.aborted) return;
      const stop = world.listen((uid) => {
        if (!process.crashed && world.faults.loseHint?.(uid) !== true) hint(uid);
      });
      signal.addEventListener("abort", stop, { once: true });
    },
    prepare: (blueprint, signal) => prepare(context, blueprint, signal),
    probe: (unit, signal) => engine(signal).probe(unit.uid, unit.holderId),
    configureGuard: (unit, config, signal) => engine(signal).configureGuard({ ...unit, owner }, config),
    readAudit: (unit, request, signal) => readAudit(context, unit, { request, signal }),
    createAgent: (blueprint, run, signal) => createAgent(context, blueprint, run, signal),
    startAgent: (unit, signal) => startAgent(context, unit, signal),
    stopAgent: async (unit, { signal }) => {
      const agent = find(await own(context, unit.uid, signal), agentName(unit.uid, unit));
      if (agent?.state !== "running") return;
      await unless("NotFound", engine(signal).stopContainer(unit.uid, agent.id, { code: 143, oom: false }));
    },
    removeUnits: (uid, unitIds, signal) => removeUnits(context, uid, unitIds, signal),
    removeDisk: (uid, signal) => removeDisk(context, uid, signal),
    logs: (unit, { follow, signal }) => followLogs(context, unit, { follow, signal }),
    exec: (blueprint, request, signal) => openSession(context, blueprint, { request, signal }),
    createDisk: (identity, signal) => ensureVolumes(context, identity, { parts: DISK, signal }),
    copyIn: (uid, directory, tar, signal) => copyTo(context, { uid, path: directory, signal }, tar),
    copyOut: (uid, path, signal) => copyFrom(context, { uid, path, signal }),
  };
}

async function prepare(context: FakeContext, blueprint: Blueprint, signal?: AbortSignal): Promise<void> {
  const { uid, specHash, image } = blueprint;
  const engine = context.engine(signal);
  if (image !== undefined) await engine.ensureImage(uid, image);
  const { containers } = await own(context, uid, signal);
  const other = containers.find((unit) => isGuarding(unit) && unit.specHash !== specHash);
  if (other !== undefined) {
    throw refused(context, { verb: "prepare", uid }, "SpecChanged", `"${other.engineName}" was made from another spec`);
  }
  const ended = containers.find((unit) => isGuarding(unit) && unit.state === "exited");
  if (ended !== undefined) {
    throw refused(
      context,
      { verb: "prepare", uid },
      "UnitExited",
      `"${ended.engineName}" has exited and never runs again`,
    );
  }
  await ensureVolumes(context, blueprint, { parts: PARTS, signal });
  for (const role of ["holder", "guard"] as const) {
    const engineName = unitName(uid, role);
    const draft = { ...identityOf(blueprint), engineName, owner: context.owner, role, specHash, argv: [], env: {} };
    if (!containers.some((unit) => unit.role === role)) {
      await unless("Conflict", engine.createContainer({ ...draft, volumes: [volumeName(uid, "sockets")] }));
    }
  }
  const made = await own(context, uid, signal);
  for (const role of ["holder", "guard"] as const) {
    const unit = find(made, unitName(uid, role));
    if (unit?.state === "created") await engine.startContainer(uid, unit.id);
  }
}

async function createAgent(
  context: FakeContext,
  blueprint: Blueprint,
  run: AgentRun,
  signal?: AbortSignal,
): Promise<void> {
  const { uid, specHash } = blueprint;
  const engineName = agentName(uid, run);
  const listing = await own(context, uid, signal);
  if (find(listing, engineName) !== undefined) return;
  const holder = find(listing, unitName(uid, "holder"));
  if (holder === undefined) throw refused(context, { verb: "createAgent", uid }, "HolderGone", "there is no holder");
  const draft = { ...identityOf(blueprint), engineName, owner: context.owner, role: "agent" as const, specHash };
  const turn = { turn: run.turn, attempt: run.attempt };
  const process = { argv: run.argv, env: { ...blueprint.env, ...run.env }, volumes: diskNames(uid), joins: holder.id };
  await unless("Conflict", context.engine(signal).createContainer({ ...draft, ...process, turn }));
}

async function startAgent(context: FakeContext, key: { uid: string } & TurnKey, signal?: AbortSignal): Promise<void> {
  const { uid } = key;
  const listing = await own(context, uid, signal);
  const agent = find(listing, agentName(uid, key));
  if (agent === undefined) {
    throw new BackendError(
      "NotFound",
      "UnitNotFound",
      `agent "${agentName(uid, key)}" does not exist: create it first`,
    );
  }
  if (agent.state !== "created") return;
  const holder = listing.containers.find((unit) => unit.id === agent.joins);
  const guard = find(listing, unitName(uid, "guard"));
  if (holder?.state !== "running" || guard?.state !== "running") {
    const why = `its holder is ${holder?.state ?? "absent"} and its guard ${guard?.state ?? "absent"}`;
    throw refused(context, { verb: "startAgent", uid }, "GuardNotRunning", why);
  }
  await context.engine(signal).startContainer(uid, agent.id);
}

async function removeUnits(
  context: FakeContext,
  uid: string,
  unitIds: readonly string[],
  signal?: AbortSignal,
): Promise<void> {
  const engine = context.engine(signal);
  const { containers } = await own(context, uid, signal);
  const chosen = containers.filter((unit) => unitIds.includes(unit.id));
  const left = containers.filter((unit) => !unitIds.includes(unit.id));
  const working = left.find((unit) => unit.role === "agent" && unit.state === "running");
  if (working !== undefined && chosen.some((unit) => isGuarding(unit) && unit.state === "running")) {
    throw refused(context, { verb: "removeUnits", uid }, "AgentRunning", `"${working.engineName}" still runs`);
  }
  for (const role of REMOVAL_ORDER) {
    for (const unit of chosen.filter((one) => one.role === role)) {
      if (unit.state === "running") {
        await unless("NotFound", engine.stopContainer(uid, unit.id, { code: 143, oom: false }));
      }
      await unless("NotFound", engine.removeContainer(uid, unit.id));
    }
  }
  const { volumes } = await own(context, uid, signal);
  const sockets = volumes.find((volume) => volume.part === "sockets");
  if (!left.some(isGuarding) && sockets !== undefined) {
    await unless("NotFound", engine.removeVolume(uid, sockets.id));
  }
}

function isGuarding(unit: { role: Role }): boolean {
  return unit.role === "holder" || unit.role === "guard";
}

async function removeDisk(context: FakeContext, uid: string, signal?: AbortSignal): Promise<void> {
  const { containers, volumes } = await own(context, uid, signal);
  const unit = containers[0];
  if (unit !== undefined) {
    throw refused(context, { verb: "removeDisk", uid }, "DiskInUse", `"${unit.engineName}" is still there`);
  }
  for (const volume of volumes) {
    await unless("NotFound", context.engine(signal).removeVolume(uid, volume.id));
  }
}

async function ensureVolumes(
  context: FakeContext,
  identity: BottleIdentity,
  options: { parts: readonly DiskPart["part"][]; signal?: AbortSignal },
): Promise<void> {
  const { uid } = identity;
  const engine = context.engine(options.signal);
  const { volumes } = await own(context, uid, options.signal);
  for (const part of options.parts) {
    const id = volumeName(uid, part);
    const known = volumes.find((volume) => volume.id === id);
    if (known === undefined) await engine.createVolume({ ...identityOf(identity), id, owner: context.owner, part });
    if (known?.seeded !== true && part !== "sockets") await engine.seedVolume(uid, id);
  }
}

async function view(context: FakeContext, signal?: AbortSignal): Promise<Observation["bottles"]> {
  const { containers, volumes } = await context.engine(signal).list();
  const bottles = new Map<string, BottleView & { units: Unit[]; disk: DiskPart[] }>();
  const bottleOf = (object: BottleIdentity) => {
    const known = bottles.get(object.uid) ?? { ...identityOf(object), units: [], disk: [] };
    bottles.set(object.uid, known);
    return known;
  };
  for (const unit of containers) {
    if (unit.owner !== context.owner) continue;
    const { id, role, state, specHash, turn, createdMs, startedMs, finishedMs, exit } = unit;
    bottleOf(unit).units.push({ id, role, state, specHash, turn, createdMs, startedMs, finishedMs, exit });
  }
  for (const volume of volumes) {
    if (volume.owner !== context.owner) continue;
    const { id, part, createdMs } = volume;
    bottleOf(volume).disk.push({ id, part, kind: "Volume", createdMs });
  }
  return bottles;
}

/** The world remembers it, so that a simulation without faults can demand that a plan never asks for what is refused. */
function refused(
  context: FakeContext,
  asked: { verb: string; uid: string },
  reason: string,
  why: string,
): BackendError {
  context.world.refusals.push({ ...asked, why });
  return new BackendError("Conflict", reason, `cannot ${asked.verb} for bottle "${asked.uid}": ${why}: look again`);
}
