import { watch, type FSWatcher } from "node:fs";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { isStatus } from "../api/errors.ts";
import type { ObjectMeta } from "../api/meta.ts";
import { keyText } from "../api/meta.ts";
import type { Log } from "../ports/log.ts";
import type { Store } from "../ports/store.ts";
import type { DeclaredKind } from "./apply.ts";

/** Folders with a watch of the operating system's; the rest is found by polling. */
const WATCHERS_MAX = 512;
const RETRY_MS = 1000;

export interface Hints {
  /** Resolves on a hint, after `ms`, or at the end. */
  next(ms: number): Promise<void>;
  watchDirectories(paths: readonly string[]): void;
  /** Whether the store may hold something other than what was last seen; asking resets the answer. */
  takeStoreChange(): boolean;
  /** What a pass saw or wrote, so that its echo is no change. */
  saw(kind: DeclaredKind, metadata: ObjectMeta): void;
  closed(): Promise<void>;
}

/** What of an object matters to a source of declarations: not its status, which changes all the time. */
export function markOf(metadata: ObjectMeta): string {
  const { uid, generation, labels, annotations, deletionTimestamp } = metadata;
  return JSON.stringify([uid, generation, labels, annotations, deletionTimestamp]);
}

/** Wakes the folder source when a file or a declared object may have changed. A lost hint costs one poll interval, nothing more. */
export function watchHints(options: {
  dir: string;
  store: Store;
  kinds: readonly DeclaredKind[];
  signal: AbortSignal;
  log: Log;
}): Hints {
  const marks = new Map<string, string>();
  const watchers = new Map<string, FSWatcher>();
  let wake: (() => void) | undefined;
  let hinted = false;
  let storeChanged = true;
  const hint = () => {
    hinted = true;
    wake?.();
  };
  options.signal.addEventListener("abort", hint, { once: true });
  const unwatched = () => {
    storeChanged = true;
    hint();
  };
  const changed = (kind: DeclaredKind, metadata: ObjectMeta, deleted: boolean) => {
    const key = `${kind} ${keyText(metadata)}`;
    const mark = deleted ? undefined : markOf(metadata);
    if (marks.get(key) === mark) return;
    if (mark === undefined) marks.delete(key);
    else marks.set(key, mark);
    unwatched();
  };
  const done = followStore(options, { changed, unwatched });
  return {
    async next(ms) {
      if (!hinted && !options.signal.aborted) {
        const timer = new AbortController();
        const woken = new Promise<void>((resolve) => (wake = resolve));
        await Promise.race([woken, delay(ms, undefined, { signal: timer.signal }).catch(() => undefined)]);
        timer.abort();
      }
      hinted = false;
    },
    watchDirectories: (paths) => keepWatchers(watchers, options.dir, paths.slice(0, WATCHERS_MAX), hint),
    takeStoreChange() {
      const answer = storeChanged;
      storeChanged = false;
      return answer;
    },
    saw: (kind, metadata) => void marks.set(`${kind} ${keyText(metadata)}`, markOf(metadata)),
    async closed() {
      for (const watcher of watchers.values()) watcher.close();
      await done;
    },
  };
}

/** One watch a folder and none recursive: a recursive one of Node 20 fails on Linux when folders vanish under it. */
function keepWatchers(watchers: Map<string, FSWatcher>, dir: string, paths: readonly string[], hint: () => void): void {
  const wanted = new Set(paths);
  for (const [path, watcher] of watchers) {
    if (wanted.has(path)) continue;
    watcher.close();
    watchers.delete(path);
  }
  for (const path of paths) {
    if (watchers.has(path)) continue;
    try {
      const watcher = watch(join(dir, path), { persistent: false }, hint);
      watchers.set(path, watcher);
      // What came into the folder between the look at it and this watch is found by looking once more.
      hint();
      watcher.on("error", () => {
        watcher.close();
        watchers.delete(path);
      });
    } catch {
      // Out of watches, or the folder is gone already: polling finds what changes.
      return;
    }
  }
}

async function followStore(
  options: { store: Store; kinds: readonly DeclaredKind[]; signal: AbortSignal; log: Log },
  told: { changed(kind: DeclaredKind, metadata: ObjectMeta, deleted: boolean): void; unwatched(): void },
): Promise<void> {
  const { store, kinds, signal, log } = options;
  let resourceVersion: string | undefined;
  while (!signal.aborted) {
    try {
      if (resourceVersion === undefined) {
        resourceVersion = (await store.list("BottleTemplate")).resourceVersion;
        // Nobody was watching until now: the next pass looks at everything.
        told.unwatched();
      }
      for await (const event of store.watch(kinds, { resourceVersion, signal })) {
        if (event.type === "BOOKMARK") resourceVersion = event.resourceVersion;
        else {
          resourceVersion = event.object.metadata.resourceVersion;
          told.changed(event.object.kind, event.object.metadata, event.type === "DELETED");
        }
      }
    } catch (error) {
      if (signal.aborted) return;
      resourceVersion = undefined;
      if (!isStatus(error, "Gone")) log.warn({ error: String(error) }, "watch of declared objects broke");
      await delay(RETRY_MS, undefined, { signal }).catch(() => undefined);
    }
  }
}
