import type { Database } from "better-sqlite3";
import { StatusError } from "../../api/errors.ts";

export type ChangeType = "ADDED" | "MODIFIED" | "DELETED";

/** One change as the log keeps it. */
export interface Change {
  version: number;
  type: ChangeType;
  generation: number;
  body: string;
}

/** The log of changes, and with it the counter of versions: see migrate.ts for the law it keeps. */
export interface History {
  /** The newest version taken; 0 before the first. */
  head(): number;
  /** Takes the next version and logs the change under it. Only inside a write transaction. */
  append(change: {
    type: ChangeType;
    row: { kind: string; namespace: string; name: string };
    generation: number;
    body: string;
  }): number;
  /** The changes of some kinds after a version, oldest first, read one by one as they are taken. Gone if the log does not reach back that far. */
  after(version: number, kinds: readonly string[]): IterableIterator<Change>;
}

/** `historyMax` is the number of changes kept, at least 2. */
export function prepareHistory(db: Database, historyMax: number): History {
  const head = db.prepare<[], number>("SELECT ifnull(max(version), 0) FROM log").pluck();
  const tail = db.prepare<[], number>("SELECT ifnull(min(version), 1) FROM log").pluck();
  const insert = db.prepare<[number, string, string, number, string, string, string]>(
    "INSERT INTO log (version, type, kind, generation, namespace, name, body) VALUES (?, ?, ?, ?, ?, ?, ?)",
  );
  const prune = db.prepare<[number]>("DELETE FROM log WHERE version <= ?");
  const after = db.prepare<[number, string], Change>(
    "SELECT version, type, generation, body FROM log " +
      "WHERE version > ? AND kind IN (SELECT value FROM json_each(?)) ORDER BY version",
  );
  // A tenth at once: pruning one row with each write would write one page more each time.
  const keptAfterPruning = historyMax - Math.floor(historyMax / 10);
  return {
    head: () => head.get() ?? 0,
    append: ({ type, row, generation, body }) => {
      const version = (head.get() ?? 0) + 1;
      insert.run(version, type, row.kind, generation, row.namespace, row.name, body);
      if (version - (tail.get() ?? 1) >= historyMax) prune.run(version - keptAfterPruning);
      return version;
    },
    after: (version, kinds) => {
      const oldest = (tail.get() ?? 1) - 1;
      const newest = head.get() ?? 0;
      // A version above the newest one means that the file was replaced by an older copy.
      if (version < oldest || version > newest) {
        throw new StatusError(
          "Gone",
          `cannot watch from resourceVersion "${version}": the history reaches from "${oldest}" to "${newest}": ` +
            "list again, then watch from the list's version",
        );
      }
      return after.iterate(version, JSON.stringify(kinds));
    },
  };
}
