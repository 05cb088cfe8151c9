import type { Bottle } from "../api/bottle.ts";
import type { JournalState } from "../plan/journal-state.ts";
import type { BackendChoice } from "../plan/situation.ts";
import type { Backend, Observation } from "../ports/backend.ts";
import { createObserver, createTicker, type Observer } from "./observer.ts";

/** The backend of bottles that name none: a fixed one, or why there is none. Asked again after a refusal. */
export type DefaultBackend = () => Promise<{ ok: true; name: string } | { ok: false; reason: string; message: string }>;

export interface BackendSet {
  /** The point in time from which a look must show everything: taken when a key is put in line. */
  mark(): number;
  all(): readonly Backend[];
  backend(name: string): Backend | undefined;
  observer(name: string): Observer | undefined;
  /** Calls `seen` with what each look shows from now on, before those who wait for it. */
  onLook(seen: (backend: Backend, observation: Observation) => void): void;
  /** The backend a bottle is pinned to by its first launch, else the one its spec names, else the default. */
  choose(bottle: Bottle, journal: JournalState): Promise<BackendChoice>;
}

export function createBackendSet(backends: readonly Backend[], defaultBackend: DefaultBackend): BackendSet {
  const ticker = createTicker();
  const listeners: ((backend: Backend, observation: Observation) => void)[] = [];
  const parts = (backend: Backend) => {
    const seen = (observation: Observation): void => {
      for (const listener of listeners) listener(backend, observation);
    };
    return { backend, observer: createObserver(backend, ticker, seen) };
  };
  const byName = new Map(backends.map((backend) => [backend.name, parts(backend)]));

  const named = (name: string): BackendChoice => {
    const found = byName.get(name);
    if (found !== undefined) return { ok: true, name, features: found.backend.features };
    const known = [...byName.keys()].join(", ");
    return {
      ok: false,
      reason: "BackendUnknown",
      message: `backend "${name}" is not served by this controller: it serves ${known}`,
    };
  };

  return {
    mark: () => ticker.next(),
    all: () => backends,
    backend: (name) => byName.get(name)?.backend,
    observer: (name) => byName.get(name)?.observer,
    onLook: (seen) => void listeners.push(seen),
    async choose(bottle, journal) {
      const asked = journal.launch?.backend ?? bottle.spec.backend?.type.toLowerCase();
      if (asked !== undefined) return named(asked);
      const chosen = await defaultBackend();
      return chosen.ok ? named(chosen.name) : chosen;
    },
  };
}
