import { describe, expect, it } from "vitest";
import { Engine, type ContainerDraft } from "../../backends/fake/engine.ts";
import {
  CALL_FAULTS,
  ControllerCrash,
  createFakeBackend,
  InvariantViolation,
  World,
  type Fault,
  type WorldVerb,
} from "../../backends/fake/index.ts";
import type { AgentRun, Backend, Blueprint } from "../../controller/ports/backend.ts";
import { agentOf, failure, FIRST, parts, states, text } from "./bottles.ts";

const START_MS = 1_800_000_000_000;
const UID = "uid-1";
const BLUEPRINT: Blueprint = {
  uid: UID,
  namespace: "default",
  name: "fix-login",
  generation: 1,
  specHash: "spec-1",
  image: "agent:1",
  env: {},
  limits: {},
};
const RUN: AgentRun = { ...FIRST, argv: ["agent"], env: {} };
const UNIT = { uid: UID, ...FIRST };

/** A world whose next call of that verb fails in that way, once. */
function failing(world: World, verb: WorldVerb, fault: Fault): void {
  world.faults = {
    beforeCall(call) {
      if (call.verb !== verb) return undefined;
      world.faults = {};
      return fault;
    },
  };
}

async function running(program: World["program"] = () => ({})): Promise<{ world: World; backend: Backend }> {
  const world = new World({ nowMs: START_MS, guarded: false });
  world.program = program;
  const backend = createFakeBackend({ world, owner: "us" });
  await backend.prepare(BLUEPRINT);
  await backend.createAgent(BLUEPRINT, RUN);
  await backend.startAgent(UNIT);
  return { world, backend };
}

async function viewOf(backend: Backend) {
  return (await backend.observe()).bottles.get(UID);
}

async function launch(backend: Backend): Promise<void> {
  await backend.prepare(BLUEPRINT);
  await backend.createAgent(BLUEPRINT, RUN);
  await backend.startAgent(UNIT);
}

describe("faults of the fake's calls", () => {
  it.each([
    ["error-before", "Transient", 0],
    ["error-after", "Transient", 1],
    ["unavailable", "Unavailable", 0],
  ] as const)("%s shows the caller %s and has %i effects", async (fault, kind, effects) => {
    const world = new World({ nowMs: START_MS, guarded: false });
    failing(world, "createVolume", fault);

    const seen = await failure(createFakeBackend({ world, owner: "us" }).prepare(BLUEPRINT));

    expect(seen?.kind).toBe(kind);
    expect(world.volumes.size).toBe(effects);
  });

  it.each([
    ["crash-before", 0],
    ["crash-after", 1],
  ] as const)(
    "%s ends the process after %i effects, and nothing of it reaches the world again",
    async (fault, effects) => {
      const world = new World({ nowMs: START_MS, guarded: false });
      const process = { crashed: false };
      const backend = createFakeBackend({ world, owner: "us", process });
      failing(world, "createVolume", fault);

      await expect(backend.prepare(BLUEPRINT)).rejects.toBeInstanceOf(ControllerCrash);
      await expect(backend.prepare(BLUEPRINT)).rejects.toBeInstanceOf(ControllerCrash);

      expect(process.crashed).toBe(true);
      expect(world.volumes.size).toBe(effects);
      await createFakeBackend({ world, owner: "us" }).prepare(BLUEPRINT);
      expect(states(await viewOf(createFakeBackend({ world, owner: "us" })))).toEqual([
        "guard running",
        "holder running",
      ]);
    },
  );

  it("a launch that fails in any way at any call is finished by the next one", async () => {
    const whole = await running();
    const count = whole.world.calls.length;
    for (let number = 1; number <= count; number += 1) {
      for (const fault of CALL_FAULTS) {
        const world = new World({ nowMs: START_MS, guarded: false });
        world.faults = { beforeCall: (call) => (call.number === number ? fault : undefined) };
        await expect(launch(createFakeBackend({ world, owner: "us" })), `${fault} at ${number}`).rejects.toThrow();

        const backend = createFakeBackend({ world, owner: "us" });
        await launch(backend);

        expect(states(await viewOf(backend))).toEqual(["agent running", "guard running", "holder running"]);
        expect(world.startedRuns).toHaveLength(1);
      }
    }
    expect(count).toBeGreaterThan(12);
  });

  it("a stale list shows what was, and one bottle's verbs still see what is", async () => {
    const { world, backend } = await running();
    world.exitAgent(UID, { code: 0 });
    failing(world, "list", { type: "stale", steps: 2 });

    const stale = await viewOf(backend);
    const fresh = await viewOf(backend);

    expect(agentOf(stale, FIRST)?.state).toBe("running");
    expect(agentOf(fresh, FIRST)?.state).toBe("exited");
  });

  it("an engine that is down cannot be observed, and says so when asked", async () => {
    const { world, backend } = await running();
    world.down = true;

    expect((await failure(backend.observe()))?.kind).toBe("Unavailable");
    expect(await backend.available()).toMatchObject({ ok: false });
  });

  it("hints can be lost", async () => {
    const { world, backend } = await running();
    const hinted: string[] = [];
    const watching = new AbortController();
    backend.watch((uid) => hinted.push(uid), watching.signal);
    world.faults = { loseHint: () => true };
    world.exitAgent(UID, { code: 0 });
    const lost = hinted.length;
    world.faults = {};
    world.killUnit(UID, "guard");
    watching.abort();
    world.killUnit(UID, "holder");

    expect([lost, hinted]).toEqual([0, [UID]]);
  });
});

function engineOf(world: World): Engine {
  return new Engine({ world, process: { crashed: false } });
}

function idOf(world: World, role: string): string {
  return world.unitsOf(UID).find((unit) => unit.role === role)?.id ?? "";
}

function agentDraft(world: World, turn: string): ContainerDraft {
  return {
    uid: UID,
    namespace: "default",
    name: "fix-login",
    engineName: `agent-${turn}`,
    owner: "us",
    specHash: "spec-1",
    role: "agent",
    turn: { turn, attempt: 1 },
    argv: [],
    env: {},
    volumes: [],
    joins: idOf(world, "holder"),
  };
}

async function history() {
  const { world, backend } = await running(() => ({ code: 0, output: "x" }));
  world.advance(10);
  await Promise.all([backend.prepare({ ...BLUEPRINT, uid: "uid-2" }), backend.prepare({ ...BLUEPRINT, uid: "uid-3" })]);
  return { calls: world.calls, containers: [...world.containers.values()], volumes: [...world.volumes.values()] };
}

/** Each is done past the backend, with primitive calls: the backend itself never does it. */
describe("invariants of the fake world", () => {
  it.each<[string, (world: World) => Promise<unknown>, RegExp]>([
    [
      "an agent without its guard",
      async (world) => {
        await engineOf(world).createContainer(agentDraft(world, "2"));
        world.killUnit(UID, "agent");
        world.killUnit(UID, "guard");
        return engineOf(world).startContainer(UID, world.unitsOf(UID).at(-1)?.id ?? "");
      },
      /started while its guard was exited/,
    ],
    [
      "a second start of an agent",
      async (world) => {
        world.exitAgent(UID, { code: 0 });
        return engineOf(world).startContainer(UID, idOf(world, "agent"));
      },
      /was started 2 times/,
    ],
    [
      "two agents at a time",
      async (world) =>
        engineOf(world).startContainer(UID, await engineOf(world).createContainer(agentDraft(world, "2"))),
      /two agents/,
    ],
    [
      "a guard stopped under its agent",
      (world) => engineOf(world).stopContainer(UID, idOf(world, "guard"), { code: 0, oom: false }),
      /guard of bottle "uid-1" was stopped under its running agent/,
    ],
    [
      "a holder removed under its agent",
      (world) => engineOf(world).removeContainer(UID, idOf(world, "holder")),
      /holder of bottle "uid-1" was stopped under its running agent/,
    ],
    [
      "a disk removed while units are there",
      async (world) => {
        world.exitAgent(UID, { code: 0 });
        await engineOf(world).removeContainer(UID, idOf(world, "agent"));
        return engineOf(world).removeVolume(UID, `bot-bottle-${UID}-home`);
      },
      /was removed while bottle "uid-1" had/,
    ],
    [
      "an agent on a disk that is not its own",
      async (world) => {
        world.exitAgent(UID, { code: 0 });
        const volume = { uid: UID, namespace: "default", name: "fix-login", id: "raw", owner: "us" };
        await engineOf(world).createVolume({ ...volume, part: "home" });
        const id = await engineOf(world).createContainer({ ...agentDraft(world, "2"), volumes: ["raw"] });
        return engineOf(world).startContainer(UID, id);
      },
      /which its user does not own/,
    ],
  ])("%s is found, and stays found", async (_name, act, words) => {
    const { world } = await running();
    world.check();

    await expect(act(world)).rejects.toThrow(words);

    expect(() => world.check()).toThrow(InvariantViolation);
  });

  it("what a backend is asked and must refuse is remembered", async () => {
    const { world, backend } = await running();

    await failure(backend.removeDisk(UID));
    world.killUnit(UID, "agent");
    world.killUnit(UID, "guard");
    await backend.createAgent(BLUEPRINT, { ...RUN, turn: "2" });
    await failure(backend.startAgent({ uid: UID, turn: "2", attempt: 1 }));

    expect(world.refusals.map((refusal) => refusal.verb)).toEqual(["removeDisk", "startAgent"]);
    world.check();
  });
});

describe("what happens in the fake world", () => {
  it("a program reads what the one before it wrote, as long as the disk is there", async () => {
    const { world, backend } = await running((run) => ({
      code: 0,
      output: `${run.turn}/${run.attempt}: ${run.files.get("/workspace/note") ?? "nothing"}`,
      writes: { "/workspace/note": `written in ${run.turn}` },
    }));
    const said = async (turn: string) => text(backend.logs({ uid: UID, turn, attempt: 1 }, { follow: false }));
    const first = await said("1");
    const units = (await viewOf(backend))?.units.map((unit) => unit.id) ?? [];
    await backend.removeUnits(UID, units);
    const run = { ...RUN, turn: "2" };
    await backend.prepare(BLUEPRINT);
    await backend.createAgent(BLUEPRINT, run);
    await backend.startAgent({ uid: UID, turn: "2", attempt: 1 });

    expect([first, await said("2")]).toEqual(["1/1: nothing", "2/1: written in 1"]);
    expect(world.startedRuns).toEqual([
      { uid: UID, turn: "1", attempt: 1, role: "agent", atMs: START_MS, holder: "running", guard: "running" },
      { uid: UID, turn: "2", attempt: 1, role: "agent", atMs: START_MS, holder: "running", guard: "running" },
    ]);
  });

  it("time moves by the test alone, and programs end when it has come", async () => {
    const { world, backend } = await running(() => ({ code: 4, afterMs: 1_000 }));

    world.advance(999);
    const before = agentOf(await viewOf(backend), FIRST);
    world.advance(5_000);
    const after = agentOf(await viewOf(backend), FIRST);

    expect(before?.state).toBe("running");
    expect(after).toMatchObject({ state: "exited", exit: { code: 4, oom: false }, finishedMs: START_MS + 1_000 });
    expect(world.now()).toBe(START_MS + 5_999);
  });

  it("an agent ends as the test says, with its last words and files", async () => {
    const { world, backend } = await running(() => ({ output: "begun " }));

    world.exitAgent(UID, { code: 137, oom: true, output: "ended", writes: { "/home/agent/last": "words" } });

    expect(agentOf(await viewOf(backend), FIRST)?.exit).toEqual({ code: 137, oom: true });
    expect(await text(backend.logs(UNIT, { follow: true }))).toBe("begun ended");
    expect(() => world.exitAgent(UID, { code: 0 })).toThrow(/no agent of bottle/);
  });

  it("a restart of the engine ends everything that ran and keeps every disk", async () => {
    const { world, backend } = await running();

    world.restartEngine();

    const view = await viewOf(backend);
    expect(states(view)).toEqual(["agent exited", "guard exited", "holder exited"]);
    expect(view?.units.map((unit) => unit.exit?.code)).toEqual([137, 137, 137]);
    expect(parts(view)).toEqual(["home", "workspace"]);
    expect((await failure(backend.prepare(BLUEPRINT)))?.kind).toBe("Conflict");
  });

  it("what a person removed by hand is gone, and an agent does not join a new holder's namespace", async () => {
    const world = new World({ nowMs: START_MS, guarded: false });
    const backend = createFakeBackend({ world, owner: "us" });
    await backend.prepare(BLUEPRINT);
    await backend.createAgent(BLUEPRINT, RUN);
    world.removeBehindOurBack(world.unitsOf(UID).find((unit) => unit.role === "holder")?.id ?? "");
    const without = states(await viewOf(backend));
    await backend.prepare(BLUEPRINT);

    expect(without).toEqual(["agent created", "guard running"]);
    expect((await failure(backend.startAgent(UNIT)))?.kind).toBe("Conflict");
    expect(world.startedRuns).toEqual([]);
  });

  it("an image that does not exist is Invalid", async () => {
    const world = new World({ nowMs: START_MS, guarded: false });
    world.missingImages.add("agent:1");

    const refused = await failure(createFakeBackend({ world, owner: "us" }).prepare(BLUEPRINT));

    expect([refused?.kind, refused?.reason]).toEqual(["Invalid", "ImageNotFound"]);
    expect(world.volumes.size + world.containers.size).toBe(0);
  });

  it("the same history gives the same world", async () => {
    expect(await history()).toEqual(await history());
  });
});
