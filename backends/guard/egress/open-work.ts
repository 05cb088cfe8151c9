import type { ActiveSettings, SettingsHolder } from "../settings.ts";

/** A request or tunnel that still runs. */
export interface Work {
  /** Decides again, by the same facts and other settings; ends itself if they do not allow it any longer. */
  recheck(settings: ActiveSettings): void;
  /** Looks at the clock; ends itself if its time is up. */
  sweep?(nowMs: number): void;
}

/** Everything that runs under settings that may change. */
export interface OpenWork {
  /** Call what is returned when it has ended. */
  add(work: Work): () => void;
}

const SWEEP_MS = 5_000;

/** What was allowed when it began and is refused now must not go on: a stream of tokens can last for an hour. */
export function createOpenWork(settings: SettingsHolder, now: () => number): OpenWork {
  const open = new Set<Work>();
  settings.onChange(() => {
    const current = settings.current();
    if (current === undefined) return;
    for (const work of open) work.recheck(current);
  });
  let timer: NodeJS.Timeout | undefined;
  const sweep = (): void => {
    for (const work of open) work.sweep?.(now());
    if (open.size > 0) return;
    clearInterval(timer);
    timer = undefined;
  };
  return {
    add(work) {
      open.add(work);
      timer ??= setInterval(sweep, SWEEP_MS).unref();
      return () => void open.delete(work);
    },
  };
}
