import * as fc from "fast-check";
import { expect, test } from "vitest";
import type { Bottle } from "../../controller/api/bottle.ts";
import { FINALIZER, keyOf, keyText } from "../../controller/api/meta.ts";
import type { List, Store } from "../../controller/ports/store.ts";
import { bottle, changesSince, refusal, type Change, type OpenStore } from "./store-fixtures.ts";

const RUNS = 30;

const step = fc.record({
  act: fc.constantFrom("create", "createHeld", "label", "spec", "same", "stale", "status", "release", "delete"),
  name: fc.constantFrom("a", "b", "c"),
  value: fc.constantFrom("x", "y"),
});
type Step = typeof step extends fc.Arbitrary<infer T> ? T : never;

/** Random histories on three names, against what the port says about each call. */
export function modelRules(open: () => Promise<OpenStore>): void {
  const histories = fc.array(step, { minLength: 5, maxLength: 40, size: "max" });
  async function holds(check: (store: Store, history: Step[]) => Promise<void>): Promise<void> {
    const property = fc.asyncProperty(histories, async (history) => {
      const { store, dispose } = await open();
      try {
        await check(store, history);
      } finally {
        await dispose();
      }
    });
    await fc.assert(property, { numRuns: RUNS });
  }

  test("any history: calls are refused as the port says, versions grow, generation counts specs", async () => {
    await holds(async (store, history) => {
      let newest = 0;
      for (const next of history) {
        const before = await store.get("Bottle", { namespace: "default", name: next.name });
        const after = await take(store, next, before);
        expectGeneration(before, after);
        const versions = (await store.list("Bottle")).items.map((item) => Number(item.metadata.resourceVersion));
        if (changed(before, after) && after !== undefined) {
          expect(Number(after.metadata.resourceVersion)).toBeGreaterThan(newest);
        }
        newest = Math.max(newest, ...versions);
      }
    });
  });

  test("any history: a watch from any earlier list, applied to it, gives exactly the later list", async () => {
    await holds(async (store, history) => {
      const lists: List<Bottle>[] = [await store.list("Bottle")];
      for (const next of history) {
        await take(store, next, await store.get("Bottle", { namespace: "default", name: next.name }));
        lists.push(await store.list("Bottle"));
      }
      const { items } = await store.list("Bottle");
      const from = lists.filter((_, index) => index % 7 === 0 || index === lists.length - 1);
      for (const list of from) {
        const changes = await changesSince(store, ["Bottle"], list.resourceVersion);
        expect(replay(list, changes)).toEqual(items);
      }
    });
  });
}

/** Does one step, compares the refusal with the rule, and returns the object afterwards. */
async function take(store: Store, next: Step, before: Bottle | undefined): Promise<Bottle | undefined> {
  const call = callOf(store, next, before);
  if (call !== undefined) expect({ next, refusal: await refusal(call.made) }).toEqual({ next, refusal: call.expected });
  return store.get("Bottle", { namespace: "default", name: next.name });
}

function callOf(store: Store, { act, name, value }: Step, before: Bottle | undefined) {
  const key = { namespace: "default", name };
  if (act === "create" || act === "createHeld") {
    const made = store.create<"Bottle">(bottle(name, act === "create" ? {} : { finalizers: [FINALIZER] }));
    return { made, expected: before === undefined ? "none" : "AlreadyExists" };
  }
  if (act === "delete")
    return { made: store.delete("Bottle", key), expected: before === undefined ? "NotFound" : "none" };
  if (before === undefined) return undefined;
  const { metadata, spec } = before;
  switch (act) {
    case "label":
      return {
        made: store.update<"Bottle">({ ...before, metadata: { ...metadata, labels: { value } } }),
        expected: "none",
      };
    case "spec":
      return { made: store.update<"Bottle">({ ...before, spec: { ...spec, label: value } }), expected: "none" };
    case "same":
      return { made: store.update<"Bottle">(before), expected: "none" };
    case "stale":
      return {
        made: store.update<"Bottle">({ ...before, metadata: { ...metadata, resourceVersion: "0" } }),
        expected: "Conflict",
      };
    case "status":
      return {
        made: store.patchStatus("Bottle", key, { uid: metadata.uid, status: { bottleID: value } }),
        expected: "none",
      };
    case "release":
      return {
        made: store.update<"Bottle">({ ...before, metadata: { ...metadata, finalizers: [] } }),
        expected: "none",
      };
    default:
      throw new Error(`unknown step ${act}`);
  }
}

function changed(before: Bottle | undefined, after: Bottle | undefined): boolean {
  const isSame = withoutVersion(before) === withoutVersion(after);
  // The other half of the rule: what did not change keeps its version.
  if (isSame) expect(after?.metadata.resourceVersion).toBe(before?.metadata.resourceVersion);
  return !isSame;
}

function withoutVersion(object: Bottle | undefined): string {
  return JSON.stringify({ ...object, metadata: { ...object?.metadata, resourceVersion: "" } });
}

/** A Kubernetes API server also counts the mark of deletion, so only the life before it is judged. */
function expectGeneration(before: Bottle | undefined, after: Bottle | undefined): void {
  if (before === undefined || after === undefined || before.metadata.uid !== after.metadata.uid) return;
  if (after.metadata.deletionTimestamp !== before.metadata.deletionTimestamp) return;
  const grown = JSON.stringify(before.spec) === JSON.stringify(after.spec) ? 0 : 1;
  expect(after.metadata.generation).toBe(before.metadata.generation + grown);
}

function replay(list: List<Bottle>, changes: readonly Change<"Bottle" | "BottleTemplate">[]): Bottle[] {
  const objects = new Map(list.items.map((item) => [keyText(keyOf(item)), item]));
  let newest = Number(list.resourceVersion);
  for (const { type, object } of changes) {
    if (object.kind !== "Bottle") continue;
    const key = keyText(keyOf(object));
    expect(Number(object.metadata.resourceVersion)).toBeGreaterThan(newest);
    expect(objects.has(key)).toBe(type !== "ADDED");
    newest = Number(object.metadata.resourceVersion);
    if (type === "DELETED") objects.delete(key);
    else objects.set(key, object);
  }
  return [...objects.entries()].toSorted(([a], [b]) => (a < b ? -1 : 1)).map(([, object]) => object);
}
