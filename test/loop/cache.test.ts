import { inspect } from "node:util";
import { afterEach, describe, expect, it, vi } from "vitest";
import type { Bottle } from "../../controller/api/bottle.ts";
import { StatusError } from "../../controller/api/errors.ts";
import { ANNOTATIONS, API_VERSION } from "../../controller/api/meta.ts";
import { Cache } from "../../controller/loop/cache.ts";
import type { Resolution } from "../../controller/plan/resolve.ts";
import type { Store } from "../../controller/ports/store.ts";
import { bottleDraft, memoryDatabase, secretDraft, settled, SILENT, until } from "./tools.ts";

const KEY = { namespace: "default", name: "a" };

afterEach(() => void vi.useRealTimers());

/** A cache that follows a store in memory, with the keys it called changed. */
async function following(prepare: (store: Store) => Promise<void> = async () => {}) {
  const { store } = memoryDatabase();
  await prepare(store);
  const cache = new Cache(store, SILENT);
  const changed: string[] = [];
  const stop = new AbortController();
  let loads = 0;
  const running = cache.run({ changed: (key) => changed.push(key), synced: () => (loads += 1) }, stop.signal);
  await until("loaded", () => loads === 1);
  return {
    store,
    cache,
    changed,
    async [Symbol.asyncDispose]() {
      stop.abort();
      await running;
    },
  };
}

async function bottleIn(store: Store, name = "a"): Promise<Bottle> {
  const bottle = await store.get("Bottle", { namespace: "default", name });
  if (bottle === undefined) throw new Error(`there is no bottle "${name}"`);
  return bottle;
}

/** Until the watch told of everything written so far: of a bottle written last, it tells last. */
async function caughtUp({ store, cache }: { store: Store; cache: Cache }): Promise<void> {
  const name = `last-${Math.random().toString(36).slice(2)}`;
  await store.create<"Bottle">(bottleDraft(name));
  await until("caught up", () => cache.bottle(`default/${name}`) !== undefined);
}

const inDefault = (changed: readonly string[]) => changed.filter((key) => !key.startsWith("default/last-"));

function template(image: string) {
  return {
    apiVersion: API_VERSION,
    kind: "BottleTemplate" as const,
    metadata: { name: "t", namespace: "default" },
    spec: { image },
  };
}

function bottleAt(resourceVersion: string): Bottle {
  return {
    ...bottleDraft("a"),
    metadata: { ...KEY, uid: "u", resourceVersion, generation: 1, creationTimestamp: "2026-11-20T12:00:00Z" },
  };
}

/** A store whose watches end as the test says; `lists` counts how often everything was read. */
function breaking(ends: (() => Promise<never>)[]) {
  const { store } = memoryDatabase();
  const seen = { lists: 0, watches: [] as number[] };
  const broken: Store = {
    ...store,
    list: (kind, options) => {
      if (kind === "Bottle") seen.lists += 1;
      return store.list(kind, options);
    },
    watch: async function* (kinds, options) {
      seen.watches.push(Date.now());
      const end = ends.shift();
      if (end !== undefined) await end();
      yield* store.watch(kinds, options);
    },
  };
  return { store: broken, seen };
}

function follow(store: Store): { stop: AbortController; running: Promise<void>; cache: Cache } {
  const stop = new AbortController();
  const cache = new Cache(store, SILENT);
  return { stop, cache, running: cache.run({ changed() {}, synced() {} }, stop.signal) };
}

describe("the cache follows the store", () => {
  it("holds what was there before it began", async () => {
    await using bench = await following(async (store) => {
      await store.create<"Bottle">(bottleDraft("a"));
    });
    const { cache, store } = bench;

    const { uid } = (await bottleIn(store)).metadata;
    expect(cache.bottle("default/a")?.metadata.uid).toBe(uid);
    expect(cache.keyOfUid(uid)).toBe("default/a");
    expect([...cache.bottles()]).toHaveLength(1);
  });

  it("a new, a changed and a removed bottle are changes", async () => {
    await using bench = await following();
    const { store, cache, changed } = bench;

    const made = await store.create<"Bottle">(bottleDraft("a"));
    await until("created", () => changed.length === 1);
    await store.update<"Bottle">({ ...made, spec: { ...made.spec, operatingMode: "Frozen" } });
    await until("changed", () => changed.length === 2);
    expect(cache.bottle("default/a")?.spec.operatingMode).toBe("Frozen");
    await store.delete("Bottle", KEY);
    await until("removed", () => changed.length === 3);

    expect(changed).toEqual(["default/a", "default/a", "default/a"]);
    expect(cache.bottle("default/a")).toBeUndefined();
    expect(cache.keyOfUid(made.metadata.uid)).toBeUndefined();
  });

  it("annotations, finalizers and the wish to delete are changes", async () => {
    await using bench = await following();
    const { store, changed } = bench;
    const made = await store.create<"Bottle">(bottleDraft("a"));
    await until("created", () => changed.length === 1);

    const annotations = { [ANNOTATIONS.importing]: "yes" };
    const annotated = await store.update<"Bottle">({ ...made, metadata: { ...made.metadata, annotations } });
    await until("annotated", () => changed.length === 2);
    await store.update<"Bottle">({ ...annotated, metadata: { ...annotated.metadata, finalizers: ["example.com/f"] } });
    await until("held", () => changed.length === 3);
    await store.delete("Bottle", KEY);
    await until("being deleted", () => changed.length === 4);

    expect((await bottleIn(store)).metadata.deletionTimestamp).toBeDefined();
  });

  it("a status is no change: the loop wrote it itself", async () => {
    await using bench = await following();
    const { store, cache, changed } = bench;
    const { metadata } = await store.create<"Bottle">(bottleDraft("a"));
    await until("created", () => changed.length === 1);

    await store.patchStatus("Bottle", KEY, { uid: metadata.uid, status: { bottleID: metadata.uid } });
    await caughtUp(bench);

    expect(inDefault(changed)).toEqual(["default/a"]);
    expect(cache.bottle("default/a")?.status?.bottleID).toBe(metadata.uid);
  });

  it("an agent or a template concerns every bottle of its namespace, and no other", async () => {
    await using bench = await following(async (store) => {
      for (const name of ["a", "b"]) await store.create<"Bottle">(bottleDraft(name));
      await store.create<"Bottle">({ ...bottleDraft("c"), metadata: { name: "c", namespace: "other" } });
    });
    const { store, changed } = bench;

    await store.create<"BottleTemplate">({
      apiVersion: API_VERSION,
      kind: "BottleTemplate",
      metadata: { name: "t", namespace: "default" },
      spec: { image: "debian:12" },
    });
    await until("told", () => changed.length >= 2);
    await caughtUp(bench);

    expect(inDefault(changed).sort()).toEqual(["default/a", "default/b"]);
  });
});

describe("references in the cache", () => {
  it("are followed anew when what they name has changed, and only then", async () => {
    await using bench = await following(async (store) => {
      await store.create<"BottleTemplate">(template("debian:12"));
      await store.create<"Bottle">(bottleDraft("a", { templateRefs: [{ name: "t" }] }));
    });
    const { store, cache } = bench;
    const bottle = await bottleIn(store);

    const first = cache.resolution(bottle);
    expect(first).toMatchObject({ ok: true, template: { image: "debian:12" } });
    expect(cache.resolution(bottle)).toBe(first);
    const stored = await store.get("BottleTemplate", { namespace: "default", name: "t" });
    if (stored === undefined) throw new Error("there is no template");
    await store.update<"BottleTemplate">({ ...stored, spec: { image: "debian:13" } });
    await caughtUp(bench);

    expect(cache.resolution(bottle)).toMatchObject({ ok: true, template: { image: "debian:13" } });
  });

  it("to what is not there do not resolve, until it is", async () => {
    await using bench = await following(async (store) => {
      await store.create<"Bottle">(bottleDraft("a", { templateRefs: [{ name: "t" }] }));
    });
    const { store, cache } = bench;
    const bottle = await bottleIn(store);
    expect(cache.resolution(bottle)).toMatchObject({ ok: false, reason: "TemplateNotFound" });

    await store.create<"BottleTemplate">(template("debian:12"));
    await caughtUp(bench);

    expect(cache.resolution(bottle)).toMatchObject({ ok: true });
  });
});

describe("secrets in the cache", () => {
  const inject = [{ header: "Authorization", secretRef: { name: "api", key: "token" } }];
  const egress = { rules: [{ name: "api", host: "api.example.com", action: "Allow" as const, inject }] };

  async function injecting() {
    return following(async (store) => {
      await store.create<"BottleTemplate">({ ...template("debian:12"), spec: { egress } });
      await store.create<"Bottle">(bottleDraft("a", { templateRefs: [{ name: "t" }] }));
      await store.create<"Bottle">({ ...bottleDraft("c"), metadata: { name: "c", namespace: "other" } });
    });
  }

  it("are known by their keys and a version that every change makes another one", async () => {
    await using bench = await injecting();
    const { store, cache, changed } = bench;
    const bottle = await bottleIn(store);
    expect(cache.resolution(bottle)).toMatchObject({ ok: false, reason: "SecretNotFound" });

    const secret = await store.create<"Secret">(secretDraft("api", { token: "one" }));
    await caughtUp(bench);
    const first = cache.resolution(bottle);
    await store.update<"Secret">({ ...secret, data: { token: "dHdv" } });
    await caughtUp(bench);
    const second = cache.resolution(bottle);

    expect([first.ok, second.ok]).toEqual([true, true]);
    expect(versionIn(second)).not.toBe(versionIn(first));
    expect(inDefault(changed)).toEqual(["default/a", "default/a"]);
  });

  it("that are made anew under their name are others, also with the same key", async () => {
    await using bench = await injecting();
    const { store, cache } = bench;
    const bottle = await bottleIn(store);
    await store.create<"Secret">(secretDraft("api", { token: "one" }));
    await caughtUp(bench);
    const first = versionIn(cache.resolution(bottle));

    await store.delete("Secret", { namespace: "default", name: "api" });
    await caughtUp(bench);
    expect(cache.resolution(bottle)).toMatchObject({ ok: false, reason: "SecretNotFound" });
    await store.create<"Secret">(secretDraft("api", { token: "one" }));
    await caughtUp(bench);

    expect(versionIn(cache.resolution(bottle))).not.toBe(first);
  });

  it("are without their values: what is kept for hours holds none", async () => {
    await using bench = await injecting();
    const { store, cache } = bench;

    await store.create<"Secret">(secretDraft("api", { token: "hunter2-hunter2" }));
    await caughtUp(bench);

    const held = inspect(cache, { depth: 9, showHidden: true, maxStringLength: null });
    const known = inspect(cache.resolution(await bottleIn(store)), { depth: 9 });
    for (const form of ["hunter2", Buffer.from("hunter2-hunter2").toString("base64")]) {
      expect(held).not.toContain(form);
      expect(known).not.toContain(form);
    }
  });
});

function versionIn(resolution: Resolution): string | undefined {
  return resolution.ok ? resolution.egress.secrets["api/token"] : undefined;
}

describe("put", () => {
  it("makes the next pass see what this one wrote", async () => {
    const { store } = memoryDatabase();
    const cache = new Cache(store, SILENT);

    cache.put(await store.create<"Bottle">(bottleDraft("a")));

    expect(cache.bottle("default/a")).toBeDefined();
  });

  it("never goes back to an older version when an answer is late", async () => {
    const { store } = memoryDatabase();
    const cache = new Cache(store, SILENT);
    const old = await store.create<"Bottle">(bottleDraft("a"));
    const young = await store.update<"Bottle">({ ...old, spec: { ...old.spec, operatingMode: "Frozen" } });

    cache.put(young);
    cache.put(old);

    expect(cache.bottle("default/a")?.metadata.resourceVersion).toBe(young.metadata.resourceVersion);
  });

  it("is not undone by an event from before it", async () => {
    const { store } = memoryDatabase();
    const old = await store.create<"Bottle">(bottleDraft("a"));
    const young = await store.update<"Bottle">({ ...old, spec: { ...old.spec, operatingMode: "Frozen" } });
    const late: Store = {
      ...store,
      watch: async function* (_kinds, { signal }) {
        yield { type: "MODIFIED", object: old } as never;
        yield { type: "DELETED", object: old } as never;
        await new Promise((done) => signal.addEventListener("abort", done));
      },
    };
    const cache = new Cache(late, SILENT);
    const stop = new AbortController();
    const changed: string[] = [];

    const running = cache.run({ changed: (key) => changed.push(key), synced() {} }, stop.signal);
    await settled();

    expect(cache.bottle("default/a")).toEqual(young);
    expect(changed).toEqual([]);
    stop.abort();
    await running;
  });

  it("compares versions as numbers: 10 is younger than 9", () => {
    const { store } = memoryDatabase();
    const cache = new Cache(store, SILENT);
    cache.put(bottleAt("10"));
    cache.put(bottleAt("9"));

    expect(cache.bottle("default/a")?.metadata.resourceVersion).toBe("10");
  });

  it("takes another object of the same name whatever its version", async () => {
    const { store } = memoryDatabase();
    const cache = new Cache(store, SILENT);
    const first = await store.create<"Bottle">(bottleDraft("a"));
    cache.put(first);
    const metadata = { ...first.metadata, uid: "another", resourceVersion: "0" };

    cache.put({ ...first, metadata });

    expect(cache.bottle("default/a")?.metadata.uid).toBe("another");
  });
});

describe("a watch that breaks", () => {
  it("because the store forgot the version is answered by reading everything anew", async () => {
    vi.useFakeTimers();
    const { store, seen } = breaking([() => Promise.reject(new StatusError("Gone", "too old"))]);
    const { stop, running, cache } = follow(store);
    await store.create<"Bottle">(bottleDraft("gone"));
    await vi.advanceTimersByTimeAsync(0);
    await store.create<"Bottle">(bottleDraft("a"));
    await store.delete("Bottle", { namespace: "default", name: "gone" });

    await vi.advanceTimersByTimeAsync(1000);

    expect(seen.lists).toBe(2);
    expect([...cache.bottles()].map((bottle) => bottle.metadata.name)).toEqual(["a"]);
    stop.abort();
    await running;
  });

  it("is set up again after a wait that doubles up to half a minute, for as long as it takes", async () => {
    vi.useFakeTimers();
    const { store, seen } = breaking(Array.from({ length: 12 }, () => () => Promise.reject(new Error("cut off"))));
    const { stop, running } = follow(store);

    await vi.advanceTimersByTimeAsync(300_000);

    const waits = seen.watches.slice(1).map((atMs, index) => atMs - (seen.watches[index] ?? 0));
    expect(waits.slice(0, 9)).toEqual([500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000, 30_000]);
    expect(seen.watches).toHaveLength(13);
    stop.abort();
    await running;
  });

  it("does not hold up the end: an abort ends the wait", async () => {
    vi.useFakeTimers();
    const { store } = breaking(Array.from({ length: 12 }, () => () => Promise.reject(new Error("cut off"))));
    const { stop, running } = follow(store);
    await vi.advanceTimersByTimeAsync(60_000);

    stop.abort();

    await expect(running).resolves.toBeUndefined();
  });
});
