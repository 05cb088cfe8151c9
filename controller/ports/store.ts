import type { KindMap, KindName } from "../api/kinds.ts";
import type { DraftMeta, ObjectKey } from "../api/meta.ts";

/** An object as somebody writes it: without what the store assigns. */
export type Draft<T> = T extends { metadata: unknown }
  ? Omit<T, "metadata" | "status"> & { metadata: DraftMeta }
  : never;

export interface List<T> {
  items: T[];
  /** A watch from here misses nothing that is not in `items`. */
  resourceVersion: string;
}

export type WatchEvent<T> =
  | { type: "ADDED" | "MODIFIED" | "DELETED"; object: T }
  /** Nothing changed up to this version; a watch may resume from it. */
  | { type: "BOOKMARK"; resourceVersion: string };

export interface DeleteOptions {
  /** Refused with Conflict if the object is another one by now. */
  uid?: string;
  /** Refused with Conflict if the object changed since. */
  resourceVersion?: string;
  /** What happens to objects that name this one as owner. Default Background: they are deleted once it is gone. */
  propagation?: "Background" | "Orphan";
}

/**
 * The one place where desired state lives. Semantics are those of the Kubernetes API, so that a cluster and one machine
 * behave alike. All methods may block on I/O, none retries, all refuse with a StatusError.
 */
export interface Store {
  /** Absent is `undefined`, not an error. */
  get<K extends KindName>(kind: K, key: ObjectKey): Promise<KindMap[K] | undefined>;

  /** All objects of a kind, by namespace and name, from one consistent snapshot. */
  list<K extends KindName>(kind: K, options?: { namespace?: string }): Promise<List<KindMap[K]>>;

  /**
   * Every change after `resourceVersion`, in order, each once, with a bookmark at least every ten seconds while idle. Ends when `signal` aborts.
   * Throws Gone when that version is older than the store's history: list again, then watch from the list's version.
   */
  watch<K extends KindName>(
    kinds: readonly K[],
    options: { resourceVersion: string; signal: AbortSignal },
  ): AsyncIterable<WatchEvent<KindMap[K]>>;

  /** Runs admission (defaults, validation), assigns uid (unless the draft has one), version and generation 1. AlreadyExists if the name is taken, also by an object that is being deleted. */
  create<K extends KindName>(draft: Draft<KindMap[K]>): Promise<KindMap[K]>;

  /**
   * Replaces metadata (labels, annotations, finalizers, owners) and everything but status. Conflict unless `metadata.resourceVersion` is current.
   * `generation` grows only if the spec changed; a write that changes nothing keeps the version and sends no event.
   * Removing the last finalizer of an object that is being deleted removes the object.
   */
  update<K extends KindName>(object: KindMap[K]): Promise<KindMap[K]>;

  /** Replaces status only, on the object with this uid, whatever its version; NotFound if it is gone or another one. Never changes `generation`; a no-op writes nothing. */
  patchStatus<K extends KindName>(
    kind: K,
    key: ObjectKey,
    patch: { uid: string; status: unknown },
  ): Promise<KindMap[K]>;

  /** With finalizers: sets `deletionTimestamp` once. Without: removes the object and its dependents. NotFound if absent. */
  delete(kind: KindName, key: ObjectKey, options?: DeleteOptions): Promise<void>;
}

/** Decides whether an object may be stored: returns it with defaults filled in, or throws Invalid. Pure. `old` is the stored object on an update. */
export type Admission = <K extends KindName>(kind: K, object: unknown, old: KindMap[K] | undefined) => unknown;
