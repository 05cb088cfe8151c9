import type { Bottle } from "../../controller/api/bottle.ts";
import { StatusError, type StatusReason } from "../../controller/api/errors.ts";
import type { KindMap, KindName } from "../../controller/api/kinds.ts";
import { API_VERSION, keyOf, keyText, type DraftMeta, type OwnerReference } from "../../controller/api/meta.ts";
import type { BottleTemplate } from "../../controller/api/template.ts";
import type { AuditLog } from "../../controller/ports/audit.ts";
import type { Journal, Transcripts } from "../../controller/ports/journal.ts";
import type { Draft, Store, WatchEvent } from "../../controller/ports/store.ts";

/** One opened, empty store. Drivers that keep no journal leave it out. */
export interface OpenStore {
  store: Store;
  journal?: Journal;
  transcripts?: Transcripts;
  auditLog?: AuditLog;
  dispose(): Promise<void>;
}

/** A second namespace that the store must accept. */
export const OTHER_NAMESPACE = "other";
/** No wait of these tests lasts longer. */
export const DEADLINE_MS = 20_000;

export function bottle(name: string, metadata: Partial<DraftMeta> = {}): Draft<Bottle> {
  const spec: Bottle["spec"] = {
    agentRef: { name: "implementer" },
    operatingMode: "Running",
    turns: [{ id: "one", prompt: "Fix issue 42" }],
    label: "first",
  };
  return { apiVersion: API_VERSION, kind: "Bottle", metadata: { name, ...metadata }, spec };
}

export function template(name: string, metadata: Partial<DraftMeta> = {}): Draft<BottleTemplate> {
  return {
    apiVersion: API_VERSION,
    kind: "BottleTemplate",
    metadata: { name, ...metadata },
    spec: { image: "example/image:1" },
  };
}

export function event(name: string): Draft<KindMap["Event"]> {
  const time = "2026-01-01T00:00:00Z";
  return {
    apiVersion: "v1",
    kind: "Event",
    metadata: { name },
    involvedObject: { apiVersion: API_VERSION, kind: "Bottle", namespace: "default", name: "a" },
    type: "Normal",
    reason: "Launched",
    message: "the bottle was launched",
    count: 1,
    firstTimestamp: time,
    lastTimestamp: time,
    source: { component: "controller" },
  };
}

export function ownerOf(object: Bottle | BottleTemplate): OwnerReference {
  const { name, uid } = object.metadata;
  return { apiVersion: API_VERSION, kind: object.kind, name, uid };
}

/** The object with other labels, so that a write has something to change. */
export function relabelled<T extends { metadata: { labels?: Record<string, string> } }>(object: T, value: string): T {
  return { ...object, metadata: { ...object.metadata, labels: { changed: value } } };
}

/** What a call was refused with, for comparing whole values. */
export async function refusal(call: Promise<unknown>): Promise<StatusReason | "none"> {
  try {
    await call;
    return "none";
  } catch (error) {
    if (error instanceof StatusError) return error.reason;
    throw error;
  }
}

/** Waits until the check holds; a cluster collects garbage in its own time. */
export async function eventually(check: () => Promise<boolean>): Promise<void> {
  const deadline = performance.now() + DEADLINE_MS;
  while (!(await check())) {
    if (performance.now() > deadline) throw new Error(`not so within ${DEADLINE_MS} ms: ${check.toString()}`);
    await new Promise((resolve) => {
      setTimeout(resolve, 10);
    });
  }
}

/** The events of a watch up to the first that is `last`, bookmarks included. */
export async function eventsUntil<K extends KindName>(
  store: Store,
  watch: { kinds: readonly K[]; resourceVersion: string },
  last: (event: WatchEvent<KindMap[K]>) => boolean,
): Promise<WatchEvent<KindMap[K]>[]> {
  const events: WatchEvent<KindMap[K]>[] = [];
  const signal = AbortSignal.timeout(DEADLINE_MS);
  for await (const seen of store.watch(watch.kinds, { resourceVersion: watch.resourceVersion, signal })) {
    events.push(seen);
    if (last(seen)) return events;
  }
  throw new Error(
    `the watch ended or lasted ${DEADLINE_MS} ms before the awaited event; seen: ${JSON.stringify(events)}`,
  );
}

/** What was kept until the end. */
export type Change<K extends KindName> = Exclude<WatchEvent<KindMap[K]>, { type: "BOOKMARK" }>;

/** Everything a watch tells after a version, up to now. A last object is made as an end mark, so that "nothing" needs no waiting. */
export async function changesSince<K extends KindName>(
  store: Store,
  kinds: readonly K[],
  resourceVersion: string,
): Promise<Change<K | "BottleTemplate">[]> {
  const mark = await store.create<"BottleTemplate">(template("end-mark"));
  const isMark = (seen: WatchEvent<KindMap[K | "BottleTemplate"]>) =>
    seen.type === "ADDED" && seen.object.metadata.uid === mark.metadata.uid;
  try {
    const events = await eventsUntil(store, { kinds: [...kinds, "BottleTemplate"], resourceVersion }, isMark);
    return events.slice(0, -1).filter((seen) => seen.type !== "BOOKMARK");
  } finally {
    await store.delete("BottleTemplate", keyOf(mark), { uid: mark.metadata.uid });
  }
}

/** `ADDED default/a`, for comparing the order of events. */
export function summary(
  changes: readonly { type: string; object: { metadata: { name: string; namespace: string } } }[],
) {
  return changes.map(({ type, object }) => `${type} ${keyText(object.metadata)}`);
}
