import type { ContainerCreateOptions } from "dockerode";
import { BackendError, type AgentRun, type Blueprint } from "../../controller/ports/backend.ts";
import type { TurnKey } from "../../controller/ports/journal.ts";
import { refuseMissingCommand } from "./command.ts";
import {
  inspectUnit,
  guardSurroundings,
  requireUnit,
  surroundings,
  type Context,
  type InspectedUnit,
} from "./context.ts";
import { ensureDisk, ensureVolume } from "./disk.ts";
import { isKind, isNotModified } from "./errors.ts";
import { ensureImage, namingImage } from "./image.ts";
import { agentName, unitName } from "./names.ts";
import { agentSpec, guardSpec, holderSpec } from "./specs.ts";
import { putUpstreamCa, upstreamAuthorities } from "./upstream-ca.ts";

/** Image, disk, holder and guard. Whatever does not need one another runs at the same time: the wait is the engine's start of one container. */
export async function prepare(context: Context, blueprint: Blueprint, signal?: AbortSignal): Promise<void> {
  // Read before anything runs: a holder probes when it starts, and one that waited for its guard until somebody mended the file would have failed.
  const upstreamCa = await upstreamAuthorities(context);
  const [, around] = await all([
    ensureImage(context, blueprint.image, signal),
    guardSurroundings(context),
    ensureVolume(context, blueprint, "sockets", signal),
  ]);
  const disk = ensureDisk(context, blueprint, signal);
  const trusted = () => putUpstreamCa(context, unitName(blueprint.uid, "guard"), { pem: upstreamCa, signal });
  await all([
    disk,
    ensureRunning(context, blueprint, { role: "holder", spec: holderSpec(blueprint, around) }, signal),
    // A bottle whose holder and guard run beside its volumes is not prepared again, and of a volume nobody can tell whether it was handed over:
    // so the guard starts last, on a disk that is ready, whatever happens in between.
    ensureRunning(
      context,
      blueprint,
      { role: "guard", spec: guardSpec(blueprint, around), after: () => all([disk, trusted()]) },
      signal,
    ),
  ]);
}

/** Like Promise.all, but nothing is still at work on the engine when it throws. */
async function all<T extends readonly Promise<unknown>[]>(
  promises: readonly [...T],
): Promise<{ -readonly [K in keyof T]: Awaited<T[K]> }> {
  await Promise.allSettled(promises);
  return Promise.all(promises);
}

interface Wanted {
  role: "holder" | "guard";
  spec: ContainerCreateOptions;
  /** What must be done between its creation and its start. */
  after?: () => Promise<unknown>;
}

async function ensureRunning(
  context: Context,
  blueprint: Blueprint,
  wanted: Wanted,
  signal?: AbortSignal,
): Promise<void> {
  const name = unitName(blueprint.uid, wanted.role);
  const created = await createNew(context, wanted.spec, { role: wanted.role, name, signal });
  if (!created) {
    const found = await existing(context, { role: wanted.role, name, signal });
    if (found.facts.specHash !== blueprint.specHash) {
      throw new BackendError("Conflict", "SpecChanged", `"${name}" was made from another blueprint: remove it first`);
    }
    if (found.State.Running) return;
    if (found.State.Status !== "created") {
      throw new BackendError(
        "Conflict",
        "UnitExited",
        `"${name}" has exited and is never started again: remove it first`,
      );
    }
  }
  await wanted.after?.();
  await start(context, { role: wanted.role, name, signal });
}

interface Named {
  role: string;
  name: string;
  signal?: AbortSignal | undefined;
}

/** False if a container has that name already. */
async function createNew(
  context: Context,
  spec: ContainerCreateOptions,
  { role, name, signal }: Named,
): Promise<boolean> {
  const { docker, call } = context.engine;
  try {
    await call(`container.create:${role}`, (abortSignal) => docker.createContainer({ ...spec, abortSignal }), {
      signal,
      subject: name,
    });
    return true;
  } catch (error) {
    if (isKind(error, "Conflict")) return false;
    throw error;
  }
}

/** What has the name that was wanted. Somebody else's object is refused; one that vanished since is for the next pass. */
async function existing(context: Context, { role, name, signal }: Named): Promise<InspectedUnit> {
  const found = await inspectUnit(context, name, { role, signal });
  if (found !== undefined) return found;
  const message = `the name "${name}" is taken on the Docker Engine by an object of another installation: remove or rename it`;
  throw new BackendError("Conflict", "ForeignObject", message);
}

async function start(context: Context, { role, name, signal }: Named): Promise<void> {
  const { docker, call } = context.engine;
  try {
    await call(`container.start:${role}`, (abortSignal) => docker.getContainer(name).start({ abortSignal }), {
      signal,
      subject: name,
    });
  } catch (error) {
    if (!isNotModified(error)) throw error;
  }
}

export async function createAgent(
  context: Context,
  blueprint: Blueprint,
  run: AgentRun,
  signal?: AbortSignal,
): Promise<void> {
  const name = agentName(blueprint.uid, run);
  try {
    const spec = agentSpec(blueprint, run, await surroundings(context));
    const created = await createNew(context, spec, { role: "agent", name, signal });
    // The name was taken: by this bottle's own unit, or by somebody else's, which is refused.
    if (!created) await existing(context, { role: "agent", name, signal });
  } catch (error) {
    // The engine looks up the namespace to join at creation.
    if (isKind(error, "NotFound") && error.reason === "NotFound") {
      throw new BackendError("Conflict", "HolderGone", error.message, { cause: error });
    }
    throw namingImage(error, blueprint.image ?? "");
  }
}

export async function startAgent(
  context: Context,
  unit: { uid: string } & TurnKey,
  signal?: AbortSignal,
): Promise<void> {
  const name = agentName(unit.uid, unit);
  const [found, holder, guard] = await all([
    requireUnit(context, name, { role: "agent", signal }),
    inspectUnit(context, unitName(unit.uid, "holder"), { role: "holder", signal }),
    inspectUnit(context, unitName(unit.uid, "guard"), { role: "guard", signal }),
  ]);
  // An engine starts an exited container again without a word, and the prompt would be delivered twice.
  if (found.State.Status !== "created") return;
  if (holder?.State.Running !== true || guard?.State.Running !== true) {
    throw new BackendError(
      "Conflict",
      "GuardNotRunning",
      `"${name}" is not started: its holder and guard do not both run`,
    );
  }
  const command = found.Config.Entrypoint?.[0] ?? found.Path;
  await refuseMissingCommand(context, found, signal);
  try {
    await start(context, { role: "agent", name, signal });
  } catch (error) {
    throw namingCommand(error, command);
  }
}

function namingCommand(error: unknown, command: string): unknown {
  if (!(error instanceof BackendError) || error.reason !== "CommandNotFound") return error;
  return new BackendError("Invalid", "CommandNotFound", `cannot run "${command}" in this image: ${error.message}`, {
    cause: error,
  });
}

/** Seconds are the engine's unit. A stopped, a never started and an absent unit are all stopped. */
export async function stopAgent(
  context: Context,
  unit: { uid: string } & TurnKey,
  { graceMs, signal }: { graceMs: number; signal?: AbortSignal | undefined },
): Promise<void> {
  const { docker, call } = context.engine;
  const name = agentName(unit.uid, unit);
  const found = await inspectUnit(context, name, { role: "agent", signal });
  if (found === undefined || !found.State.Running) return;
  const t = Math.ceil(graceMs / 1000);
  try {
    await call("container.stop:agent", (abortSignal) => docker.getContainer(name).stop({ t, abortSignal }), {
      signal,
      timeoutMs: graceMs + 60_000,
      subject: name,
    });
  } catch (error) {
    if (!isNotModified(error) && !isKind(error, "NotFound")) throw error;
  }
}
