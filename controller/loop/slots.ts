/** A bounded number of places; who finds none waits in line. */
export interface Slots {
  /** Runs `work` in a place. Undefined if `signal` aborts before there is one. */
  hold<T>(signal: AbortSignal, work: () => Promise<T>): Promise<T | undefined>;
}

export function createSlots(places: number): Slots {
  const waiting: (() => void)[] = [];
  let taken = 0;
  const enter = (signal: AbortSignal): Promise<boolean> => {
    if (taken < places) {
      taken += 1;
      return Promise.resolve(true);
    }
    return new Promise((resolve) => {
      const give = (): void => {
        signal.removeEventListener("abort", leave);
        resolve(true);
      };
      const leave = (): void => {
        waiting.splice(waiting.indexOf(give), 1);
        resolve(false);
      };
      waiting.push(give);
      signal.addEventListener("abort", leave, { once: true });
    });
  };
  const exit = (): void => {
    const next = waiting.shift();
    // A place is handed on as it is taken.
    if (next === undefined) taken -= 1;
    else next();
  };
  return {
    async hold(signal, work) {
      if (signal.aborted || !(await enter(signal))) return undefined;
      try {
        return await work();
      } finally {
        exit();
      }
    },
  };
}

/** Ends early, without an error, when `signal` aborts. */
export function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) {
      resolve();
      return;
    }
    const done = (): void => {
      clearTimeout(timer);
      signal.removeEventListener("abort", done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    signal.addEventListener("abort", done);
  });
}
