import { vi } from "vitest";
import { createFakeBackend, World } from "../../backends/fake/index.ts";
import type { BottleSpec } from "../../controller/api/bottle.ts";
import { conditionOf } from "../../controller/api/conditions.ts";
import { createBackendSet } from "../../controller/loop/backend-set.ts";
import { createController } from "../../controller/loop/controller.ts";
import type { Backend, Blueprint } from "../../controller/ports/backend.ts";
import { bottleDraft, memoryDatabase, recordedEvents, SILENT } from "./tools.ts";

/** When the tests of a controller begin: their clock is the test's. */
export const NOW = Date.parse("2026-11-20T12:00:00Z");

/** A whole controller over a fake engine, on a clock that the test moves. */
export function controllerBench(change: (backend: Backend) => Partial<Backend> = () => ({})) {
  const world = new World({ nowMs: NOW });
  world.program = () => ({ code: 0 });
  const { store, journal, transcripts, auditLog, guardKey } = memoryDatabase();
  const fake = createFakeBackend({ world, owner: "us" });
  const backend = { ...fake, ...change(fake) };
  const { events, told } = recordedEvents();
  const controller = createController({
    store,
    journal,
    transcripts,
    auditLog,
    guardKey,
    backends: createBackendSet([backend], async () => ({ ok: true, name: "fake" })),
    events,
    log: SILENT,
    now: () => Date.now(),
    random: () => 0,
    defaultImage: "image",
    workers: 4,
  });
  const stop = new AbortController();
  const state: { ready: number; ended: boolean; running?: Promise<void> } = { ready: 0, ended: false };
  return {
    world,
    store,
    auditLog,
    told,
    stop,
    state,
    start() {
      state.running = controller
        .run(stop.signal, () => (state.ready += 1))
        .then(() => {
          state.ended = true;
        });
    },
    async [Symbol.asyncDispose]() {
      stop.abort();
      await this.advance(60_000);
      await state.running;
    },
    /** Lets time pass everywhere. */
    async advance(ms: number) {
      for (let passed = 0; passed < ms; passed += 500) {
        world.advance(500);
        await vi.advanceTimersByTimeAsync(500);
      }
    },
    async ready(name: string) {
      const bottle = await store.get("Bottle", { namespace: "default", name });
      return conditionOf(bottle?.status?.conditions, "Ready")?.reason;
    },
    create: (name: string, spec: Partial<BottleSpec> = {}) => store.create<"Bottle">(bottleDraft(name, spec)),
    /** Something that a bottle of this installation, or of another one, left on the engine. */
    async leave(uid: string, owner = "us") {
      await createFakeBackend({ world, owner }).prepare(blueprint(uid));
    },
    uidsOf: () => [...new Set([...world.containers.values(), ...world.volumes.values()].map((one) => one.uid))].sort(),
  };
}

function blueprint(uid: string): Blueprint {
  return { uid, namespace: "default", name: uid, generation: 1, specHash: "s", image: "image", env: {}, limits: {} };
}
