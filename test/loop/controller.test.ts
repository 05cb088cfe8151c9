import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { ORPHAN_GRACE_MS } from "../../controller/plan/limits.ts";
import { BackendError } from "../../controller/ports/backend.ts";
import { controllerBench as bench, NOW } from "./controller-bench.ts";

/** As long as a controller takes between two looks at everything. */
const RESYNC_MS = 30_000;

beforeEach(() => void vi.useFakeTimers({ now: NOW }));
afterEach(() => void vi.useRealTimers());

describe("a controller", () => {
  it("brings a bottle that is created to its end: the turn is done, and only the disk is left", async () => {
    await using rig = bench();
    rig.start();
    await rig.advance(500);

    await rig.create("a");
    await rig.advance(5000);

    expect(await rig.ready("a")).toBe("Frozen");
    const bottle = await rig.store.get("Bottle", { namespace: "default", name: "a" });
    expect(bottle?.status?.turns).toMatchObject([{ id: "1", state: "Ended", outcome: "Done", exitCode: 0 }]);
    expect(rig.world.containers.size).toBe(0);
    expect([...rig.world.volumes.values()].map((volume) => volume.part).sort()).toEqual(["home", "workspace"]);
    const reasons = rig.told.map((event) => event.reason);
    expect(reasons).toEqual(["Launched", "TurnStarted", "TurnDone", "Frozen"]);
  });

  it("takes up what was there before it started", async () => {
    await using rig = bench();
    for (const name of ["a", "b", "c"]) await rig.create(name);

    rig.start();
    await rig.advance(5000);

    for (const name of ["a", "b", "c"]) expect(await rig.ready(name)).toBe("Frozen");
  });

  it("hears from the backend that an agent ended: it waits for no resync", async () => {
    await using rig = bench();
    rig.world.program = () => ({});
    const { metadata } = await rig.create("a");
    rig.start();
    await rig.advance(5000);
    expect(await rig.ready("a")).toBe("AgentRunning");

    rig.world.exitAgent(metadata.uid, { code: 3 });
    await rig.advance(2000);

    expect(await rig.ready("a")).toBe("Frozen");
  });

  it("notices without a hint what a backend did not tell, at the next resync", async () => {
    await using rig = bench(() => ({ watch() {} }));
    rig.world.program = () => ({});
    const { metadata } = await rig.create("a");
    rig.start();
    await rig.advance(5000);

    rig.world.exitAgent(metadata.uid, { code: 0 });
    await rig.advance(RESYNC_MS);

    expect(await rig.ready("a")).toBe("Frozen");
  });

  it("removes a bottle that is deleted, with everything of it", async () => {
    await using rig = bench();
    rig.world.program = () => ({});
    await rig.create("a");
    rig.start();
    await rig.advance(5000);

    await rig.store.delete("Bottle", { namespace: "default", name: "a" });
    await rig.advance(5000);

    expect(await rig.store.get("Bottle", { namespace: "default", name: "a" })).toBeUndefined();
    expect(rig.uidsOf()).toEqual([]);
  });

  it("asks a backend that is down again, and goes on when it is back", async () => {
    await using rig = bench();
    rig.world.down = true;
    await rig.create("a");
    rig.start();
    await rig.advance(5000);
    expect(await rig.ready("a")).toBe("BackendUnavailable");

    rig.world.down = false;
    await rig.advance(10_000);

    expect(await rig.ready("a")).toBe("Frozen");
  });

  it("says once that it is ready, when it knows what the store holds", async () => {
    await using rig = bench();
    rig.start();
    expect(rig.state.ready).toBe(0);

    await rig.advance(500);

    expect(rig.state.ready).toBe(1);
  });
});

describe("a controller that is to end", () => {
  it("ends at once when nothing is under way", async () => {
    await using rig = bench();
    rig.start();
    await rig.advance(500);

    rig.stop.abort();
    await rig.advance(500);

    expect(rig.state.ended).toBe(true);
    expect(vi.getTimerCount()).toBe(0);
  });

  it("ends also if it was to end before it began, and was never ready", async () => {
    await using rig = bench();
    rig.stop.abort();

    rig.start();
    await rig.advance(500);

    expect(rig.state).toMatchObject({ ready: 0, ended: true });
  });

  it("lets the step under way finish", async () => {
    await using rig = bench((fake) => ({
      prepare: async (...args) => {
        await new Promise((done) => setTimeout(done, 5000));
        await fake.prepare(...args);
      },
    }));
    const { metadata } = await rig.create("a");
    rig.start();
    await rig.advance(1000);

    rig.stop.abort();
    await rig.advance(3000);
    expect(rig.state.ended).toBe(false);
    await rig.advance(3000);

    expect(rig.state.ended).toBe(true);
    expect(rig.world.running(metadata.uid, "guard")).toBe(true);
  });

  it("cuts off a step that takes longer than fifteen seconds", async () => {
    await using rig = bench(() => ({ prepare: (_blueprint, signal) => hanging(signal) }));
    await rig.create("a");
    rig.start();
    await rig.advance(1000);

    rig.stop.abort();
    await rig.advance(14_000);
    expect(rig.state.ended).toBe(false);
    await rig.advance(2000);

    expect(rig.state.ended).toBe(true);
  });

  it("does nothing on the backend after its end", async () => {
    await using rig = bench();
    rig.world.program = () => ({});
    const { metadata } = await rig.create("a");
    await rig.leave("orphan");
    rig.start();
    await rig.advance(5000);
    rig.stop.abort();
    await rig.advance(1000);
    const calls = rig.world.calls.length;

    rig.world.exitAgent(metadata.uid, { code: 0 });
    await rig.advance(ORPHAN_GRACE_MS + RESYNC_MS);

    expect(rig.world.calls).toHaveLength(calls);
  });
});

describe("what belongs to no bottle", () => {
  it("is removed once it is old enough, and not before", async () => {
    await using rig = bench();
    await rig.leave("orphan");
    rig.start();

    await rig.advance(ORPHAN_GRACE_MS - 1000);
    expect(rig.uidsOf()).toEqual(["orphan"]);
    await rig.advance(RESYNC_MS + 1000);

    expect(rig.uidsOf()).toEqual([]);
  });

  it("stays if it is of another installation", async () => {
    await using rig = bench();
    await rig.leave("foreign", "them");
    await rig.leave("orphan");
    rig.start();

    await rig.advance(ORPHAN_GRACE_MS + RESYNC_MS);

    expect(rig.uidsOf()).toEqual(["foreign"]);
  });

  it("stays as long as the backend cannot be looked at as a whole", async () => {
    await using rig = bench();
    await rig.leave("orphan");
    rig.start();
    rig.world.faults = { beforeCall: ({ verb }) => (verb === "list" ? "unavailable" : undefined) };

    await rig.advance(ORPHAN_GRACE_MS + 2 * RESYNC_MS);
    expect(rig.uidsOf()).toEqual(["orphan"]);
    rig.world.faults = {};
    await rig.advance(RESYNC_MS);

    expect(rig.uidsOf()).toEqual([]);
  });

  it("stays as long as the store cannot say what is declared", async () => {
    await using rig = bench();
    await rig.leave("orphan");
    rig.start();
    await rig.advance(1000);
    const list = vi.spyOn(rig.store, "list").mockRejectedValue(new Error("the store is closed"));

    await rig.advance(ORPHAN_GRACE_MS + RESYNC_MS);
    expect(rig.uidsOf()).toEqual(["orphan"]);
    list.mockRestore();
    await rig.advance(RESYNC_MS);

    expect(rig.uidsOf()).toEqual([]);
  });

  it("is not a frozen bottle, however old", async () => {
    await using rig = bench();
    const { metadata } = await rig.create("a");
    rig.start();

    await rig.advance(ORPHAN_GRACE_MS + 2 * RESYNC_MS);

    expect(await rig.ready("a")).toBe("Frozen");
    expect(rig.uidsOf()).toEqual([metadata.uid]);
  });
});

/** A call that ends only when it is cut off. */
function hanging(signal: AbortSignal | undefined): Promise<void> {
  return new Promise((_done, fail) => {
    signal?.addEventListener("abort", () => fail(new BackendError("Transient", "Aborted", "the call was cut off")));
  });
}
