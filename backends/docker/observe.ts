import type { ContainerInfo, VolumeInspectInfo } from "dockerode";
import type { BottleView, DiskPart, Observation, Role, Unit } from "../../controller/ports/backend.ts";
import type { Context } from "./context.ts";
import { orAbsent } from "./errors.ts";
import { ownerFilter, readLabels, type LabelFacts } from "./names.ts";

type Facts = Pick<Unit, "startedMs" | "finishedMs" | "exit">;

interface Known {
  state: Unit["state"];
  facts: Facts;
}

/** Inspections at a time when many units are new at once. */
const INSPECT_AT_ONCE = 16;

/**
 * Returns the look at everything this installation owns: two lists, and an inspection for each unit whose times or exit code are not
 * known yet. What was learned of an exited unit never changes, and a running one has but a start time, so both are kept by id.
 */
export function createObserver(context: Context): (signal?: AbortSignal) => Promise<Observation> {
  const known = new Map<string, Known>();
  return async (signal) => {
    const atMs = context.now();
    const announced = [...context.ended];
    const [containers, volumes] = await list(context, signal);
    for (const id of announced) if (!containers.some(({ Id }) => Id === id)) context.ended.delete(id);
    await learn(context, known, containers, signal);
    const bottles = new Map<string, { facts: LabelFacts; units: Unit[]; disk: DiskPart[] }>();
    const bottle = (facts: LabelFacts) => {
      const entry = bottles.get(facts.uid) ?? { facts, units: [], disk: [] };
      bottles.set(facts.uid, entry);
      return entry;
    };
    for (const container of containers) {
      const facts = readLabels(container.Labels);
      const unit = facts === undefined ? undefined : toUnit(container, facts, known);
      if (facts !== undefined && unit !== undefined) bottle(facts).units.push(unit);
    }
    for (const volume of volumes) {
      const facts = readLabels(volume.Labels);
      const part = facts === undefined ? undefined : toPart(volume, facts);
      if (facts !== undefined && part !== undefined) bottle(facts).disk.push(part);
    }
    return { atMs, bottles: new Map([...bottles].map(([uid, entry]) => [uid, toView(entry)])) };
  };
}

async function list(context: Context, signal?: AbortSignal): Promise<[ContainerInfo[], VolumeInspectInfo[]]> {
  const { docker, call } = context.engine;
  const filters = { label: [ownerFilter(context.owner)] };
  const [containers, volumes] = await Promise.all([
    call("container.list", (abortSignal) => docker.listContainers({ all: true, filters, abortSignal }), { signal }),
    call("volume.list", (abortSignal) => docker.listVolumes({ filters, abortSignal }), { signal }),
  ]);
  return [containers, volumes.Volumes ?? []];
}

/** Inspects what is not known yet and forgets what is gone. Two looks at once may inspect the same unit; both learn the same. */
async function learn(
  context: Context,
  known: Map<string, Known>,
  containers: readonly ContainerInfo[],
  signal?: AbortSignal,
): Promise<void> {
  const present = new Set(containers.map(({ Id }) => Id));
  for (const id of known.keys()) if (!present.has(id)) known.delete(id);
  const unknown = containers.filter((container) => {
    const state = toState(container.State);
    // Of holder and guard nobody needs to know since when they run. An inspection is never behind the engine's events, as a list is.
    const needed = state === "exited" || (state === "running" && readLabels(container.Labels)?.role === "agent");
    const stale = state === "running" && context.ended.has(container.Id);
    return stale || (needed && known.get(container.Id)?.state !== state);
  });
  for (let index = 0; index < unknown.length; index += INSPECT_AT_ONCE) {
    const chunk = unknown.slice(index, index + INSPECT_AT_ONCE);
    await Promise.all(chunk.map(({ Id }) => inspectInto(context, known, Id, signal)));
  }
}

async function inspectInto(
  context: Context,
  known: Map<string, Known>,
  id: string,
  signal?: AbortSignal,
): Promise<void> {
  const { docker, call } = context.engine;
  const found = await orAbsent(
    call("container.inspect", (abortSignal) => docker.getContainer(id).inspect({ abortSignal }), {
      signal,
      subject: id,
    }),
  );
  // Gone since the list: the next look will not show it.
  if (found === undefined) return;
  const state = toState(found.State.Status);
  const startedMs = toMs(found.State.StartedAt);
  const ended = toMs(found.State.FinishedAt);
  // The engine notes the start after the fact: a program that ends at once may have ended before it began.
  const finishedMs = ended === undefined ? undefined : Math.max(ended, startedMs ?? ended);
  known.set(id, {
    state,
    facts: {
      ...(startedMs === undefined ? {} : { startedMs }),
      ...(state === "exited" && finishedMs !== undefined ? { finishedMs } : {}),
      ...(state === "exited" ? { exit: { code: found.State.ExitCode, oom: found.State.OOMKilled } } : {}),
    },
  });
}

/** The engine's own words. Paused and restarting have a process; removing and dead have none left. */
function toState(state: string): Unit["state"] {
  if (state === "created") return "created";
  return state === "running" || state === "paused" || state === "restarting" ? "running" : "exited";
}

/** The engine writes the year 1 for what has not happened. */
function toMs(time: string): number | undefined {
  const ms = Date.parse(time);
  return ms > 0 ? ms : undefined;
}

function toUnit(container: ContainerInfo, facts: LabelFacts, known: ReadonlyMap<string, Known>): Unit | undefined {
  const { role } = facts;
  if (!isRole(role)) return undefined;
  const learned = known.get(container.Id);
  return {
    id: container.Id,
    role,
    // A unit that exited between the list and its inspection is shown as it was inspected.
    state: learned?.state ?? toState(container.State),
    specHash: facts.specHash,
    createdMs: facts.createdMs,
    ...(facts.turn === undefined ? {} : { turn: facts.turn }),
    ...learned?.facts,
  };
}

function toPart(volume: VolumeInspectInfo, facts: LabelFacts): DiskPart | undefined {
  const { role } = facts;
  if (role !== "home" && role !== "workspace" && role !== "sockets") return undefined;
  return { id: volume.Name, part: role, kind: "Volume", createdMs: facts.createdMs };
}

function isRole(role: string): role is Role {
  return role === "agent" || role === "session" || role === "holder" || role === "guard";
}

function byId(a: { id: string }, b: { id: string }): number {
  return a.id < b.id ? -1 : 1;
}

function toView({ facts, units, disk }: { facts: LabelFacts; units: Unit[]; disk: DiskPart[] }): BottleView {
  // Engines list in no order of their own, and what did not change must look the same.
  const { uid, namespace, name } = facts;
  return { uid, namespace, name, units: units.sort(byId), disk: disk.sort(byId) };
}
