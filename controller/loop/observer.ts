import { BackendError, type Backend, type Observation } from "../ports/backend.ts";

/** A look at a backend, or why it could not be had. */
export type Look = { ok: true; observation: Observation } | { ok: false; message: string };

/** Counts events and looks in the order in which they happen: a look that began after a mark shows the effects of everything before it. */
export interface Ticker {
  next(): number;
}

export function createTicker(): Ticker {
  let count = 0;
  return { next: () => (count += 1) };
}

export interface Observer {
  /** The newest look if it began after `mark`, else a new one that all who wait share. */
  lookSince(mark: number, signal?: AbortSignal): Promise<Look>;
}

/**
 * Looks at one backend: one look at a time, shared by all keys that need one, so that a thousand bottles cost one round of calls. `seen` gets what
 * each look shows before those who wait for it.
 */
export function createObserver(
  backend: Backend,
  ticker: Ticker,
  seen: (observation: Observation) => void = () => {},
): Observer {
  let newest: { began: number; look: Promise<Look> } | undefined;
  let running: Promise<unknown> | undefined;
  let queued: Promise<Look> | undefined;

  const begin = (signal?: AbortSignal): Promise<Look> => {
    const began = ticker.next();
    const look = lookAt(backend, seen, signal);
    newest = { began, look };
    const over = (): void => {
      running = undefined;
    };
    running = look.then(over, over);
    return look;
  };

  return {
    lookSince(mark, signal) {
      if (newest !== undefined && newest.began > mark) return newest.look;
      // Asked before `running`: between the end of one look and the beginning of the next, nothing runs and one is queued.
      if (queued !== undefined) return queued;
      if (running === undefined) return begin(signal);
      // A look is under way that began too early. The next one begins when it ends; it will be later than every mark taken until then.
      queued = running.then(() => {
        queued = undefined;
        return begin(signal);
      });
      return queued;
    },
  };
}

async function lookAt(backend: Backend, seen: (observation: Observation) => void, signal?: AbortSignal): Promise<Look> {
  try {
    const observation = await backend.observe(signal);
    seen(observation);
    return { ok: true, observation };
  } catch (error) {
    // Anything else is a bug, and a bug is not a backend that is down.
    if (!(error instanceof BackendError)) throw error;
    return {
      ok: false,
      message: `backend ${backend.name} cannot be observed: ${error.message}`,
    };
  }
}
