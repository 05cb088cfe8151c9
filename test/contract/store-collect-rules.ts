import { expect, test } from "vitest";
import { FINALIZER, keyOf } from "../../controller/api/meta.ts";
import { bottle, eventually, OTHER_NAMESPACE, ownerOf, template, type OpenStore } from "./store-fixtures.ts";

/** What happens to the objects that name a deleted one as their owner. */
export function collectRules(opened: () => Promise<OpenStore>): void {
  test("dependents are deleted with their owner, also those of dependents", async () => {
    const { store } = await opened();
    const top = await store.create<"BottleTemplate">(template("top"));
    const middle = await store.create<"Bottle">(bottle("middle", { ownerReferences: [ownerOf(top)] }));
    await store.create<"Bottle">(bottle("low", { ownerReferences: [ownerOf(middle)] }));
    const free = await store.create<"Bottle">(bottle("free"));

    await store.delete("BottleTemplate", keyOf(top));

    await eventually(async () => (await store.list("Bottle")).items.length === 1);
    expect(await store.get("Bottle", keyOf(free))).toEqual(free);
  });

  test("a dependent with a finalizer is marked, and what it owns goes when it does", async () => {
    const { store } = await opened();
    const top = await store.create<"BottleTemplate">(template("top"));
    const held = await store.create<"Bottle">(
      bottle("held", { finalizers: [FINALIZER], ownerReferences: [ownerOf(top)] }),
    );
    const low = await store.create<"Bottle">(bottle("low", { ownerReferences: [ownerOf(held)] }));

    await store.delete("BottleTemplate", keyOf(top));
    await eventually(async () => (await store.get("Bottle", keyOf(held)))?.metadata.deletionTimestamp !== undefined);
    expect(await store.get("Bottle", keyOf(low))).toEqual(low);
    const marked = await store.get("Bottle", keyOf(held));
    if (marked === undefined) throw new Error("a finalizer must keep the object");
    await store.update<"Bottle">({ ...marked, metadata: { ...marked.metadata, finalizers: [] } });

    await eventually(async () => (await store.list("Bottle")).items.length === 0);
  });

  test("dependents stay while their owner is only marked", async () => {
    const { store } = await opened();
    const owner = await store.create<"Bottle">(bottle("owner", { finalizers: [FINALIZER] }));
    const low = await store.create<"Bottle">(bottle("low", { ownerReferences: [ownerOf(owner)] }));

    await store.delete("Bottle", keyOf(owner));

    expect(await store.get("Bottle", keyOf(low))).toEqual(low);
  });

  test("objects that own each other are all deleted", async () => {
    const { store } = await opened();
    const a = await store.create<"Bottle">(bottle("a"));
    const b = await store.create<"Bottle">(bottle("b", { ownerReferences: [ownerOf(a)] }));
    await store.update<"Bottle">({ ...a, metadata: { ...a.metadata, ownerReferences: [ownerOf(b)] } });

    await store.delete("Bottle", keyOf(a));

    await eventually(async () => (await store.list("Bottle")).items.length === 0);
  });

  test("an object with a second owner only loses the owner that went", async () => {
    const { store } = await opened();
    const first = await store.create<"BottleTemplate">(template("first"));
    const second = await store.create<"BottleTemplate">(template("second"));
    const low = await store.create<"Bottle">(bottle("low", { ownerReferences: [ownerOf(first), ownerOf(second)] }));

    await store.delete("BottleTemplate", keyOf(first));

    await eventually(async () => (await store.get("Bottle", keyOf(low)))?.metadata.ownerReferences?.length === 1);
    expect((await store.get("Bottle", keyOf(low)))?.metadata.ownerReferences).toEqual([ownerOf(second)]);
    await store.delete("BottleTemplate", keyOf(second));
    await eventually(async () => (await store.get("Bottle", keyOf(low))) === undefined);
  });

  test("an owner that is added by an update counts, one that is taken out does not", async () => {
    const { store } = await opened();
    const top = await store.create<"BottleTemplate">(template("top"));
    const joined = await store.create<"Bottle">(bottle("joined"));
    const left = await store.create<"Bottle">(bottle("left", { ownerReferences: [ownerOf(top)] }));
    await store.update<"Bottle">({ ...joined, metadata: { ...joined.metadata, ownerReferences: [ownerOf(top)] } });
    const free = await store.update<"Bottle">({ ...left, metadata: { ...left.metadata, ownerReferences: [] } });

    await store.delete("BottleTemplate", keyOf(top));

    await eventually(async () => (await store.get("Bottle", keyOf(joined))) === undefined);
    expect(await store.get("Bottle", keyOf(free))).toEqual(free);
  });

  test("an owner in another namespace counts as gone", async () => {
    const { store } = await opened();
    const top = await store.create<"BottleTemplate">(template("top", { namespace: OTHER_NAMESPACE }));

    const low = await store.create<"Bottle">(bottle("low", { ownerReferences: [ownerOf(top)] }));

    await eventually(async () => (await store.get("Bottle", keyOf(low))) === undefined);
  });

  test("Orphan leaves the dependents and takes the owner out of them", async () => {
    const { store } = await opened();
    const top = await store.create<"BottleTemplate">(template("top"));
    const low = await store.create<"Bottle">(bottle("low", { ownerReferences: [ownerOf(top)] }));

    await store.delete("BottleTemplate", keyOf(top), { propagation: "Orphan" });

    await eventually(async () => (await store.get("BottleTemplate", keyOf(top))) === undefined);
    await eventually(async () => (await store.get("Bottle", keyOf(low)))?.metadata.ownerReferences === undefined);
    expect((await store.get("Bottle", keyOf(low)))?.metadata.uid).toBe(low.metadata.uid);
  });

  test("an object made when its owner is already gone is collected too", async () => {
    const { store } = await opened();
    const top = await store.create<"BottleTemplate">(template("top"));
    await store.delete("BottleTemplate", keyOf(top));
    await store.create<"BottleTemplate">(template("top"));

    const low = await store.create<"Bottle">(bottle("low", { ownerReferences: [ownerOf(top)] }));

    await eventually(async () => (await store.get("Bottle", keyOf(low))) === undefined);
  });
}
