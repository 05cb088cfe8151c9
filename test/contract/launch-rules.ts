import { expect, it } from "vitest";
import { HOME, WORKSPACE } from "../../controller/ports/backend.ts";
import { agentOf, archive, failure, FIRST, GRACE_MS, parts, states, unitOf, type Suite } from "./bottles.ts";

/** An engine's clock may be another one than ours. */
const CLOCK_SKEW_MS = 2_000;

export function launchRules(suite: Suite): void {
  it("the engine is available", async () => {
    expect(await suite.bottles.bed.backend.available()).toMatchObject({ ok: true });
  });

  it("the verbs in order give a running agent, then an exited one with its exit code", async () => {
    const { bottles } = suite;
    const blueprint = bottles.blueprint();

    await bottles.bed.backend.prepare(blueprint);
    const prepared = await bottles.view(blueprint.uid);
    await bottles.started(blueprint, { type: "sleep", text: "" });
    await bottles.agentIn(blueprint.uid, FIRST, "running");
    await bottles.bed.backend.stopAgent({ uid: blueprint.uid, ...FIRST }, { graceMs: GRACE_MS });
    const second = await bottles.started(blueprint, { type: "exit", code: 7 }, { turn: "2" });
    const exited = await bottles.exited(blueprint.uid, second);

    expect(states(prepared)).toEqual(["guard running", "holder running"]);
    expect(parts(prepared)).toEqual(["home", "workspace"]);
    expect(exited.exit).toEqual({ code: 7, oom: false });
  });

  it("every verb twice is the same as once", async () => {
    const { bottles } = suite;
    const { backend } = bottles.bed;
    const blueprint = await bottles.prepared();
    const { uid } = blueprint;
    const first = await bottles.view(uid);

    await backend.prepare(blueprint);
    expect(await bottles.view(uid)).toEqual(first);

    await backend.createAgent(blueprint, bottles.run({ type: "sleep", text: "first" }));
    const created = await bottles.view(uid);
    await backend.createAgent(blueprint, bottles.run({ type: "sleep", text: "second" }));
    expect(await bottles.view(uid)).toEqual(created);

    await backend.startAgent({ uid, ...FIRST });
    const running = await bottles.agentIn(uid, FIRST, "running");
    await backend.startAgent({ uid, ...FIRST });
    expect(agentOf(await bottles.view(uid), FIRST)).toEqual(running);

    await backend.stopAgent({ uid, ...FIRST }, { graceMs: GRACE_MS });
    const stopped = agentOf(await bottles.view(uid), FIRST);
    await backend.stopAgent({ uid, ...FIRST }, { graceMs: GRACE_MS });
    expect(agentOf(await bottles.view(uid), FIRST)).toEqual(stopped);
    expect(stopped?.state).toBe("exited");

    const ids = (await bottles.view(uid))?.units.map((unit) => unit.id) ?? [];
    await backend.removeUnits(uid, ids);
    await backend.removeUnits(uid, ids);
    expect(states(await bottles.view(uid))).toEqual([]);
    await backend.removeDisk(uid);
    await backend.removeDisk(uid);
    expect(await bottles.view(uid)).toBeUndefined();
  });

  it("prepare finishes a launch of which only one unit is there", async () => {
    const { bottles } = suite;
    const blueprint = await bottles.prepared();
    const { uid } = blueprint;
    for (const [removed, kept] of [
      ["guard", "holder"],
      ["holder", "guard"],
    ] as const) {
      const before = await bottles.view(uid);
      await bottles.bed.backend.removeUnits(uid, [unitOf(before, removed).id]);

      await bottles.bed.backend.prepare(blueprint);

      const after = await bottles.view(uid);
      expect(states(after)).toEqual(["guard running", "holder running"]);
      expect(unitOf(after, kept).id).toBe(unitOf(before, kept).id);
    }
    const holderId = unitOf(await bottles.view(uid), "holder").id;
    expect(await bottles.bed.backend.probe({ uid, holderId })).toMatchObject({ passed: true });
  });

  it("prepare with another spec hash is Conflict and touches nothing", async () => {
    const { bottles } = suite;
    const blueprint = await bottles.prepared();
    const before = await bottles.view(blueprint.uid);

    const refused = await failure(bottles.bed.backend.prepare({ ...blueprint, specHash: "spec-2" }));

    expect(refused?.kind).toBe("Conflict");
    expect(await bottles.view(blueprint.uid)).toEqual(before);
  });

  it("the probe passes in a fresh bottle", async () => {
    const { bottles } = suite;
    const { uid } = await bottles.prepared();
    const holderId = unitOf(await bottles.view(uid), "holder").id;

    const report = await bottles.bed.backend.probe({ uid, holderId });

    expect(report, report.detail).toMatchObject({ passed: true });
    expect(report.detail).not.toContain("\n");
  });

  it("a verb whose caller has given up fails and makes nothing", async () => {
    const { bottles } = suite;
    const blueprint = bottles.blueprint();

    const refused = await failure(bottles.bed.backend.prepare(blueprint, AbortSignal.abort()));

    expect(refused?.kind).toBe("Transient");
    expect(states(await bottles.view(blueprint.uid))).toEqual([]);
  });

  it("an agent that ends is hinted at within ten seconds", async () => {
    const { bottles } = suite;
    const blueprint = await bottles.prepared();
    await bottles.bed.backend.createAgent(blueprint, bottles.run({ type: "exit", code: 0 }));
    const watching = new AbortController();
    const hinted = new Promise<string>((resolve) => {
      bottles.bed.backend.watch((uid) => uid === blueprint.uid && resolve(uid), watching.signal);
    });
    try {
      await bottles.bed.backend.startAgent({ uid: blueprint.uid, ...FIRST });
      const late = new Promise((_, reject) => {
        AbortSignal.timeout(10_000).addEventListener("abort", () => reject(new Error("no hint within 10 s")));
      });
      expect(await Promise.race([hinted, late])).toBe(blueprint.uid);
    } finally {
      watching.abort();
    }
  });
}

export function safetyRules(suite: Suite): void {
  it("an agent that was created and not started has not run", async () => {
    const { bottles } = suite;
    const blueprint = await bottles.prepared();

    await bottles.bed.backend.createAgent(
      blueprint,
      bottles.run({ type: "write", path: `${WORKSPACE}/ran`, text: "" }),
    );
    const after = await bottles.ran(blueprint, { type: "cat", path: `${WORKSPACE}/ran` }, { turn: "2" });

    const created = agentOf(await bottles.view(blueprint.uid), FIRST);
    expect(created?.state).toBe("created");
    expect(created?.exit).toBeUndefined();
    expect(after.code).not.toBe(0);
  });

  it("an agent that exited is never started again", async () => {
    const { bottles } = suite;
    const blueprint = await bottles.prepared();
    const path = `${WORKSPACE}/runs`;
    await bottles.ran(blueprint, { type: "append", path, text: "x" });
    const exited = agentOf(await bottles.view(blueprint.uid), FIRST);

    await bottles.bed.backend.startAgent({ uid: blueprint.uid, ...FIRST });
    await bottles.started(blueprint, { type: "append", path, text: "x" });

    expect(agentOf(await bottles.view(blueprint.uid), FIRST)).toEqual(exited);
    expect(await bottles.ran(blueprint, { type: "cat", path }, { turn: "2" })).toEqual({ code: 0, text: "x" });
  });

  it("an agent does not start without its guard", async () => {
    const { bottles } = suite;
    const blueprint = await bottles.prepared();
    await bottles.bed.backend.createAgent(blueprint, bottles.run({ type: "exit", code: 0 }));
    await bottles.bed.backend.removeUnits(blueprint.uid, [unitOf(await bottles.view(blueprint.uid), "guard").id]);

    const refused = await failure(bottles.bed.backend.startAgent({ uid: blueprint.uid, ...FIRST }));

    expect(refused?.kind).toBe("Conflict");
    expect(agentOf(await bottles.view(blueprint.uid), FIRST)?.state).toBe("created");
  });

  it("holder and guard are not taken from under an agent that runs", async () => {
    const { bottles } = suite;
    const blueprint = await bottles.prepared();
    await bottles.started(blueprint, { type: "sleep", text: "" });
    await bottles.agentIn(blueprint.uid, FIRST, "running");
    const before = await bottles.view(blueprint.uid);

    // A plan made from an older look does not know of the agent, and so does not name it.
    const refused = await failure(
      bottles.bed.backend.removeUnits(blueprint.uid, [unitOf(before, "holder").id, unitOf(before, "guard").id]),
    );

    expect(refused?.kind).toBe("Conflict");
    expect(await bottles.view(blueprint.uid)).toEqual(before);
  });

  it("removing the units of a bottle ends an agent that runs", async () => {
    const { bottles } = suite;
    const blueprint = await bottles.prepared();
    await bottles.started(blueprint, { type: "sleep", text: "" });

    await bottles.removeUnits(blueprint.uid);

    expect(states(await bottles.view(blueprint.uid))).toEqual([]);
    expect(parts(await bottles.view(blueprint.uid))).toEqual(["home", "workspace"]);
  });
}

export function diskRules(suite: Suite): void {
  it("what one run wrote the next one reads, after units were removed and made again", async () => {
    const { bottles } = suite;
    const blueprint = await bottles.prepared();
    await bottles.ran(blueprint, { type: "write", path: `${HOME}/note`, text: "at home" });
    await bottles.ran(blueprint, { type: "write", path: `${WORKSPACE}/note`, text: "at work" }, { turn: "2" });

    await bottles.removeUnits(blueprint.uid);
    const frozen = await bottles.view(blueprint.uid);
    await bottles.bed.backend.prepare(blueprint);
    const home = await bottles.ran(blueprint, { type: "cat", path: `${HOME}/note` }, { turn: "3" });
    const work = await bottles.ran(blueprint, { type: "cat", path: `${WORKSPACE}/note` }, { turn: "4" });

    expect([states(frozen), parts(frozen)]).toEqual([[], ["home", "workspace"]]);
    expect([home, work]).toEqual([
      { code: 0, text: "at home" },
      { code: 0, text: "at work" },
    ]);
  });

  it("a disk that was removed is empty when the bottle is made again", async () => {
    const { bottles } = suite;
    const blueprint = await bottles.prepared();
    await bottles.ran(blueprint, { type: "write", path: `${WORKSPACE}/note`, text: "old" });

    await bottles.removeUnits(blueprint.uid);
    await bottles.bed.backend.removeDisk(blueprint.uid);
    const gone = await bottles.view(blueprint.uid);
    await bottles.bed.backend.prepare(blueprint);
    const after = await bottles.ran(blueprint, { type: "cat", path: `${WORKSPACE}/note` });

    expect(gone).toBeUndefined();
    expect(after.code).not.toBe(0);
  });

  it("the disk of a bottle that has units is not removed", async () => {
    const { bottles } = suite;
    const blueprint = await bottles.prepared();
    const before = await bottles.view(blueprint.uid);

    const refused = await failure(bottles.bed.backend.removeDisk(blueprint.uid));

    expect(refused?.kind).toBe("Conflict");
    expect(await bottles.view(blueprint.uid)).toEqual(before);
  });

  it("a disk made for an import is filled before the first launch", async () => {
    const { bottles } = suite;
    const blueprint = bottles.blueprint();

    await bottles.bed.backend.createDisk(blueprint);
    await bottles.bed.backend.createDisk(blueprint);
    await bottles.bed.backend.copyIn(blueprint.uid, WORKSPACE, archive({ name: "note", bytes: "imported" }));
    await bottles.bed.backend.prepare(blueprint);
    await bottles.ran(blueprint, { type: "append", path: `${WORKSPACE}/note`, text: " and owned" });
    const note = await bottles.ran(blueprint, { type: "cat", path: `${WORKSPACE}/note` }, { turn: "2" });

    expect(note).toEqual({ code: 0, text: "imported and owned" });
  });

  it("two bottles do not see each other's disk", async () => {
    const { bottles } = suite;
    const [one, two] = [await bottles.prepared(), await bottles.prepared()];
    await bottles.ran(one, { type: "write", path: `${WORKSPACE}/note`, text: "mine" });

    const seen = await bottles.ran(two, { type: "cat", path: `${WORKSPACE}/note` });

    expect(seen.code).not.toBe(0);
    expect(seen.text).not.toContain("mine");
  });
}

export function ownerRules(suite: Suite): void {
  it("an observation tells whose each unit is, what it is, and when it was made", async () => {
    const { bottles } = suite;
    const now = bottles.bed.now ?? Date.now;
    const beforeMs = now() - CLOCK_SKEW_MS;
    const blueprint = await bottles.prepared({ namespace: "team", name: "fix-login", specHash: "spec-9" });
    const run = await bottles.started(blueprint, { type: "exit", code: 3 }, { turn: "review", attempt: 2 });
    const agent = await bottles.exited(blueprint.uid, run);

    const observation = await bottles.bed.backend.observe();

    const view = observation.bottles.get(blueprint.uid);
    expect(view).toMatchObject({ uid: blueprint.uid, namespace: "team", name: "fix-login" });
    expect(view?.units.map((unit) => unit.specHash)).toEqual(["spec-9", "spec-9", "spec-9"]);
    expect(new Set(view?.units.map((unit) => unit.id)).size).toBe(3);
    expect(agent).toMatchObject({ turn: { turn: "review", attempt: 2 }, exit: { code: 3, oom: false } });
    const times = [beforeMs, agent.createdMs, agent.startedMs, agent.finishedMs, now() + CLOCK_SKEW_MS];
    expect(times).toEqual([...times].sort((a, b) => Number(a) - Number(b)));
    expect(observation.atMs).toBeGreaterThanOrEqual(beforeMs);
    expect(observation.atMs).toBeLessThanOrEqual(now());
    for (const part of view?.disk ?? []) expect(part.createdMs).toBeGreaterThan(beforeMs);
    for (const role of ["holder", "guard"] as const) {
      const { state, turn, exit, createdMs } = unitOf(view, role);
      expect([state, turn, exit]).toEqual(["running", undefined, undefined]);
      expect(createdMs).toBeGreaterThan(beforeMs);
    }
  });

  it("what another installation made is not seen and not touched", async () => {
    const { bottles } = suite;
    const { stranger } = bottles.bed;
    const blueprint = await bottles.prepared();
    const { uid } = blueprint;
    await bottles.started(blueprint, { type: "sleep", text: "" });
    await bottles.agentIn(uid, FIRST, "running");
    const before = await bottles.view(uid);

    const seen = (await stranger.observe()).bottles.get(uid);
    await stranger.stopAgent({ uid, ...FIRST }, { graceMs: GRACE_MS });
    await stranger.removeUnits(
      uid,
      (before?.units ?? []).map((unit) => unit.id),
    );
    await failure(stranger.removeDisk(uid));

    expect(seen).toBeUndefined();
    expect(await bottles.view(uid)).toEqual(before);
  });
}
