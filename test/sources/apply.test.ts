import { describe, expect, it } from "vitest";
import type { Bottle } from "../../controller/api/bottle.ts";
import { ANNOTATIONS } from "../../controller/api/meta.ts";
import { admit } from "../../controller/api/admit.ts";
import { applyDraft, previewDraft, recordRejection, type DeclaredDraft } from "../../controller/sources/apply.ts";
import { draftOf } from "../../controller/sources/draft.ts";
import { bottleDraft, countingStore, memoryStore } from "./fixtures.ts";

const KEY = { namespace: "default", name: "b" };

async function bottleOf(store: ReturnType<typeof memoryStore>["store"]): Promise<Bottle> {
  const bottle = await store.get("Bottle", KEY);
  if (bottle === undefined) throw new Error("no bottle");
  return bottle;
}

describe("applying a draft", () => {
  it("creates, then leaves alone, then configures", async () => {
    const { store, writes } = countingStore(memoryStore().store);

    const results = [
      await applyDraft(store, bottleDraft("b")),
      await applyDraft(store, bottleDraft("b")),
      await applyDraft(store, bottleDraft("b", { label: "x" })),
    ].map(({ result }) => result);

    expect(results).toEqual(["created", "unchanged", "configured"]);
    expect(writes().slice(0, 1)).toEqual(["create b"]);
  });

  it("removes a field that it wrote before and writes no more, and keeps what others wrote", async () => {
    const { store } = memoryStore();
    await applyDraft(store, bottleDraft("b", { label: "x" }));
    const bottle = await bottleOf(store);
    await store.update<"Bottle">({ ...bottle, spec: { ...bottle.spec, color: "green", operatingMode: "Frozen" } });

    await applyDraft(store, bottleDraft("b"));

    const { spec } = await bottleOf(store);
    expect(spec).toMatchObject({ color: "green", operatingMode: "Frozen" });
    expect(spec.label).toBeUndefined();
  });

  it("keeps labels and annotations of others and never lets a manifest say who declares it", async () => {
    const { store } = memoryStore();
    const draft = bottleDraft("b");
    const annotations = { mine: "1", [ANNOTATIONS.source]: "folder:/forged", [ANNOTATIONS.importing]: "true" };
    await applyDraft(store, {
      ...draft,
      metadata: { ...draft.metadata, labels: { a: "1" }, annotations },
    } as DeclaredDraft);
    const bottle = await bottleOf(store);
    const labels = { ...bottle.metadata.labels, theirs: "2" };
    await store.update<"Bottle">({ ...bottle, metadata: { ...bottle.metadata, labels } });

    await applyDraft(store, bottleDraft("b"));

    const { metadata } = await bottleOf(store);
    expect(metadata.labels).toEqual({ a: "1", theirs: "2" });
    expect(metadata.annotations).toMatchObject({ mine: "1" });
    expect(metadata.annotations?.[ANNOTATIONS.source]).toBeUndefined();
    expect(metadata.annotations?.[ANNOTATIONS.importing]).toBeUndefined();
  });

  it("is tried again when it loses a race, and says so at last when it always does", async () => {
    const { store } = memoryStore();
    await applyDraft(store, bottleDraft("b"));
    let losses = 3;
    const racing = {
      ...store,
      update: async (object: Bottle) => {
        if (losses > 0) {
          losses -= 1;
          const now = await bottleOf(store);
          await store.update<"Bottle">({
            ...now,
            spec: { ...now.spec, color: losses === 0 ? "red" : losses % 2 === 0 ? "blue" : "green" },
          });
        }
        return store.update<"Bottle">(object);
      },
    } as unknown as typeof store;

    await applyDraft(racing, bottleDraft("b", { label: "won" }));

    expect((await bottleOf(store)).spec).toMatchObject({ label: "won", color: "red" });
    losses = 100;
    await expect(applyDraft(racing, bottleDraft("b", { label: "lost" }))).rejects.toMatchObject({ reason: "Conflict" });
    expect(losses).toBe(95);
  });

  it("is refused while the object is being deleted", async () => {
    const { store } = memoryStore();
    const draft = bottleDraft("b");
    await store.create({
      ...draft,
      metadata: { ...draft.metadata, finalizers: ["bot-bottle.dev/bottle"] },
    } as DeclaredDraft);
    await store.delete("Bottle", KEY);

    await expect(applyDraft(store, bottleDraft("b", { label: "x" }))).rejects.toMatchObject({ reason: "Conflict" });
  });

  it("is foretold by the preview: the same answers and the same refusals, with nothing stored", async () => {
    const { store } = memoryStore();
    const preview = async (draft: DeclaredDraft) => (await previewDraft(store, draft, { admit })).result;

    expect(await preview(bottleDraft("b"))).toBe("created");
    await expect(preview(bottleDraft("b", { color: "no" }))).rejects.toMatchObject({ reason: "Invalid" });
    await applyDraft(store, bottleDraft("b"));
    expect(await preview(bottleDraft("b"))).toBe("unchanged");
    expect(await preview(bottleDraft("b", { label: "x" }))).toBe("configured");
    await expect(preview(bottleDraft("b", { turns: [] }))).rejects.toMatchObject({ reason: "Invalid" });
  });
});

describe("a rejection", () => {
  it("is noted once, counts as no change of the spec, and is cleared by the next accepted declaration", async () => {
    const { store, writes } = countingStore(memoryStore().store);
    const { object } = await applyDraft(store, bottleDraft("b"));

    await recordRejection(store, "Bottle", KEY, "why");
    await recordRejection(store, "Bottle", KEY, "why");
    await recordRejection(store, "Bottle", { ...KEY, name: "none" }, "why");

    expect(writes()).toEqual(["create b", "update b"]);
    const noted = await bottleOf(store);
    expect(noted.metadata.annotations?.[ANNOTATIONS.rejectedUpdate]).toBe("why");
    expect(noted.metadata.generation).toBe(object.metadata.generation);
    await applyDraft(store, bottleDraft("b"));
    expect((await bottleOf(store)).metadata.annotations?.[ANNOTATIONS.rejectedUpdate]).toBeUndefined();
  });
});

function manifest(more: object): DeclaredDraft {
  return draftOf({ ...bottleDraft("b"), ...more } as unknown as Parameters<typeof draftOf>[0]);
}

describe("a manifest", () => {
  it("may hold what a server fills in, which is ignored", () => {
    const metadata = { name: "b", uid: "u", resourceVersion: "7", creationTimestamp: "x", finalizers: ["f"] };
    expect(manifest({ metadata, status: {} }).metadata).toEqual({ name: "b" });
  });

  it.each([
    ["metadata.namespce", { metadata: { name: "b", namespce: "x" } }],
    ["metadata.namespace", { metadata: { name: "b", namespace: 5 } }],
    ["metadata.labels", { metadata: { name: "b", labels: ["x"] } }],
    ["metadata.labels.a", { metadata: { name: "b", labels: { a: 1 } } }],
    ["specs", { specs: {} }],
    ["spec", { spec: "text" }],
  ])("is refused at %s, which a merge would hide", (field, more) => {
    expect(() => manifest(more)).toThrow(expect.objectContaining({ causes: [expect.objectContaining({ field })] }));
  });
});
