import { createContext, guardSurroundings, type Context } from "../../backends/docker/context.ts";
import { createEngine } from "../../backends/docker/engine.ts";
import { agentSpec, guardSpec, holderSpec } from "../../backends/docker/specs.ts";
import { createBackend } from "../../backends/index.ts";
import type { AgentRun, Backend, Blueprint } from "../../controller/ports/backend.ts";

const AT_ONCE = 4;
const LOG = { debug() {}, info() {}, warn() {}, error() {} };

/** Bottles made straight on the engine, without a controller. */
export interface ManyBottles {
  backend: Backend;
  context: Context;
  uids: readonly string[];
  /** Removes them all. */
  end(): Promise<void>;
}

/** Of so many bottles, each of holder, guard, agent and three volumes, the first `running` really run: starting a hundred would take minutes. */
export async function makeBottles(options: {
  count: number;
  running: number;
  image: string;
  stateDir: string;
}): Promise<ManyBottles> {
  const owner = `bench-${process.pid}`;
  const context = createContext({ owner, now: Date.now, log: LOG, engine: createEngine({}) });
  const backend = createBackend("docker", { owner, now: Date.now, log: LOG, stateDir: options.stateDir });
  const uids = Array.from({ length: options.count }, (_, n) => `${owner}-${n}`);
  const bottles: ManyBottles = { backend, context, uids, end: () => removeAll(backend, uids) };
  const run: AgentRun = { turn: "1", attempt: 1, argv: ["sleep", "600"], env: {} };
  try {
    await inTurns(uids, async (uid) => {
      const identity = { uid, namespace: "default", name: uid };
      const made = { image: options.image, env: {}, limits: {} };
      const blueprint: Blueprint = { ...identity, ...made, generation: 1, specHash: "0".repeat(32) };
      if (uids.indexOf(uid) < options.running) await start(backend, blueprint, run);
      else await create(context, blueprint, run);
    });
  } catch (error) {
    await bottles.end();
    throw error;
  }
  return bottles;
}

async function start(backend: Backend, blueprint: Blueprint, run: AgentRun): Promise<void> {
  await backend.prepare(blueprint);
  await backend.createAgent(blueprint, run);
  await backend.startAgent({ uid: blueprint.uid, ...run });
}

/** The mounts make the volumes. */
async function create(context: Context, blueprint: Blueprint, run: AgentRun): Promise<void> {
  const around = await guardSurroundings(context);
  const { docker } = context.engine;
  for (const spec of [holderSpec(blueprint, around), guardSpec(blueprint, around), agentSpec(blueprint, run, around)]) {
    await docker.createContainer(spec);
  }
}

async function removeAll(backend: Backend, uids: readonly string[]): Promise<void> {
  const { bottles } = await backend.observe();
  await inTurns(uids, async (uid) => {
    const units = bottles.get(uid)?.units ?? [];
    await backend.removeUnits(
      uid,
      units.map((unit) => unit.id),
    );
    await backend.removeDisk(uid);
  });
}

async function inTurns<T>(items: readonly T[], work: (item: T) => Promise<void>): Promise<void> {
  const left = [...items];
  const worker = async (): Promise<void> => {
    for (let item = left.shift(); item !== undefined; item = left.shift()) await work(item);
  };
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
}
