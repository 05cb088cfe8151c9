import { planBottle } from "../plan/plan-bottle.ts";
import { orphansOf } from "../plan/orphans.ts";
import type { AuditLog } from "../ports/audit.ts";
import type { EventRecorder } from "../ports/events.ts";
import type { Journal, Transcripts } from "../ports/journal.ts";
import type { Log } from "../ports/log.ts";
import type { Store } from "../ports/store.ts";
import { createAuditCollector, type AuditCollector } from "./audit-collector.ts";
import { Cache } from "./cache.ts";
import type { BackendSet } from "./backend-set.ts";
import { createJournals } from "./journals.ts";
import { Queue } from "./queue.ts";
import { Reconciler } from "./reconcile.ts";
import { removeOrphan } from "./remove-orphan.ts";
import { createRunningGuards } from "./running-guards.ts";

/** Events get lost and backends change by themselves: every bottle is looked at anew this often. */
const RESYNC_MS = 30_000;
/** Long enough for a stop with its grace period; a step that is cut off is finished by the next controller. */
const DRAIN_MS = 15_000;

export interface ControllerOptions {
  store: Store;
  journal: Journal;
  transcripts: Transcripts;
  auditLog: AuditLog;
  /** Of this installation: the tokens of all its bottles are made from it. */
  guardKey: Uint8Array;
  backends: BackendSet;
  events: EventRecorder;
  log: Log;
  now: () => number;
  random: () => number;
  defaultImage: string;
  /** Bottles worked on at once. */
  workers: number;
}

export interface Controller {
  /** Runs until `signal` aborts and the passes under way are done. `ready` is called when the cache is filled. */
  run(signal: AbortSignal, ready?: () => void): Promise<void>;
}

/** The control loop: events put keys in line, workers take each key through observe, plan and act. */
export function createController(options: ControllerOptions): Controller {
  return {
    async run(signal, ready) {
      const cut = new AbortController();
      const parts = assemble(options, cut.signal);
      const synced = new EventTarget();
      const loaded = once(synced, "synced");
      const filled = (): void => {
        parts.addAll();
        synced.dispatchEvent(new Event("synced"));
      };
      const watching = parts.cache.run({ changed: parts.add, synced: filled }, signal);
      const collecting = parts.collector.run(signal);
      if (!signal.aborted) await Promise.race([loaded, once(signal, "abort")]);
      if (!signal.aborted) ready?.();
      hintFromBackends(options.backends, parts, signal);
      const reaping = new Set<Promise<void>>();
      const timer = setInterval(() => {
        resync(parts);
        // One at a time: a backend that hangs must not be asked again and again.
        if (reaping.size > 0) return;
        const round = reapAll(options, { stop: signal, cut: cut.signal }).finally(() => reaping.delete(round));
        reaping.add(round);
      }, RESYNC_MS);
      if (!signal.aborted) await once(signal, "abort");
      clearInterval(timer);
      options.log.info({ depth: parts.queue.depth }, "draining");
      const cutTimer = setTimeout(() => cut.abort(), DRAIN_MS);
      await parts.queue.drain();
      await Promise.all(reaping);
      clearTimeout(cutTimer);
      await Promise.all([watching, collecting]);
    },
  };
}

interface Parts {
  cache: Cache;
  queue: Queue;
  collector: AuditCollector;
  add: (key: string) => void;
  /** Puts the bottle with this uid in line, if there is one. */
  changed: (uid: string) => void;
  addAll: () => void;
  /** Drops what is remembered of bottles that are gone. */
  keepOnly: (uids: ReadonlySet<string>) => void;
}

function assemble(options: ControllerOptions, signal: AbortSignal): Parts {
  const cache = new Cache(options.store, options.log);
  const journals = createJournals(options.journal);
  const marks = new Map<string, number>();
  const add = (key: string): void => {
    marks.set(key, options.backends.mark());
    queue.add(key);
  };
  const changed = (uid: string): void => {
    const key = cache.keyOfUid(uid);
    if (key !== undefined) add(key);
  };
  const collector = createAuditCollector({ ...options, changed });
  const guards = createRunningGuards((uid) => cache.keyOfUid(uid) !== undefined);
  options.backends.onLook((backend, observation) => collector.follow(guards.seen(backend, observation)));
  const reconciler = new Reconciler({ ...options, cache, journals, collector, plan: planBottle, signal });
  const queue = new Queue({
    workers: options.workers,
    now: options.now,
    random: options.random,
    process: (key) => pass(key, reconciler, options, marks),
  });
  const addAll = (): void => {
    for (const bottle of cache.bottles()) add(`${bottle.metadata.namespace}/${bottle.metadata.name}`);
  };
  const keepOnly = (uids: ReadonlySet<string>): void => {
    journals.keepOnly(uids);
    collector.keepOnly(uids);
  };
  return { cache, queue, collector, add, changed, addAll, keepOnly };
}

/** Passes over one key until the plan has nothing more to do at once; the look each needs is one that began after the event or the last step. */
async function pass(
  key: string,
  reconciler: Reconciler,
  options: ControllerOptions,
  marks: Map<string, number>,
): Promise<{ requeueAfterMs?: number } | undefined> {
  const since = marks.get(key) ?? options.backends.mark();
  marks.delete(key);
  try {
    const result = await reconciler.reconcile(key, since);
    return result.requeueAfterMs === undefined ? undefined : { requeueAfterMs: result.requeueAfterMs };
  } catch (error) {
    options.log.warn({ bottle: key, error: error instanceof Error ? error.message : String(error) }, "pass failed");
    throw error;
  }
}

function hintFromBackends(backends: BackendSet, parts: Parts, signal: AbortSignal): void {
  for (const backend of backends.all()) {
    backend.watch(parts.changed, signal);
  }
}

/** Puts every bottle in line. */
function resync(parts: Parts): void {
  const uids = new Set([...parts.cache.bottles()].map((bottle) => bottle.metadata.uid));
  parts.keepOnly(uids);
  parts.addAll();
}

/** `stop`: begin nothing new. `cut`: end what is under way. */
interface Ends {
  stop: AbortSignal;
  cut: AbortSignal;
}

/** Removes what belongs to no bottle. Never rejects: what is left is found again by the next round. */
async function reapAll(options: ControllerOptions, ends: Ends): Promise<void> {
  for (const backend of options.backends.all()) {
    if (ends.stop.aborted) return;
    try {
      await reap(backend.name, options, ends);
    } catch (error) {
      options.log.warn(
        { backend: backend.name, error: error instanceof Error ? error.message : String(error) },
        "orphans not removed",
      );
    }
  }
}

/** What is declared is read from the store itself, after the look: a bottle that was created in between is in it. */
async function reap(name: string, options: ControllerOptions, { stop, cut }: Ends): Promise<void> {
  const backend = options.backends.backend(name);
  const look = await options.backends.observer(name)?.lookSince(options.backends.mark(), cut);
  if (backend === undefined || look === undefined || !look.ok) return;
  const { items } = await options.store.list("Bottle");
  const declared = new Set(items.map((bottle) => bottle.metadata.uid));
  for (const { view } of orphansOf(look.observation, declared, { now: options.now() })) {
    if (stop.aborted) return;
    options.log.info({ backend: name, uid: view.uid, bottle: `${view.namespace}/${view.name}` }, "removing orphan");
    await removeOrphan(backend, view, cut);
  }
}

function once(target: EventTarget, event: string): Promise<void> {
  return new Promise((done) => target.addEventListener(event, () => done(), { once: true }));
}
