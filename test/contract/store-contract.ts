import { describe, expect, onTestFinished, test } from "vitest";
import { FINALIZER, keyOf } from "../../controller/api/meta.ts";
import type { Store } from "../../controller/ports/store.ts";
import { auditRules } from "./store-audit-rules.ts";
import { collectRules } from "./store-collect-rules.ts";
import { bottle, event, OTHER_NAMESPACE, refusal, relabelled, template, type OpenStore } from "./store-fixtures.ts";
import { journalRules } from "./store-journal-rules.ts";
import { modelRules } from "./store-model.ts";
import { watchRules } from "./store-watch-rules.ts";

/** Every rule of the ports Store, Journal, Transcripts and AuditLog, for any driver. `open` gives a new, empty store each time. */
export function storeContract(name: string, open: () => Promise<OpenStore>): void {
  async function opened(): Promise<OpenStore> {
    const parts = await open();
    onTestFinished(() => parts.dispose());
    return parts;
  }
  describe(`${name} as a Store`, () => {
    createRules(opened);
    updateRules(opened);
    statusRules(opened);
    deleteRules(opened);
    collectRules(opened);
    watchRules(opened);
    modelRules(open);
    journalRules(opened);
    auditRules(opened);
  });
}

type Opened = () => Promise<OpenStore>;

function createRules(opened: Opened): void {
  test("an absent object is undefined", async () => {
    const { store } = await opened();

    expect(await store.get("Bottle", { namespace: "default", name: "a" })).toBeUndefined();
  });

  test("create assigns uid, version, creation time, generation 1 and the namespace default", async () => {
    const { store } = await opened();

    const made = await store.create<"Bottle">(bottle("a"));

    expect(made.metadata).toMatchObject({ name: "a", namespace: "default", generation: 1 });
    expect(made.metadata.uid).not.toBe("");
    expect(made.metadata.resourceVersion).not.toBe("");
    expect(Number.isNaN(Date.parse(made.metadata.creationTimestamp))).toBe(false);
    expect(await store.get("Bottle", { namespace: "default", name: "a" })).toEqual(made);
  });

  test("create drops a given status", async () => {
    const { store } = await opened();
    const draft = { ...bottle("a"), status: { bottleID: "forged" } };

    const made = await store.create<"Bottle">(draft);

    expect(made.status).toBeUndefined();
  });

  test("create of a taken name is AlreadyExists, in that namespace and kind only", async () => {
    const { store } = await opened();
    await store.create<"Bottle">(bottle("a"));

    expect(await refusal(store.create<"Bottle">(bottle("a")))).toBe("AlreadyExists");
    expect(await refusal(store.create<"Bottle">(bottle("a", { namespace: OTHER_NAMESPACE })))).toBe("none");
    expect(await refusal(store.create<"BottleTemplate">(template("a")))).toBe("none");
  });

  test("create of the name of an object that is being deleted is AlreadyExists and says so", async () => {
    const { store } = await opened();
    await store.create<"Bottle">(bottle("a", { finalizers: [FINALIZER] }));
    await store.delete("Bottle", { namespace: "default", name: "a" });

    await expect(store.create<"Bottle">(bottle("a"))).rejects.toMatchObject({
      reason: "AlreadyExists",
      message: expect.stringContaining("being deleted"),
    });
  });

  test.each(["", "Upper", "under_score", "-start", "end-", "a.b", "a/b", "x".repeat(64)])(
    "the name %j is Invalid",
    async (name) => {
      const { store } = await opened();

      expect(await refusal(store.create<"Bottle">(bottle(name)))).toBe("Invalid");
    },
  );

  test("a namespace that is no label is Invalid", async () => {
    const { store } = await opened();

    expect(await refusal(store.create<"Bottle">(bottle("a", { namespace: "No_Label" })))).toBe("Invalid");
  });

  test("a name of 63 characters is accepted", async () => {
    const { store } = await opened();

    expect(await refusal(store.create<"Bottle">(bottle("x".repeat(63))))).toBe("none");
  });

  test("list gives one kind by namespace and name, or one namespace of it", async () => {
    const { store } = await opened();
    for (const name of ["b", "a-b", "a"]) await store.create<"Bottle">(bottle(name));
    await store.create<"Bottle">(bottle("c", { namespace: OTHER_NAMESPACE }));
    await store.create<"BottleTemplate">(template("z"));

    const all = await store.list("Bottle");
    const some = await store.list("Bottle", { namespace: OTHER_NAMESPACE });

    expect(all.items.map((item) => item.metadata.name)).toEqual(["a", "a-b", "b", "c"]);
    expect(some.items.map((item) => item.metadata.name)).toEqual(["c"]);
  });

  test("changing a returned object does not change the store", async () => {
    const { store } = await opened();
    const draft = bottle("a");
    const made = await store.create<"Bottle">(draft);
    const key = keyOf(made);

    draft.spec.label = "tampered";
    made.spec.label = "tampered";
    const got = await store.get("Bottle", key);
    if (got !== undefined) got.spec.label = "tampered";
    const [listed] = (await store.list("Bottle")).items;
    if (listed !== undefined) listed.spec.label = "tampered";

    expect((await store.get("Bottle", key))?.spec.label).toBe("first");
  });

  test("an Event is kept whole and can be counted up", async () => {
    const { store } = await opened();

    const made = await store.create<"Event">(event("launched"));
    const counted = await store.update<"Event">({ ...made, count: 2 });

    expect(made).toMatchObject({ ...event("launched"), metadata: { name: "launched", namespace: "default" } });
    expect(counted.count).toBe(2);
    expect(await store.get("Event", keyOf(made))).toEqual(counted);
  });
}

function updateRules(opened: Opened): void {
  test("update of an absent object is NotFound", async () => {
    const { store } = await opened();
    const made = await store.create<"Bottle">(bottle("a"));
    await store.delete("Bottle", keyOf(made));

    expect(await refusal(store.update<"Bottle">(made))).toBe("NotFound");
  });

  test("update from an older version is Conflict and changes nothing", async () => {
    const { store } = await opened();
    const old = await store.create<"Bottle">(bottle("a"));
    const current = await store.update<"Bottle">(relabelled(old, "yes"));

    expect(await refusal(store.update<"Bottle">(relabelled(old, "no")))).toBe("Conflict");
    expect(await store.get("Bottle", keyOf(old))).toEqual(current);
  });

  test("update of another object of the same name is Conflict", async () => {
    const { store } = await opened();
    const first = await store.create<"Bottle">(bottle("a"));
    await store.delete("Bottle", keyOf(first));
    const second = await store.create<"Bottle">(bottle("a"));
    const { resourceVersion } = second.metadata;

    expect(await refusal(store.update<"Bottle">(relabelled(first, "no")))).toBe("Conflict");
    const mixed = { ...first, metadata: { ...first.metadata, resourceVersion } };
    expect(await refusal(store.update<"Bottle">(relabelled(mixed, "no")))).toBe("Conflict");
  });

  test("generation grows with the spec and with nothing else", async () => {
    const { store } = await opened();
    const made = await store.create<"Bottle">(bottle("a"));

    const labelled = await store.update<"Bottle">(relabelled(made, "yes"));
    const respecified = await store.update<"Bottle">({ ...labelled, spec: { ...labelled.spec, label: "second" } });

    expect(labelled.metadata.generation).toBe(1);
    expect(respecified.metadata.generation).toBe(2);
    expect(respecified.spec.label).toBe("second");
  });

  test("a write that changes nothing keeps the version and sends no event, whatever the order of fields", async () => {
    const { store } = await opened();
    const made = await store.create<"Bottle">(bottle("a", { labels: { x: "1", y: "2" } }));
    const reversed = Object.fromEntries(Object.entries(made.spec).toReversed()) as typeof made.spec;
    const metadata = { ...made.metadata, labels: { y: "2", x: "1" }, annotations: {} };

    const same = await store.update<"Bottle">({ ...made, metadata, spec: reversed });

    expect(same).toEqual(made);
    expect((await store.list("Bottle")).items).toEqual([made]);
  });

  test("update keeps status and ignores a given one", async () => {
    const { store } = await opened();
    const made = await store.create<"Bottle">(bottle("a"));
    const { uid } = made.metadata;
    const seen = await store.patchStatus("Bottle", keyOf(made), { uid, status: { bottleID: "real" } });

    const forged = await store.update<"Bottle">({ ...relabelled(seen, "yes"), status: { bottleID: "forged" } });
    const dropped = await store.update<"Bottle">({ ...relabelled(forged, "no"), status: undefined });

    expect(forged.status).toEqual({ bottleID: "real" });
    expect(dropped.status).toEqual({ bottleID: "real" });
  });

  test("update cannot change uid or creation time", async () => {
    const { store } = await opened();
    const made = await store.create<"Bottle">(bottle("a"));
    const other = { uid: "00000000-0000-4000-8000-000000000000", creationTimestamp: "2001-01-01T00:00:00Z" };

    for (const [field, value] of Object.entries(other)) {
      const changed = { ...made, metadata: { ...made.metadata, [field]: value } };
      expect(await refusal(store.update<"Bottle">(changed))).not.toBe("none");
    }

    expect(await store.get("Bottle", keyOf(made))).toEqual(made);
  });

  test("labels, annotations, finalizers and owners are replaced as a whole", async () => {
    const { store } = await opened();
    const made = await store.create<"Bottle">(
      bottle("a", { labels: { x: "1" }, annotations: { "example.com/y": "2" } }),
    );
    const { labels: _labels, ...metadata } = made.metadata;

    const next = await store.update<"Bottle">({
      ...made,
      metadata: { ...metadata, annotations: { "example.com/z": "3" }, finalizers: [FINALIZER] },
    });

    expect(next.metadata.labels).toBeUndefined();
    expect(next.metadata.annotations).toEqual({ "example.com/z": "3" });
    expect(next.metadata.finalizers).toEqual([FINALIZER]);
  });
}

function statusRules(opened: Opened): void {
  test("patchStatus replaces status whole, keeps generation and takes a new version", async () => {
    const { store } = await opened();
    const made = await store.create<"Bottle">(bottle("a"));
    const { uid, resourceVersion } = made.metadata;
    await store.patchStatus("Bottle", keyOf(made), { uid, status: { bottleID: "x", observedGeneration: 1 } });

    const next = await store.patchStatus("Bottle", keyOf(made), { uid, status: { bottleID: "y" } });

    expect(next.status).toEqual({ bottleID: "y" });
    expect(next.spec).toEqual(made.spec);
    expect(next.metadata.generation).toBe(1);
    expect(next.metadata.resourceVersion).not.toBe(resourceVersion);
  });

  test("patchStatus needs no current version", async () => {
    const { store } = await opened();
    const made = await store.create<"Bottle">(bottle("a"));
    await store.update<"Bottle">(relabelled(made, "yes"));
    const { uid } = made.metadata;

    const next = await store.patchStatus("Bottle", keyOf(made), { uid, status: { bottleID: "x" } });

    expect(next.metadata.labels).toEqual({ changed: "yes" });
  });

  test("the same status again keeps the version", async () => {
    const { store } = await opened();
    const made = await store.create<"Bottle">(bottle("a"));
    const { uid } = made.metadata;
    const status = { bottleID: "x", observedGeneration: 1 };
    const first = await store.patchStatus("Bottle", keyOf(made), { uid, status });

    const second = await store.patchStatus("Bottle", keyOf(made), {
      uid,
      status: { observedGeneration: 1, bottleID: "x" },
    });

    expect(second).toEqual(first);
  });

  test("patchStatus of an object that is gone or another one is NotFound", async () => {
    const { store } = await opened();
    const first = await store.create<"Bottle">(bottle("a"));
    const patch = { uid: first.metadata.uid, status: { bottleID: "x" } };
    await store.delete("Bottle", keyOf(first));

    expect(await refusal(store.patchStatus("Bottle", keyOf(first), patch))).toBe("NotFound");
    await store.create<"Bottle">(bottle("a"));
    expect(await refusal(store.patchStatus("Bottle", keyOf(first), patch))).toBe("NotFound");
  });
}

async function deletingBottle(store: Store, finalizers: string[]) {
  const made = await store.create<"Bottle">(bottle("a", { finalizers }));
  await store.delete("Bottle", keyOf(made));
  const marked = await store.get("Bottle", keyOf(made));
  if (marked === undefined) throw new Error("a finalizer must keep the object");
  return marked;
}

function deleteRules(opened: Opened): void {
  test("delete without finalizers removes the object; of an absent one it is NotFound", async () => {
    const { store } = await opened();
    const made = await store.create<"Bottle">(bottle("a"));

    await store.delete("Bottle", keyOf(made));

    expect(await store.get("Bottle", keyOf(made))).toBeUndefined();
    expect(await refusal(store.delete("Bottle", keyOf(made)))).toBe("NotFound");
  });

  test("delete with finalizers marks the object once and keeps it", async () => {
    const { store } = await opened();
    const marked = await deletingBottle(store, [FINALIZER]);

    await store.delete("Bottle", keyOf(marked));

    expect(marked.metadata.deletionTimestamp).toBeDefined();
    expect(await store.get("Bottle", keyOf(marked))).toEqual(marked);
  });

  test("removing the last finalizer of an object that is being deleted removes it", async () => {
    const { store } = await opened();
    const marked = await deletingBottle(store, [FINALIZER, "example.com/other"]);

    const one = await store.update<"Bottle">({ ...marked, metadata: { ...marked.metadata, finalizers: [FINALIZER] } });
    expect(await store.get("Bottle", keyOf(marked))).toEqual(one);
    await store.update<"Bottle">({ ...one, metadata: { ...one.metadata, finalizers: [] } });

    expect(await store.get("Bottle", keyOf(marked))).toBeUndefined();
  });

  test("removing the last finalizer of an object that is not being deleted keeps it", async () => {
    const { store } = await opened();
    const made = await store.create<"Bottle">(bottle("a", { finalizers: [FINALIZER] }));

    await store.update<"Bottle">({ ...made, metadata: { ...made.metadata, finalizers: [] } });

    expect(await store.get("Bottle", keyOf(made))).toBeDefined();
  });

  test("a finalizer cannot be added while the object is being deleted", async () => {
    const { store } = await opened();
    const marked = await deletingBottle(store, [FINALIZER]);
    const finalizers = [FINALIZER, "example.com/late"];

    const late = store.update<"Bottle">({ ...marked, metadata: { ...marked.metadata, finalizers } });

    expect(await refusal(late)).toBe("Invalid");
  });

  test("a deletion cannot be undone by an update", async () => {
    const { store } = await opened();
    const marked = await deletingBottle(store, [FINALIZER]);
    const { deletionTimestamp, ...metadata } = marked.metadata;

    const next = await store.update<"Bottle">(relabelled({ ...marked, metadata }, "yes"));

    expect(next.metadata.deletionTimestamp).toBe(deletionTimestamp);
  });

  test("delete of another uid or version is Conflict", async () => {
    const { store } = await opened();
    const old = await store.create<"Bottle">(bottle("a"));
    const current = await store.update<"Bottle">(relabelled(old, "yes"));
    const { uid, resourceVersion } = current.metadata;

    const wrongUid = store.delete("Bottle", keyOf(old), { uid: "00000000-0000-4000-8000-000000000000" });
    expect(await refusal(wrongUid)).toBe("Conflict");
    const stale = store.delete("Bottle", keyOf(old), { resourceVersion: old.metadata.resourceVersion });
    expect(await refusal(stale)).toBe("Conflict");
    expect(await refusal(store.delete("Bottle", keyOf(old), { uid, resourceVersion }))).toBe("none");
  });
}
