import { expect, onTestFinished, test } from "vitest";
import { FINALIZER, keyOf } from "../../controller/api/meta.ts";
import {
  bottle,
  changesSince,
  event,
  eventsUntil,
  relabelled,
  summary,
  template,
  type OpenStore,
} from "./store-fixtures.ts";

/** What a watch tells, and when. */
export function watchRules(opened: () => Promise<OpenStore>): void {
  test("a watch from a list's version tells every change after it, in order, once, and nothing else", async () => {
    const { store } = await opened();
    await store.create<"Bottle">(bottle("before"));
    const { resourceVersion } = await store.list("Bottle");

    const a = await store.create<"Bottle">(bottle("a"));
    const b = await store.create<"Bottle">(bottle("b"));
    const changed = await store.update<"Bottle">(relabelled(a, "yes"));
    await store.update<"Bottle">(changed);
    await store.delete("Bottle", keyOf(b));

    const changes = await changesSince(store, ["Bottle"], resourceVersion);
    expect(summary(changes)).toEqual(["ADDED default/a", "ADDED default/b", "MODIFIED default/a", "DELETED default/b"]);
    expect(changes.slice(0, 3).map((change) => change.object)).toEqual([a, b, changed]);
  });

  test("a refused write sends no event", async () => {
    const { store } = await opened();
    const made = await store.create<"Bottle">(bottle("a"));
    const { resourceVersion } = await store.list("Bottle");

    await store.create<"Bottle">(bottle("a")).catch(() => undefined);
    await store
      .update<"Bottle">({ ...made, metadata: { ...made.metadata, resourceVersion: "1999999" } })
      .catch(() => undefined);

    expect(await changesSince(store, ["Bottle"], resourceVersion)).toEqual([]);
  });

  test("a watch tells only of the kinds it asked for", async () => {
    const { store } = await opened();
    const { resourceVersion } = await store.list("Bottle");

    await store.create<"Bottle">(bottle("a"));
    await store.create<"Event">(event("launched"));

    expect(summary(await changesSince(store, ["Event"], resourceVersion))).toEqual(["ADDED default/launched"]);
  });

  test("a change is told while the watch waits", async () => {
    const { store } = await opened();
    const { resourceVersion } = await store.list("Bottle");
    const told = eventsUntil(store, { kinds: ["Bottle"], resourceVersion }, (seen) => seen.type === "ADDED");
    const status = eventsUntil(store, { kinds: ["Bottle"], resourceVersion }, (seen) => seen.type === "MODIFIED");

    const made = await store.create<"Bottle">(bottle("a"));
    const { uid } = made.metadata;
    await told;
    const patched = await store.patchStatus("Bottle", keyOf(made), { uid, status: { bottleID: "x" } });

    expect(await told).toEqual([{ type: "ADDED", object: made }]);
    expect((await status).at(-1)).toEqual({ type: "MODIFIED", object: patched });
  });

  test("a deleted object is told in its last state with the version of its deletion", async () => {
    const { store } = await opened();
    const made = await store.create<"Bottle">(bottle("a"));

    await store.delete("Bottle", keyOf(made));

    const [gone] = await changesSince(store, ["Bottle"], made.metadata.resourceVersion);
    expect(gone?.object).toMatchObject({ spec: made.spec, metadata: { uid: made.metadata.uid } });
    expect(gone?.object.metadata.resourceVersion).not.toBe(made.metadata.resourceVersion);
  });

  test("a deletion with finalizers is told as MODIFIED, then DELETED", async () => {
    const { store } = await opened();
    const made = await store.create<"Bottle">(bottle("a", { finalizers: [FINALIZER] }));
    await store.delete("Bottle", keyOf(made));
    await store.delete("Bottle", keyOf(made));
    const marked = await store.get("Bottle", keyOf(made));
    if (marked === undefined) throw new Error("a finalizer must keep the object");

    await store.update<"Bottle">({ ...marked, metadata: { ...marked.metadata, finalizers: [] } });

    const changes = await changesSince(store, ["Bottle"], made.metadata.resourceVersion);
    expect(summary(changes)).toEqual(["MODIFIED default/a", "DELETED default/a"]);
  });

  test("an idle watch sends a bookmark from which another watch goes on", async () => {
    const { store } = await opened();
    await store.create<"Bottle">(bottle("a"));
    const { resourceVersion } = await store.list("Event");
    const last = await store.create<"BottleTemplate">(template("unrelated"));

    const seen = await eventsUntil(store, { kinds: ["Event"], resourceVersion }, ({ type }) => type === "BOOKMARK");

    const bookmark = seen.at(-1);
    if (bookmark?.type !== "BOOKMARK") throw new Error("no bookmark");
    expect(bookmark.resourceVersion).toBe(last.metadata.resourceVersion);
    await store.create<"Event">(event("later"));
    const changes = await changesSince(store, ["Event"], bookmark.resourceVersion);
    expect(summary(changes)).toEqual(["ADDED default/later"]);
  });

  test("after a bookmark the next one takes its time, whatever happens to other kinds", async () => {
    const { store } = await opened();
    const { resourceVersion } = await store.list("Event");
    const abort = new AbortController();
    onTestFinished(() => abort.abort());
    const watch = store.watch(["Event"], { resourceVersion, signal: abort.signal })[Symbol.asyncIterator]();
    expect(await watch.next()).toMatchObject({ value: { type: "BOOKMARK" } });

    const next = watch.next();
    for (let n = 0; n < 50; n++) await store.create<"BottleTemplate">(template(`unrelated-${n}`));
    const made = await store.create<"Event">(event("later"));

    expect(await next).toEqual({ done: false, value: { type: "ADDED", object: made } });
  });

  test("a watch ends when its signal aborts, before and while it waits", async () => {
    const { store } = await opened();
    const { resourceVersion } = await store.list("Bottle");
    const abort = new AbortController();
    const run = async (signal: AbortSignal) => {
      for await (const seen of store.watch(["Bottle"], { resourceVersion, signal })) throw new Error(seen.type);
      return "ended";
    };

    const waiting = run(abort.signal);
    setImmediate(() => abort.abort());

    expect(await waiting).toBe("ended");
    expect(await run(abort.signal)).toBe("ended");
  });
}
