import type { Agent } from "../api/agent.ts";
import type { Bottle } from "../api/bottle.ts";
import { isStatus } from "../api/errors.ts";
import { keyOf, keyText } from "../api/meta.ts";
import type { BottleTemplate } from "../api/template.ts";
import type { SecretResource } from "../api/secret.ts";
import { resolveBottle, type Resolution } from "../plan/resolve.ts";
import type { SecretFacts } from "../plan/resolve-egress.ts";
import type { Log } from "../ports/log.ts";
import type { Store, WatchEvent } from "../ports/store.ts";

const CACHED_KINDS = ["Bottle", "Agent", "BottleTemplate", "Secret"] as const;
type Stored = Bottle | Agent | BottleTemplate | SecretResource;
type Cached = Bottle | Agent | BottleTemplate | SecretNote;

/** What is kept of a Secret: its values stay in the store, and are read when a guard needs them. */
interface SecretNote extends SecretFacts {
  kind: "Secret";
  metadata: SecretResource["metadata"];
}

/** How soon a broken watch is set up again; doubled up to the maximum while it stays broken. */
const WATCH_RETRY_FIRST_MS = 500;
const WATCH_RETRY_MAX_MS = 30_000;

/** What the store holds of the kinds a reconciler reads, kept current by a watch. */
export class Cache {
  readonly #store: Store;
  readonly #log: Log;
  readonly #objects = {
    Bottle: new Map<string, Bottle>(),
    Agent: new Map<string, Agent>(),
    BottleTemplate: new Map<string, BottleTemplate>(),
    Secret: new Map<string, SecretNote>(),
  };
  readonly #keys = new Map<string, string>();
  readonly #resolutions = new Map<string, { generation: number; epoch: number; resolution: Resolution }>();
  /** Grows with every change of an agent, a template or a Secret: a resolution from an earlier epoch is computed again. */
  #epoch = 0;

  constructor(store: Store, log: Log) {
    this.#store = store;
    this.#log = log;
  }

  bottle(key: string): Bottle | undefined {
    return this.#objects.Bottle.get(key);
  }

  bottles(): Iterable<Bottle> {
    return this.#objects.Bottle.values();
  }

  /** `namespace/name` of the bottle with this uid. */
  keyOfUid(uid: string): string | undefined {
    return this.#keys.get(uid);
  }

  /** References of a bottle followed; computed anew only when one of the objects changed. */
  resolution(bottle: Bottle): Resolution {
    const { uid, namespace, generation } = bottle.metadata;
    const known = this.#resolutions.get(uid);
    if (known?.epoch === this.#epoch && known.generation === generation) return known.resolution;
    const resolution = resolveBottle(bottle, {
      agent: (name) => this.#objects.Agent.get(keyText({ namespace, name })),
      template: (name) => this.#objects.BottleTemplate.get(keyText({ namespace, name })),
      secret: (name) => this.#objects.Secret.get(keyText({ namespace, name })),
    });
    this.#resolutions.set(uid, { generation, epoch: this.#epoch, resolution });
    return resolution;
  }

  /** Takes in an object that was just written, so that the next pass sees it before the watch tells. */
  put(object: Bottle): void {
    if (!this.#isOlder(object)) this.#insert(object);
  }

  /** Reads everything anew. Returns the version from which a watch misses nothing. */
  async load(): Promise<string> {
    let oldest: string | undefined;
    for (const kind of CACHED_KINDS) {
      const list = await this.#store.list(kind);
      // The watch starts at the first list's version: what the later lists already show comes again, which does no harm.
      oldest ??= list.resourceVersion;
      for (const object of this.#objects[kind].values()) this.#remove(object);
      for (const object of list.items) this.#insert(noted(object));
    }
    return oldest ?? "0";
  }

  /** Loads, then follows changes until `signal` aborts. `changed` gets the keys of bottles that may need a pass; `synced` is called after each load. */
  async run(handlers: { changed: (key: string) => void; synced: () => void }, signal: AbortSignal): Promise<void> {
    let retryMs = WATCH_RETRY_FIRST_MS;
    while (!signal.aborted) {
      try {
        const from = await this.load();
        handlers.synced();
        for await (const event of this.#store.watch(CACHED_KINDS, { resourceVersion: from, signal })) {
          this.#take(event, handlers.changed);
          retryMs = WATCH_RETRY_FIRST_MS;
        }
      } catch (error) {
        if (!isStatus(error, "Gone")) this.#log.warn({ error: String(error), retryMs }, "watch of the store broke");
        await pause(retryMs, signal);
        retryMs = Math.min(WATCH_RETRY_MAX_MS, retryMs * 2);
      }
    }
  }

  #take(event: WatchEvent<Stored>, changed: (key: string) => void): void {
    if (event.type === "BOOKMARK") return;
    const object = noted(event.object);
    if (this.#isOlder(object)) return;
    const key = keyText(keyOf(object));
    const before = object.kind === "Bottle" ? this.#objects.Bottle.get(key) : undefined;
    if (event.type === "DELETED") this.#remove(object);
    else this.#insert(object);
    if (object.kind === "Bottle") {
      if (event.type !== "MODIFIED" || !onlyStatusDiffers(before, object)) changed(key);
      return;
    }
    for (const [bottleKey, bottle] of this.#objects.Bottle) {
      if (bottle.metadata.namespace === object.metadata.namespace) changed(bottleKey);
    }
  }

  #insert(object: Cached): void {
    const key = keyText(keyOf(object));
    if (object.kind === "Bottle") {
      this.#objects.Bottle.set(key, object);
      this.#keys.set(object.metadata.uid, key);
      return;
    }
    this.#epoch += 1;
    if (object.kind === "Agent") this.#objects.Agent.set(key, object);
    else if (object.kind === "Secret") this.#objects.Secret.set(key, object);
    else this.#objects.BottleTemplate.set(key, object);
  }

  #remove(object: Cached): void {
    this.#objects[object.kind].delete(keyText(keyOf(object)));
    if (object.kind !== "Bottle") {
      this.#epoch += 1;
      return;
    }
    this.#keys.delete(object.metadata.uid);
    this.#resolutions.delete(object.metadata.uid);
  }

  #isOlder(object: Cached): boolean {
    const known = this.#objects[object.kind].get(keyText(keyOf(object)));
    if (known === undefined || known.metadata.uid !== object.metadata.uid) return false;
    return Number(known.metadata.resourceVersion) > Number(object.metadata.resourceVersion);
  }
}

function noted(object: Stored): Cached {
  if (object.kind !== "Secret") return object;
  const { kind, metadata, data } = object;
  // An object that was deleted and made again may come back with the same version in another store; never with the same uid.
  return { kind, metadata, keys: new Set(Object.keys(data)), version: `${metadata.uid}/${metadata.resourceVersion}` };
}

/** The loop's own status writes come back as events; they are no reason for another pass. */
export function onlyStatusDiffers(before: Bottle | undefined, after: Bottle): boolean {
  if (before === undefined || before.metadata.uid !== after.metadata.uid) return false;
  const a = before.metadata;
  const b = after.metadata;
  return (
    a.generation === b.generation &&
    a.deletionTimestamp === b.deletionTimestamp &&
    JSON.stringify([a.annotations, a.finalizers]) === JSON.stringify([b.annotations, b.finalizers])
  );
}

function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((done) => {
    const finish = (): void => {
      clearTimeout(timer);
      signal.removeEventListener("abort", finish);
      done();
    };
    const timer = setTimeout(finish, ms);
    signal.addEventListener("abort", finish, { once: true });
  });
}
