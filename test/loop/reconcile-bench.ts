import type { Bottle, BottleSpec, BottleStatus } from "../../controller/api/bottle.ts";
import { createBackendSet, type DefaultBackend } from "../../controller/loop/backend-set.ts";
import { Cache } from "../../controller/loop/cache.ts";
import { createJournals } from "../../controller/loop/journals.ts";
import { Reconciler, type ReconcilerOptions } from "../../controller/loop/reconcile.ts";
import type { Desired, Observed } from "../../controller/plan/situation.ts";
import type { Plan } from "../../controller/plan/steps.ts";
import type { Backend } from "../../controller/ports/backend.ts";
import type { Store } from "../../controller/ports/store.ts";
import {
  bottleDraft,
  GUARD_KEY,
  memoryDatabase,
  recordedEvents,
  recordingBackend,
  recordingCollector,
  SILENT,
} from "./tools.ts";

export const KEY = "default/a";

interface Given {
  plan?: (observed: Observed, desired: Desired) => Partial<Plan>;
  answers?: Partial<Backend>;
  /** Between the loop and the store. */
  wrap?: (store: Store) => Store;
  defaultBackend?: DefaultBackend;
  spec?: Partial<BottleSpec>;
  /** What the collector knows of the guard. */
  said?: Parameters<typeof recordingCollector>[0];
}

/** A reconciler whose planner says what the test wants; everything below it is real but for the backend. */
export async function reconcileBench(given: Given = {}) {
  const { store, journal, transcripts } = memoryDatabase();
  const { backend, calls } = recordingBackend(given.answers);
  const { events, told } = recordedEvents();
  const { collector } = recordingCollector(given.said);
  const cache = new Cache(store, SILENT);
  const inputs: { desired: Desired; observed: Observed }[] = [];
  const options: ReconcilerOptions = {
    store: given.wrap?.(store) ?? store,
    cache,
    journals: createJournals(journal),
    transcripts,
    backends: createBackendSet([backend], given.defaultBackend ?? (async () => ({ ok: true, name: "fake" }))),
    collector,
    guardKey: GUARD_KEY,
    events,
    log: SILENT,
    now: () => 1000,
    defaultImage: "image",
    plan: (desired, observed) => {
      inputs.push({ desired, observed });
      return { steps: [], status: statusOf(desired.bottle), ...given.plan?.(observed, desired) };
    },
    signal: new AbortController().signal,
  };
  const reconciler = new Reconciler(options);
  await store.create<"Bottle">(bottleDraft("a", given.spec));
  await cache.load();
  return {
    store,
    journal,
    cache,
    calls,
    told,
    inputs,
    pass: () => reconciler.reconcile(KEY, options.backends.mark()),
    stored: async () => {
      const bottle = await store.get("Bottle", { namespace: "default", name: "a" });
      if (bottle === undefined) throw new Error("the bottle is gone");
      return bottle;
    },
  };
}

function statusOf(bottle: Bottle): BottleStatus {
  return { bottleID: bottle.metadata.uid };
}
