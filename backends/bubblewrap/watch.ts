import { watch } from "node:fs";
import { basename } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { findBottle } from "./bottles.ts";
import { ensureStateDir, hintsDir, type Context } from "./context.ts";

const RETRY_MS = 1_000;

/** Follows the hint files until `signal` aborts, through every loss of the watch. Hints are hints: the directories are the truth. */
export async function watchHints(context: Context, hint: (uid: string) => void, signal: AbortSignal): Promise<void> {
  while (!signal.aborted) {
    try {
      await ensureStateDir(context);
      await watchOnce(context, hint, signal);
    } catch (error) {
      context.log.debug(
        { error: error instanceof Error ? error.message : String(error) },
        "watch of the state directory was lost",
      );
    }
    await delay(RETRY_MS, undefined, { signal }).catch(() => {});
  }
}

/** One watch on one directory, however many bottles there are. Ends when the watch fails or the directory is removed. */
function watchOnce(context: Context, hint: (uid: string) => void, signal: AbortSignal): Promise<void> {
  const dir = hintsDir(context);
  return new Promise((resolve, reject) => {
    const watcher = watch(dir, { signal, persistent: false }, (_event, name) => {
      // A directory that is itself removed or moved is reported under its own name.
      if (name === basename(dir)) watcher.close();
      else if (name !== null && isOurs(context, name)) hint(name);
    });
    watcher.once("error", reject);
    watcher.once("close", () => resolve());
  });
}

function isOurs(context: Context, uid: string): boolean {
  try {
    return findBottle(context, uid) !== undefined;
  } catch {
    return false;
  }
}
