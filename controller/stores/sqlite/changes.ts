import type { Database } from "better-sqlite3";

/** How often the file is asked whether another process wrote to it, while somebody watches. One question costs some microseconds. */
const POLL_MS = 50;

/** A moment in the life of the file. Any commit after it makes a later mark differ. */
export interface Mark {
  own: number;
  others: number;
}

/** Tells watchers that somebody wrote: this process at once, other processes within one poll. */
export interface Changes {
  /** Take it in the transaction that reads; then a write between the read and the wait ends the wait. */
  mark(): Mark;
  /** To be called after each commit of this process. */
  notify(): void;
  /** Returns when something was written since the mark (perhaps nothing that matters), the time is over, the signal aborts or the file closes. */
  wait(since: Mark, options: { timeoutMs: number; signal: AbortSignal }): Promise<void>;
  isClosed(): boolean;
  close(): void;
}

export function openChanges(db: Database): Changes {
  const dataVersion = db.prepare("PRAGMA data_version").pluck();
  const waiting = new Map<() => void, Mark>();
  let own = 0;
  let closed = false;
  let poll: NodeJS.Timeout | undefined;

  function mark(): Mark {
    return { own, others: Number(dataVersion.get()) };
  }
  /** A file that cannot be asked counts as changed: whoever waits then reads it and meets the fault where it can be reported. */
  function markOrUnknown(): Mark {
    try {
      return mark();
    } catch {
      return { own, others: Number.NaN };
    }
  }
  function wakeAll(): void {
    for (const done of waiting.keys()) done();
  }
  function wakeChanged(): void {
    const current = markOrUnknown();
    for (const [done, since] of waiting) if (differs(current, since)) done();
  }
  function stopPolling(): void {
    clearInterval(poll);
    poll = undefined;
  }
  return {
    mark,
    notify: () => {
      own += 1;
      wakeAll();
    },
    wait: (since, { timeoutMs, signal }) =>
      new Promise((resolve) => {
        if (closed || signal.aborted || differs(markOrUnknown(), since)) {
          resolve();
          return;
        }
        const done = () => {
          clearTimeout(timer);
          signal.removeEventListener("abort", done);
          waiting.delete(done);
          if (waiting.size === 0) stopPolling();
          resolve();
        };
        const timer = setTimeout(done, timeoutMs);
        signal.addEventListener("abort", done);
        waiting.set(done, since);
        poll ??= setInterval(wakeChanged, POLL_MS);
      }),
    isClosed: () => closed,
    close: () => {
      closed = true;
      wakeAll();
    },
  };
}

function differs(a: Mark, b: Mark): boolean {
  return a.own !== b.own || a.others !== b.others;
}
