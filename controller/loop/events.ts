import { createHash } from "node:crypto";
import { isStatus } from "../api/errors.ts";
import type { EventResource } from "../api/event.ts";
import { API_VERSION } from "../api/meta.ts";
import type { EventRecorder, EventSubject, EventText } from "../ports/events.ts";
import type { Log } from "../ports/log.ts";
import type { Draft, Store } from "../ports/store.ts";

/** Events one object may tell at once; then one in each refill interval. */
const BURST = 25;
const REFILL_MS = 10_000;
/** Objects whose rate is remembered. The one that was quiet longest is forgotten first: its bucket is the fullest. */
const BUCKETS_MAX = 10_000;
/** As in core/v1, where a message is cut at 1 KiB. */
const MESSAGE_LENGTH_MAX = 1024;
const ATTEMPTS_MAX = 5;
/** How long an event is kept after it was last told. */
export const EVENT_TTL_MS = 24 * 60 * 60 * 1000;

interface Bucket {
  tokens: number;
  atMs: number;
}

/** Records events in a store, aggregated by object, reason and message. */
export function createEventRecorder(options: {
  store: Store;
  now: () => number;
  log: Log;
  /** Who tells. */
  component?: string;
}): EventRecorder {
  const buckets = new Map<string, Bucket>();
  const teller = { store: options.store, now: options.now, component: options.component ?? "bot-bottle" };
  return {
    async record(about, event) {
      if (!takeToken(buckets, JSON.stringify([about.kind, about.namespace, about.name]), options.now())) return;
      try {
        await countEvent(teller, about, event);
      } catch (error) {
        options.log.warn({ about, reason: event.reason, error: String(error) }, "event dropped");
      }
    },
  };
}

/** Removes events that were last told more than EVENT_TTL_MS ago; returns how many. */
export async function expireEvents(store: Store, now: () => number): Promise<number> {
  const { items } = await store.list("Event");
  const old = items.filter((event) => Date.parse(event.lastTimestamp) + EVENT_TTL_MS < now());
  for (const event of old) {
    try {
      await store.delete("Event", event.metadata, { uid: event.metadata.uid });
    } catch (error) {
      if (!isStatus(error, "NotFound") && !isStatus(error, "Conflict")) throw error;
    }
  }
  return old.length;
}

function takeToken(buckets: Map<string, Bucket>, key: string, nowMs: number): boolean {
  const known = buckets.get(key);
  const earned = known === undefined ? BURST : Math.max(0, nowMs - known.atMs) / REFILL_MS;
  const tokens = Math.min(BURST, (known?.tokens ?? 0) + earned);
  // Taken out and put back, so that the map is in order of last use.
  buckets.delete(key);
  buckets.set(key, { tokens: tokens >= 1 ? tokens - 1 : tokens, atMs: nowMs });
  if (buckets.size > BUCKETS_MAX) {
    const oldest = buckets.keys().next();
    if (oldest.done !== true) buckets.delete(oldest.value);
  }
  return tokens >= 1;
}

async function countEvent(
  options: { store: Store; now: () => number; component: string },
  about: EventSubject,
  event: EventText,
): Promise<void> {
  const key = { namespace: about.namespace, name: eventName(about, event) };
  const time = new Date(options.now()).toISOString();
  for (let attempt = 1; ; attempt += 1) {
    try {
      const known = await options.store.get("Event", key);
      if (known === undefined) await options.store.create(firstEvent(options.component, about, { ...event, time }));
      else await options.store.update({ ...known, count: known.count + 1, lastTimestamp: time });
      return;
    } catch (error) {
      const lostRace = isStatus(error, "Conflict") || isStatus(error, "AlreadyExists") || isStatus(error, "NotFound");
      if (!lostRace || attempt >= ATTEMPTS_MAX) throw error;
    }
  }
}

/** The same event of the same object always has the same name: telling it again collides instead of adding a row. */
function eventName(about: EventSubject, event: EventText): string {
  const identity = [about.kind, about.namespace, about.name, about.uid ?? "", event.type, event.reason, event.message];
  const hash = createHash("sha256").update(JSON.stringify(identity)).digest("hex").slice(0, 16);
  const stem = about.name
    .toLowerCase()
    .replaceAll(/[^a-z0-9]+/g, "-")
    .slice(0, 46)
    .replaceAll(/^-|-$/g, "");
  return stem === "" ? hash : `${stem}-${hash}`;
}

function firstEvent(component: string, about: EventSubject, event: EventText & { time: string }): Draft<EventResource> {
  return {
    apiVersion: "v1",
    kind: "Event",
    metadata: { name: eventName(about, event), namespace: about.namespace },
    involvedObject: { apiVersion: API_VERSION, ...about },
    type: event.type,
    reason: event.reason,
    message: event.message.slice(0, MESSAGE_LENGTH_MAX),
    count: 1,
    firstTimestamp: event.time,
    lastTimestamp: event.time,
    source: { component },
  };
}
