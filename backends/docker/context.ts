import type { ContainerInspectInfo } from "dockerode";
import { BackendError } from "../../controller/ports/backend.ts";
import type { Log } from "../../controller/ports/log.ts";
import type { GuardOptions } from "../guard-launch.ts";
import type { CallOptions, Engine } from "./engine.ts";
import { orAbsent } from "./errors.ts";
import { ensureGuardImage, planGuardImage } from "./guard-image.ts";
import { ownerFilter, readLabels, uidFilter, type LabelFacts, type Labels } from "./names.ts";
import type { GuardSurroundings, Surroundings } from "./specs.ts";

/** What every verb of this backend works with. */
export interface Context {
  readonly owner: string;
  readonly now: () => number;
  readonly log: Log;
  readonly engine: Engine;
  /**
   * Ids of containers whose end the engine has announced. It does so some 20 ms before its lists show it, and the look that the
   * announcement brings would see them running and be the last one.
   */
  readonly ended: Set<string>;
  /** What the engine offers, asked once for each instance. */
  engineFacts(): Promise<EngineFacts>;
  /** Makes the guard image present and returns its id. */
  guardImage(): Promise<string>;
  readonly guard: GuardOptions;
}

export interface EngineFacts {
  /** Whether the engine has docker-init. */
  init: boolean;
  /** `bridge`, or `none` on an engine without it. */
  guardNetwork: string;
}

interface ContextOptions extends GuardOptions {
  owner: string;
  now: () => number;
  log: Log;
  engine: Engine;
  guardProgramDir?: string | undefined;
}

export function createContext(options: ContextOptions): Context {
  const { engine, log } = options;
  const facts = once(() => askEngine(engine));
  const plan = once(() => planGuardImage(options.guardProgramDir));
  return {
    owner: options.owner,
    now: options.now,
    log,
    engine,
    ended: new Set(),
    engineFacts: facts,
    // One import at a time: bottles that are launched together wait for the same one. Looked up each time: an image can be pruned.
    guardImage: shared(async () => ensureGuardImage({ engine, log, image: await plan() })),
    guard: { guardDns: options.guardDns, guardUpstreamCa: options.guardUpstreamCa },
  };
}

/** Shares one run among callers and keeps its result; a failure is forgotten, so that the next caller tries again. */
function once<T>(make: () => Promise<T>): () => Promise<T> {
  let made: Promise<T> | undefined;
  return () => {
    made ??= make().catch((error: unknown) => {
      made = undefined;
      throw error;
    });
    return made;
  };
}

/** Shares one run among the callers that come while it goes on. */
function shared<T>(make: () => Promise<T>): () => Promise<T> {
  let running: Promise<T> | undefined;
  return () => {
    running ??= make().finally(() => {
      running = undefined;
    });
    return running;
  };
}

async function askEngine({ docker, call }: Engine): Promise<EngineFacts> {
  const [info, bridge] = await Promise.all([
    call("engine.info", () => docker.info()),
    orAbsent(call("network.inspect", () => docker.getNetwork("bridge").inspect(), { subject: "bridge" })),
  ]);
  // Engines say N/A for a docker-init they cannot run. Without it the agent is PID 1, which ends by SIGKILL after its grace.
  const init = info.InitCommit?.ID !== "N/A" && info.InitBinary !== "";
  return { init, guardNetwork: bridge === undefined ? "none" : "bridge" };
}

export async function surroundings(context: Context): Promise<Surroundings> {
  const { init } = await context.engineFacts();
  return { init, owner: context.owner, createdMs: context.now() };
}

export async function guardSurroundings(context: Context): Promise<GuardSurroundings> {
  const [around, facts, guardImage] = await Promise.all([
    surroundings(context),
    context.engineFacts(),
    context.guardImage(),
  ]);
  const { guardDns = [], guardUpstreamCa } = context.guard;
  const { guardNetwork } = facts;
  return { ...around, guardNetwork, guardImage, guardDns, upstreamCa: guardUpstreamCa !== undefined };
}

/** A container of ours as a list shows it. */
export interface Listed {
  id: string;
  facts: LabelFacts;
  state: string;
}

/** All containers of one bottle, in any state. */
export async function listUnits(context: Context, uid: string, signal?: AbortSignal): Promise<Listed[]> {
  const { docker, call } = context.engine;
  const label = [ownerFilter(context.owner), uidFilter(uid)];
  const found = await call(
    "container.list",
    (abortSignal) => docker.listContainers({ all: true, filters: { label }, abortSignal }),
    { signal, subject: uid },
  );
  return found.flatMap(({ Id, Labels, State }) => {
    const facts = readLabels(Labels);
    return facts === undefined ? [] : [{ id: Id, facts, state: State }];
  });
}

/** Refuses an object that has our name and another owner: it is not ours to use, to start or to remove. */
export function ourLabels(context: Context, labels: Labels | null | undefined, name: string): LabelFacts {
  const facts = readLabels(labels);
  if (facts?.owner === context.owner) return facts;
  throw new BackendError(
    "Conflict",
    "ForeignObject",
    `"${name}" exists on the Docker Engine and belongs to ${facts === undefined ? "nobody known" : `installation "${facts.owner}"`}: remove or rename it`,
  );
}

export type InspectedUnit = ContainerInspectInfo & { facts: LabelFacts };

/** A container by name or id. `undefined` if there is none, and if it belongs to another installation: to us that is the same. */
export async function inspectUnit(
  context: Context,
  name: string,
  options: CallOptions & { role: string },
): Promise<InspectedUnit | undefined> {
  const { docker, call } = context.engine;
  const found = await orAbsent(
    call(`container.inspect:${options.role}`, (abortSignal) => docker.getContainer(name).inspect({ abortSignal }), {
      ...options,
      subject: name,
    }),
  );
  const facts = readLabels(found?.Config.Labels);
  return found === undefined || facts?.owner !== context.owner ? undefined : { ...found, facts };
}

/** As `inspectUnit`, for verbs that need the unit. */
export async function requireUnit(
  context: Context,
  name: string,
  options: CallOptions & { role: string },
): Promise<InspectedUnit> {
  const found = await inspectUnit(context, name, options);
  if (found !== undefined) return found;
  throw new BackendError("NotFound", "NotFound", `there is no ${options.role} "${name}" on the Docker Engine`);
}
