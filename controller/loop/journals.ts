import { EMPTY_JOURNAL, foldJournal, type JournalState } from "../plan/journal-state.ts";
import type { Journal, JournalEntry } from "../ports/journal.ts";

interface Cached {
  resourceVersion: string;
  seq: number;
  state: JournalState;
}

/** The folded journal of each bottle. Another process (an import) may add entries; it changes the bottle afterwards, which is when this reads again. */
export interface Journals {
  stateOf(bottle: { uid: string; resourceVersion: string }): Promise<JournalState>;
  append(uid: string, entries: readonly JournalEntry[]): Promise<void>;
  forget(uid: string): Promise<void>;
  /** Drops what is cached of bottles that are gone. */
  keepOnly(uids: ReadonlySet<string>): void;
}

export function createJournals(journal: Journal): Journals {
  const cache = new Map<string, Cached>();

  const refresh = async (uid: string, resourceVersion: string): Promise<JournalState> => {
    const known = cache.get(uid) ?? { seq: 0, state: EMPTY_JOURNAL };
    const added = await journal.read(uid, known.seq);
    const state = foldJournal(
      known.state,
      added.map(({ entry }) => entry),
    );
    cache.set(uid, { resourceVersion, seq: added.at(-1)?.seq ?? known.seq, state });
    return state;
  };

  return {
    async stateOf({ uid, resourceVersion }) {
      const known = cache.get(uid);
      return known !== undefined && known.resourceVersion === resourceVersion
        ? known.state
        : refresh(uid, resourceVersion);
    },
    async append(uid, entries) {
      await journal.append(uid, entries);
      await refresh(uid, cache.get(uid)?.resourceVersion ?? "");
    },
    async forget(uid) {
      await journal.forget(uid);
      cache.delete(uid);
    },
    keepOnly(uids) {
      for (const uid of cache.keys()) if (!uids.has(uid)) cache.delete(uid);
    },
  };
}
