import { realpath } from "node:fs/promises";
import { setTimeout as delay } from "node:timers/promises";
import { DECLARED_KINDS } from "../api/kinds.ts";
import type { EventRecorder } from "../ports/events.ts";
import type { Log } from "../ports/log.ts";
import type { Store } from "../ports/store.ts";
import { createFolderReader, type FolderView } from "./folder-reader.ts";
import type { Problem } from "./folder-problems.ts";
import { createFolderSync } from "./folder-sync.ts";
import { watchHints, type Hints } from "./folder-hints.ts";

export interface FolderSourceOptions {
  /** The watched folder. It may appear later. */
  dir: string;
  store: Store;
  events: EventRecorder;
  log: Log;
  now: () => number;
  /** How often the folder is looked at without a hint. */
  pollMs?: number;
  /** How long a file must stay the same before it is read. */
  stableMs?: number;
  /** How long a declaration must be gone before its object is deleted. */
  absentMs?: number;
}

export interface FolderSource {
  /** Keeps the store as the folder says until `signal` aborts; resolves once the pass in hand is done. */
  run(signal: AbortSignal): Promise<void>;
  /** One look at folder and store; returns how soon to look again. Two looks without a change write nothing the second time. */
  scan(): Promise<number>;
}

/** Between two looks, however many hints come. */
const GAP_MS = 100;

/**
 * The folder source: every manifest below a folder is applied, and what is no longer declared is deleted if this folder declared it.
 * It is level-triggered: each look compares the whole folder with the whole store. Whenever the folder cannot be trusted to be complete
 * (unreadable, unmounted, a file being written), nothing is deleted, because deleting a bottle destroys its disk.
 */
export function createFolderSource(options: FolderSourceOptions): FolderSource {
  const { dir, store, now, log, pollMs = 2000, stableMs = 300, absentMs = 1000 } = options;
  let opened: { read: () => Promise<FolderView>; sync: ReturnType<typeof createFolderSync> } | undefined;
  let hints: Hints | undefined;
  let settled = false;
  const tell = problemTeller(options);

  const scan = async (): Promise<number> => {
    opened ??= await openFolder(options, { stableMs, absentMs });
    const view = opened === undefined ? missing() : await opened.read();
    if (!view.ok) {
      settled = false;
      opened?.sync.forgetAbsences();
      await tell([unreadable(dir, view.reason)]);
      return pollMs;
    }
    hints?.watchDirectories(view.directories);
    const pending = view.files.some((file) => file.state === "pending");
    const storeChanged = hints === undefined || hints.takeStoreChange();
    if (settled && !view.changed && !storeChanged && !pending) return pollMs;
    const synced = (await opened?.sync.run(view, hints)) ?? { settled: false, absent: 0, problems: [] };
    settled = synced.settled && synced.absent === 0;
    await tell(synced.problems);
    if (pending) return stableMs;
    return synced.absent > 0 ? Math.min(absentMs, pollMs) : pollMs;
  };

  const run = async (signal: AbortSignal): Promise<void> => {
    hints = watchHints({ dir, store, kinds: DECLARED_KINDS.map((facts) => facts.kind), signal, log });
    while (!signal.aborted) {
      const startMs = now();
      let waitMs = pollMs;
      try {
        waitMs = await scan();
      } catch (error) {
        settled = false;
        log.warn({ dir, error: String(error) }, "folder scan failed");
      }
      await hints.next(waitMs);
      const gapMs = GAP_MS - Math.max(0, now() - startMs);
      if (gapMs > 0) await delay(gapMs, undefined, { signal }).catch(() => undefined);
    }
    await hints.closed();
    hints = undefined;
  };
  return { run, scan };
}

/** The folder's real path is part of its objects' annotations; a relative path or a link would name another source after a restart elsewhere. */
async function openFolder(options: FolderSourceOptions, waits: { stableMs: number; absentMs: number }) {
  let path: string;
  try {
    path = await realpath(options.dir);
  } catch {
    return undefined;
  }
  const { store, now, log } = options;
  return {
    read: createFolderReader({ dir: path, now, stableMs: waits.stableMs }),
    sync: createFolderSync({ source: `folder:${path}`, store, now, log, absentMs: waits.absentMs }),
  };
}

function missing(): FolderView {
  return { ok: false, reason: "ENOENT" };
}

function unreadable(dir: string, reason: string): Problem {
  return {
    about: { kind: "File", namespace: "default", name: "folder" },
    reason: "FolderUnreadable",
    message: `folder "${dir}" cannot be read (${reason}): nothing is created or deleted until it can`,
  };
}

/** Tells each problem once, not on every look, and again after it had gone away. */
function problemTeller(options: { events: EventRecorder; log: Log; dir: string }) {
  let told = new Set<string>();
  return async (problems: readonly Problem[]): Promise<void> => {
    const current = new Set<string>();
    for (const { about, reason, message } of problems) {
      const key = JSON.stringify([about, reason, message]);
      current.add(key);
      if (told.has(key)) continue;
      options.log.warn(
        { dir: options.dir, kind: about.kind, name: about.name, reason, problem: message },
        "declaration refused",
      );
      await options.events.record(about, { type: "Warning", reason, message });
    }
    told = current;
  };
}
