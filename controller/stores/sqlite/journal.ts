import type { Journal, JournalEntry, StoredEntry } from "../../ports/journal.ts";
import { prepareForgetAudit } from "./audit-log.ts";
import type { Connection } from "./connection.ts";

interface JournalRow {
  seq: number;
  body: string;
}

/**
 * The Journal port: one row an entry, never changed. Sequence numbers are never used again, also after `forget`, which takes transcripts and
 * audit along, so that nothing outlives a bottle because a process died between two calls.
 */
export function openJournal({ db, read, write }: Connection): Journal {
  const after = db.prepare<[string, number], JournalRow>(
    "SELECT seq, body FROM journal WHERE uid = ? AND seq > ? ORDER BY seq",
  );
  const insert = db.prepare<[string, string]>("INSERT INTO journal (uid, body) VALUES (?, ?)");
  const forgetEntries = db.prepare<[string]>("DELETE FROM journal WHERE uid = ?");
  const forgetTranscripts = db.prepare<[string]>("DELETE FROM transcripts WHERE uid = ?");
  const forgetAudit = prepareForgetAudit(db);
  return {
    read: (uid, afterSeq = 0) => read(() => after.all(uid, afterSeq).map(parseEntry)),
    append: async (uid, entries) => {
      if (entries.length === 0) return;
      await write("Full", () => {
        for (const entry of entries) insert.run(uid, JSON.stringify(entry));
      });
    },
    forget: (uid) =>
      write("Full", () => {
        forgetEntries.run(uid);
        forgetTranscripts.run(uid);
        forgetAudit(uid);
      }),
  };
}

function parseEntry({ seq, body }: JournalRow): StoredEntry {
  const entry: JournalEntry = JSON.parse(body);
  return { seq, entry };
}
