import { TRANSCRIPT_BYTES_MAX, type Transcripts } from "../../ports/journal.ts";
import type { Connection } from "./connection.ts";

interface TranscriptRow {
  truncated: number;
  bytes: Buffer;
}

/** The Transcripts port. A power cut may lose the newest one: the agent's own files on the disk still tell what it did. */
export function openTranscripts({ db, read, write }: Connection): Transcripts {
  const save = db.prepare<[string, string, number, number, Uint8Array]>(
    "INSERT INTO transcripts (uid, turn, attempt, truncated, bytes) VALUES (?, ?, ?, ?, ?) " +
      "ON CONFLICT (uid, turn, attempt) DO UPDATE SET truncated = excluded.truncated, bytes = excluded.bytes",
  );
  const load = db.prepare<[string, string, number], TranscriptRow>(
    "SELECT truncated, bytes FROM transcripts WHERE uid = ? AND turn = ? AND attempt = ?",
  );
  const keys = db.prepare<[string], { turn: string; attempt: number }>(
    "SELECT turn, attempt FROM transcripts WHERE uid = ? ORDER BY id",
  );
  return {
    save: (uid, { turn, attempt, truncated, bytes }) =>
      write("Normal", () => {
        const cut = bytes.length > TRANSCRIPT_BYTES_MAX;
        const kept = cut ? bytes.subarray(bytes.length - TRANSCRIPT_BYTES_MAX) : bytes;
        save.run(uid, turn, attempt, truncated || cut ? 1 : 0, kept);
      }),
    load: (uid, { turn, attempt }) =>
      read(() => {
        const row = load.get(uid, turn, attempt);
        if (row === undefined) return undefined;
        const { buffer, byteOffset, length } = row.bytes;
        return { turn, attempt, truncated: row.truncated === 1, bytes: new Uint8Array(buffer, byteOffset, length) };
      }),
    keys: (uid) => read(() => keys.all(uid)),
  };
}
