import { describe, expect, it } from "vitest";
import { StatusError } from "../../controller/api/errors.ts";
import { API_VERSION } from "../../controller/api/meta.ts";
import type { Plan, Step } from "../../controller/plan/steps.ts";
import { BackendError, type Backend, type BackendErrorKind } from "../../controller/ports/backend.ts";
import type { Store } from "../../controller/ports/store.ts";
import { KEY, reconcileBench } from "./reconcile-bench.ts";

const STOP: Step = { kind: "removeUnits", unitIds: ["x"] };
const DISK: Step = { kind: "removeDisk" };

function refusing(kind: BackendErrorKind): Partial<Backend> {
  return { removeUnits: () => Promise.reject(new BackendError(kind, "EngineError", "the engine says no")) };
}

function removing(): Partial<Plan> {
  return { steps: [STOP] };
}

describe("a pass", () => {
  it("over a bottle that is gone does nothing", async () => {
    const { store, cache, inputs, pass } = await reconcileBench();
    await store.delete("Bottle", { namespace: "default", name: "a" });
    await cache.load();

    expect(await pass()).toEqual({ steps: 0 });
    expect(inputs).toEqual([]);
  });

  it("gives the planner the bottle, its references, its backend, its journal and what the backend shows", async () => {
    const { journal, cache, inputs, pass } = await reconcileBench();
    const bottle = cache.bottle(KEY);
    await journal.append(bottle?.metadata.uid ?? "", [{ type: "Frozen", timeMs: 7 }]);

    await pass();

    expect(inputs[0]?.desired).toMatchObject({
      bottle,
      resolution: { ok: true },
      backend: { ok: true, name: "fake" },
      defaultImage: "image",
    });
    expect(inputs[0]?.observed).toMatchObject({ journal: { frozenMs: 7 }, view: { state: "seen", bottle: undefined } });
  });

  it("wants another pass at once after steps, because it must see what they did", async () => {
    const { pass } = await reconcileBench({ plan: () => ({ steps: [STOP], requeueAfterMs: 9000 }) });

    expect(await pass()).toEqual({ steps: 1, requeueAfterMs: 0 });
  });

  it("without steps waits as long as the plan says", async () => {
    const { pass } = await reconcileBench({ plan: () => ({ requeueAfterMs: 9000 }) });

    expect(await pass()).toEqual({ steps: 0, requeueAfterMs: 9000 });
  });

  it("does the steps in order and ends at the first that fails", async () => {
    const { calls, pass } = await reconcileBench({
      plan: () => ({ steps: [DISK, STOP, DISK] }),
      answers: refusing("Conflict"),
    });

    await pass();

    expect(calls.map(([verb]) => verb)).toEqual(["removeDisk"]);
  });

  it("tells the event of a step once, after the step is done", async () => {
    const event = { type: "Normal", reason: "Frozen", message: "only the disk is left" } as const;
    const { told, pass, stored } = await reconcileBench({ plan: () => ({ steps: [{ ...STOP, event }, DISK] }) });

    await pass();

    const { uid } = (await stored()).metadata;
    expect(told).toEqual([{ about: { kind: "Bottle", namespace: "default", name: "a", uid }, ...event }]);
  });

  it("does not tell the event of a step that failed", async () => {
    const event = { type: "Normal", reason: "Frozen", message: "only the disk is left" } as const;
    const { told, pass } = await reconcileBench({
      plan: () => ({ steps: [{ ...STOP, event }] }),
      answers: refusing("Conflict"),
    });

    await pass();

    expect(told).toEqual([]);
  });

  it("carries what one step wrote to the store to the next", async () => {
    const { stored, pass } = await reconcileBench({
      plan: () => ({ steps: [{ kind: "addFinalizer" }, { kind: "removeFinalizer" }] }),
    });

    await pass();

    expect((await stored()).metadata.finalizers ?? []).toEqual([]);
  });

  it("carries what it wrote to the store to the next pass, which may come before the watch tells", async () => {
    const { cache, stored, pass } = await reconcileBench({ plan: () => ({ steps: [{ kind: "addFinalizer" }] }) });

    await pass();

    expect(cache.bottle(KEY)).toEqual(await stored());
  });
});

describe("the status", () => {
  it("is written only if it changed", async () => {
    const writes: unknown[] = [];
    const { pass } = await reconcileBench({
      wrap: (store) => ({
        ...store,
        patchStatus: (kind, key, patch) => {
          writes.push(patch.status);
          return store.patchStatus(kind, key, patch);
        },
      }),
    });
    await pass();

    await pass();

    expect(writes).toHaveLength(1);
  });

  it("is written before the steps, so that people see why a long step is under way", async () => {
    const { store, pass, calls } = await reconcileBench({
      plan: () => ({ steps: [STOP] }),
      answers: {
        removeUnits: async () => {
          const bottle = await store.get("Bottle", { namespace: "default", name: "a" });
          calls.push(["status", bottle?.status?.bottleID]);
        },
      },
    });

    await pass();

    expect(calls).toEqual([["status", expect.any(String)]]);
  });

  it("goes into the cache, so that the next pass does not write it again", async () => {
    const { cache, pass } = await reconcileBench();

    await pass();

    expect(cache.bottle(KEY)?.status).toBeDefined();
  });

  it("a bottle that was changed under the pass is looked at again at once: the watch tells nothing that the cache has", async () => {
    const changed: { once?: (store: Store) => Promise<void> } = {
      once: async (store) => {
        const bottle = await store.get("Bottle", { namespace: "default", name: "a" });
        if (bottle === undefined) return;
        await store.update<"Bottle">({ ...bottle, spec: { ...bottle.spec, operatingMode: "Frozen" } });
      },
    };
    const { inputs, calls, pass } = await reconcileBench({
      plan: () => ({ steps: [DISK] }),
      wrap: (store) => ({
        ...store,
        patchStatus: async (kind, key, patch) => {
          await changed.once?.(store);
          changed.once = undefined;
          return store.patchStatus(kind, key, patch);
        },
      }),
    });

    expect(await pass()).toEqual({ steps: 0, requeueAfterMs: 0 });
    expect(calls).toEqual([]);
    await pass();

    expect(inputs.map(({ desired }) => desired.bottle.spec.operatingMode)).toEqual(["Running", "Frozen"]);
  });
});

describe("a step that fails", () => {
  it("is in the next observation, with how often it failed in a row", async () => {
    const { inputs, pass } = await reconcileBench({ plan: removing, answers: refusing("Conflict") });
    for (let passes = 0; passes < 3; passes += 1) await pass();

    expect(inputs.map(({ observed }) => observed.failure?.count)).toEqual([undefined, 1, 2]);
    expect(inputs[1]?.observed.failure).toMatchObject({
      step: "removeUnits",
      kind: "Conflict",
      reason: "EngineError",
      message: "the engine says no",
      atMs: 1000,
    });
  });

  it("is forgotten when a step succeeds", async () => {
    const failing = { now: true };
    const { inputs, pass } = await reconcileBench({
      plan: removing,
      answers: {
        removeUnits: () =>
          failing.now ? Promise.reject(new BackendError("Conflict", "EngineError", "look again")) : Promise.resolve(),
      },
    });
    await pass();
    failing.now = false;
    await pass();

    await pass();

    expect(inputs.map(({ observed }) => observed.failure?.count)).toEqual([undefined, 1, undefined]);
  });

  it("is forgotten when the spec changes: it may be mended", async () => {
    const { store, cache, stored, inputs, pass } = await reconcileBench({
      plan: removing,
      answers: refusing("Invalid"),
    });
    await pass();
    const bottle = await stored();
    await store.update<"Bottle">({ ...bottle, spec: { ...bottle.spec, operatingMode: "Frozen" } });
    await cache.load();

    expect(await pass()).toEqual({ steps: 0, requeueAfterMs: 0 });
    expect(inputs[1]?.observed.failure).toBeUndefined();
    await expect(pass()).rejects.toThrow("the engine says no");
    expect(inputs[2]?.observed.failure?.count).toBe(1);
  });

  it("is forgotten when what the bottle refers to changes: it may be mended", async () => {
    const { store, cache, inputs, pass } = await reconcileBench({
      plan: removing,
      answers: refusing("Conflict"),
      spec: { templateRefs: [{ name: "t" }] },
    });
    await pass();
    const metadata = { name: "t", namespace: "default" };
    await store.create<"BottleTemplate">({ apiVersion: API_VERSION, kind: "BottleTemplate", metadata, spec: {} });
    await cache.load();

    await pass();

    expect(inputs[1]?.observed.failure).toBeUndefined();
  });

  it("as Invalid is held by the next plan, which comes at once and tells people", async () => {
    const { told, pass } = await reconcileBench({ plan: removing, answers: refusing("Invalid") });

    expect(await pass()).toEqual({ steps: 0, requeueAfterMs: 0 });
    expect(told).toMatchObject([{ type: "Warning", reason: "EngineError", message: "the engine says no" }]);
  });

  it("as Invalid and is not held does not spin: the second time it waits like any failure", async () => {
    const { pass } = await reconcileBench({ plan: removing, answers: refusing("Invalid") });
    await pass();

    await expect(pass()).rejects.toMatchObject({ kind: "Invalid" });
  });

  it.each(["Transient", "Unavailable"] as const)(
    "as %s is thrown, so that the queue waits longer and longer",
    async (kind) => {
      const { told, pass } = await reconcileBench({ plan: removing, answers: refusing(kind) });

      await expect(pass()).rejects.toMatchObject({ kind });
      expect(told).toHaveLength(1);
    },
  );

  it.each(["Conflict", "NotFound"] as const)(
    "as %s is mended by looking again: soon, five times, then with the patience of the queue",
    async (kind) => {
      const { pass } = await reconcileBench({ plan: removing, answers: refusing(kind) });

      for (let retries = 0; retries < 5; retries += 1) {
        expect(await pass()).toEqual({ steps: 0, requeueAfterMs: 200 });
      }
      await expect(pass()).rejects.toMatchObject({ kind });
    },
  );

  it("as Conflict is told to nobody: it is over before a person could read it", async () => {
    const { told, pass } = await reconcileBench({ plan: removing, answers: refusing("Conflict") });

    await pass();

    expect(told).toEqual([]);
  });

  it.each(["Conflict", "NotFound"] as const)("in the store as %s brings another look, no alarm", async (reason) => {
    const { told, inputs, pass } = await reconcileBench({
      plan: () => ({ steps: [{ kind: "addFinalizer" }] }),
      wrap: (store) => ({ ...store, update: () => Promise.reject(new StatusError(reason, "it changed")) }),
    });

    expect(await pass()).toEqual({ steps: 0, requeueAfterMs: 200 });
    expect(told).toEqual([]);
    await pass();
    expect(inputs[1]?.observed.failure).toBeUndefined();
  });

  it("by a bug is thrown and remembered by nobody", async () => {
    const { told, pass } = await reconcileBench({
      plan: removing,
      answers: { removeUnits: () => Promise.reject(new TypeError("a bug")) },
    });

    await expect(pass()).rejects.toThrow("a bug");
    expect(told).toEqual([]);
  });
});

describe("the backend of a pass", () => {
  it("that cannot be observed is unseen, with what it said", async () => {
    const { inputs, pass } = await reconcileBench({
      answers: { observe: () => Promise.reject(new BackendError("Unavailable", "EngineUnavailable", "no engine")) },
    });

    await pass();

    expect(inputs[0]?.observed.view).toMatchObject({
      state: "unseen",
      reason: "BackendUnavailable",
      message: expect.stringContaining("no engine"),
    });
  });

  it("that there is none is told as the reason why nothing is seen", async () => {
    const { inputs, pass } = await reconcileBench({
      defaultBackend: async () => ({ ok: false, reason: "NoBackend", message: "install Docker" }),
    });

    await pass();

    expect(inputs[0]?.desired.backend).toEqual({ ok: false, reason: "NoBackend", message: "install Docker" });
    expect(inputs[0]?.observed.view).toEqual({ state: "unseen", reason: "NoBackend", message: "install Docker" });
  });

  it("is the one that the bottle names, not the default", async () => {
    const { inputs, pass } = await reconcileBench({ spec: { backend: { type: "Docker" } } });

    await pass();

    expect(inputs[0]?.desired.backend).toMatchObject({ ok: false, reason: "BackendUnknown" });
  });

  it("is the one of the first launch for good, whatever the default is by now", async () => {
    const { journal, stored, inputs, pass } = await reconcileBench();
    const { uid } = (await stored()).metadata;
    const launch = { type: "LaunchIntended", timeMs: 1, backend: "gone", generation: 1, templateDigest: "d" } as const;
    await journal.append(uid, [launch]);

    await pass();

    expect(inputs[0]?.desired.backend).toMatchObject({ ok: false, reason: "BackendUnknown" });
  });
});
