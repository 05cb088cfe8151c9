import Database from "better-sqlite3";
import { StatusError } from "../../api/errors.ts";

/** How long a write waits for the write of another process. */
export const BUSY_TIMEOUT_MS = 5_000;

/** "Full" survives a power cut once the call returned; "Normal" survives the death of the process, and a power cut may lose the last writes. */
export type Durability = "Full" | "Normal";

/** The one way to the file: every write is one transaction that holds the write lock from its first statement, so what it reads stays true until it commits. */
export interface Connection {
  readonly db: Database.Database;
  write<T>(durability: Durability, work: () => T): Promise<T>;
  /** Everything `work` reads is from one snapshot. */
  read<T>(work: () => T): Promise<T>;
}

export function connect(db: Database.Database, file: string): Connection {
  const transaction = db.transaction((work: () => unknown) => work());
  async function within<T>(run: (job: () => void) => void, work: () => T): Promise<T> {
    try {
      const done: T[] = [];
      run(() => done.push(work()));
      const [result] = done;
      return result as T;
    } catch (error) {
      throw describeFault(error, file);
    }
  }
  return {
    db,
    read: (work) => within((job) => transaction.deferred(job), work),
    write: (durability, work) =>
      within((job) => {
        if (durability === "Full") {
          transaction.immediate(job);
          return;
        }
        // The pragma has no effect inside a transaction, and the connection is Full between writes whatever happens.
        db.exec("PRAGMA synchronous = NORMAL");
        try {
          transaction.immediate(job);
        } finally {
          db.exec("PRAGMA synchronous = FULL");
        }
      }, work),
  };
}

/** Puts a fault of the file into words: which file, what is wrong, what to do. Refusals and bugs pass unchanged. */
export function describeFault(error: unknown, file: string): unknown {
  if (error instanceof TypeError && error.message === "The database connection is not open") {
    return new StatusError("Unavailable", `cannot use store "${file}": it was closed`, { cause: error });
  }
  if (!(error instanceof Database.SqliteError)) return error;
  return new StatusError("Unavailable", `cannot use store "${file}": ${remedy(error, file)}`, { cause: error });
}

function remedy({ code, message }: { code: string; message: string }, file: string): string {
  if (code.startsWith("SQLITE_BUSY")) {
    return `another process kept it locked for ${BUSY_TIMEOUT_MS / 1000} s: try again, or end the process that hangs`;
  }
  if (code.startsWith("SQLITE_NOTADB")) {
    return "it is not a SQLite database: restore it from a backup, or move it away to start with an empty store";
  }
  if (code.startsWith("SQLITE_CORRUPT")) {
    return (
      `it is damaged (${message}): restore it from a backup, save what can be read with sqlite3 "${file}" .recover, ` +
      "or move it away to start with an empty store"
    );
  }
  if (code.startsWith("SQLITE_FULL")) return "the disk is full: free some space and try again";
  if (code.startsWith("SQLITE_READONLY") || code.startsWith("SQLITE_CANTOPEN") || code.startsWith("SQLITE_PERM")) {
    return `this user may not write it (${message}): check the owner and mode of the file and of its directory`;
  }
  return `${code}: ${message}: check the disk and the file system, then try again`;
}
