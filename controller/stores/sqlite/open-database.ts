import { randomBytes, randomUUID } from "node:crypto";
import { chmodSync, closeSync, existsSync, mkdirSync, openSync } from "node:fs";
import { dirname } from "node:path";
import Database from "better-sqlite3";
import { StatusError } from "../../api/errors.ts";
import type { AuditLog } from "../../ports/audit.ts";
import type { Journal, Transcripts } from "../../ports/journal.ts";
import type { Admission, Store } from "../../ports/store.ts";
import { openAuditLog } from "./audit-log.ts";
import { openChanges } from "./changes.ts";
import { BUSY_TIMEOUT_MS, connect, describeFault } from "./connection.ts";
import { prepareHistory } from "./history.ts";
import { openJournal } from "./journal.ts";
import { checkOrigin, ensureSetting, migrate } from "./migrate.ts";
import { prepareRows } from "./rows.ts";
import { openStore } from "./store.ts";
import { openTranscripts } from "./transcripts.ts";
import { openWatch } from "./watch.ts";

/** Changes a watch can still be given. At 2 KB an object this is 20 MB of file. */
const HISTORY_MAX = 10_000;
/** A checkpointed write-ahead log is cut back to this size, or one large transcript would leave it large for ever. */
const WAL_BYTES_MAX = 32 * 1024 * 1024;
const GUARD_KEY_BYTES = 32;

export interface OpenOptions {
  /** A path, made with its directory where absent, or ":memory:". */
  file: string;
  admission: Admission;
  /** Milliseconds since the epoch; only timestamps of objects come from it. */
  now: () => number;
  randomUid?: () => string;
  historyMax?: number;
}

export interface OpenedDatabase {
  store: Store;
  journal: Journal;
  transcripts: Transcripts;
  auditLog: AuditLog;
  /** Random, made once and kept in the file: the owner label of everything this installation makes on a backend. */
  installationId: string;
  /** 32 random bytes, made once and kept in the file. What agents show their guards is derived from it. Never printed. */
  guardKey: Uint8Array;
  /** Ends all watches. Later calls are refused as Unavailable. Closing twice is closing once. */
  close(): void;
}

/** Opens the file that holds desired state, journal, transcripts and audit. Several processes may have it open at the same time. */
export function openDatabase(options: OpenOptions): OpenedDatabase {
  const historyMax = options.historyMax ?? HISTORY_MAX;
  if (!Number.isInteger(historyMax) || historyMax < 2) {
    throw new StatusError(
      "BadRequest",
      `cannot open store: historyMax "${historyMax}" is not an integer of at least 2`,
    );
  }
  const randomUid = options.randomUid ?? randomUUID;
  const { db, installationId, guardKey } = openFile(options.file, randomUid);
  const connection = connect(db, options.file);
  const changes = openChanges(db);
  const history = prepareHistory(db, historyMax);
  const rows = prepareRows(db, history);
  const watch = openWatch({ connection, history, changes });
  const { admission, now } = options;
  return {
    store: openStore({ connection, rows, history, changes, watch, admission, now, randomUid }),
    journal: openJournal(connection),
    transcripts: openTranscripts(connection),
    auditLog: openAuditLog(connection),
    installationId,
    guardKey,
    close: () => {
      changes.close();
      db.close();
    },
  };
}

interface OpenedFile {
  db: Database.Database;
  installationId: string;
  guardKey: Uint8Array;
}

function openFile(file: string, randomUid: () => string): OpenedFile {
  const opened: Database.Database[] = [];
  try {
    if (file !== ":memory:") createPrivately(file);
    const db = new Database(file, { timeout: BUSY_TIMEOUT_MS });
    opened.push(db);
    checkOrigin(db, file);
    if (file !== ":memory:") {
      // The write-ahead log and its index take over the mode of the file, so it must be right before they are made.
      chmodSync(file, 0o600);
      useWriteAheadLog(db, file);
    }
    db.pragma("synchronous = FULL");
    db.pragma("foreign_keys = ON");
    db.pragma(`journal_size_limit = ${WAL_BYTES_MAX}`);
    migrate(db);
    const installationId = ensureSetting(db, "installationId", randomUid);
    const guardKey = ensureSetting(db, "guardKey", () => randomBytes(GUARD_KEY_BYTES).toString("hex"));
    return { db, installationId, guardKey: Uint8Array.from(Buffer.from(guardKey, "hex")) };
  } catch (error) {
    for (const db of opened) db.close();
    throw describeFault(error, file);
  }
}

/** Makes the directory and the file so that no other user can read them, not even for a moment. */
function createPrivately(file: string): void {
  try {
    mkdirSync(dirname(file), { recursive: true, mode: 0o700 });
    // Never an existing file: closing a descriptor of it would drop the locks that this process holds through SQLite.
    if (!existsSync(file)) closeSync(openSync(file, "wx", 0o600));
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "EEXIST" && existsSync(file)) return;
    const why = error instanceof Error ? error.message : String(error);
    throw new StatusError(
      "Unavailable",
      `cannot create store "${file}": ${why}: choose a state directory that this user may write`,
      { cause: error },
    );
  }
}

/** SQLite does not wait for others while it changes the journal mode of a new file, so this does, for as long as a write would. */
function useWriteAheadLog(db: Database.Database, file: string): void {
  const pauseMs = 20;
  const pause = new Int32Array(new SharedArrayBuffer(4));
  for (let waitedMs = 0; ; waitedMs += pauseMs) {
    try {
      const mode = db.pragma("journal_mode = WAL", { simple: true });
      if (mode === "wal") return;
      throw new StatusError(
        "Unavailable",
        `cannot open store "${file}": its file system allows no write-ahead log (journal mode "${String(mode)}"): ` +
          "choose a state directory on a local disk",
      );
    } catch (error) {
      const busy = error instanceof Database.SqliteError && error.code.startsWith("SQLITE_BUSY");
      if (!busy || waitedMs >= BUSY_TIMEOUT_MS) throw error;
      Atomics.wait(pause, 0, 0, pauseMs);
    }
  }
}
