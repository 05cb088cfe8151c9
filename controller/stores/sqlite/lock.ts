import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";
import Database from "better-sqlite3";
import { StatusError } from "../../api/errors.ts";

/** `controllerPid` reads the file for a moment; a controller that starts in that moment must not take it for another controller. */
const PROBE_GRACE_MS = 250;

/** Held by the one controller of a state directory. */
export interface ControllerLock {
  /** Releasing twice is releasing once. */
  release(): void;
}

/**
 * Takes the lock, or returns undefined if another process (or this one) holds it. May block for a quarter of a second.
 * It is a SQLite file kept in an exclusive transaction, because SQLite knows how to lock a file on every platform, and the kernel
 * drops that lock when the process dies, however it dies. Nothing else may open this file: closing any descriptor of it would drop the lock.
 */
export function holdControllerLock(file: string): ControllerLock | undefined {
  const db = open(file);
  try {
    db.pragma("journal_mode = DELETE");
    db.exec("CREATE TABLE IF NOT EXISTS controller (id INTEGER PRIMARY KEY)");
    db.exec("BEGIN EXCLUSIVE");
  } catch (error) {
    db.close();
    if (isBusy(error)) return undefined;
    throw fault(file, error);
  }
  writeFileSync(pidFile(file), `${process.pid}\n`, { mode: 0o600 });
  const release = (): void => {
    process.off("exit", release);
    if (!db.open) return;
    rmSync(pidFile(file), { force: true });
    db.close();
  };
  // The listener also keeps the database reachable: collected as garbage it would be closed, and the lock gone, while its holder still works.
  process.once("exit", release);
  return { release };
}

/** The process that holds the lock, for messages; undefined if nobody does. */
export function controllerPid(file: string): number | undefined {
  if (!isHeld(file)) return undefined;
  try {
    const pid = Number(readFileSync(pidFile(file), "utf8"));
    return Number.isSafeInteger(pid) && pid > 0 ? pid : undefined;
  } catch {
    // The holder is about to write it, or to go.
    return undefined;
  }
}

function isHeld(file: string): boolean {
  if (!existsSync(file)) return false;
  const db = open(file);
  try {
    db.pragma("busy_timeout = 0");
    db.prepare("SELECT count(*) FROM sqlite_master").get();
    return false;
  } catch (error) {
    if (isBusy(error)) return true;
    throw fault(file, error);
  } finally {
    db.close();
  }
}

function open(file: string): Database.Database {
  try {
    mkdirSync(dirname(file), { recursive: true, mode: 0o700 });
    return new Database(file, { timeout: PROBE_GRACE_MS });
  } catch (error) {
    throw fault(file, error);
  }
}

function pidFile(file: string): string {
  return `${file}.pid`;
}

function isBusy(error: unknown): boolean {
  return error instanceof Database.SqliteError && error.code.startsWith("SQLITE_BUSY");
}

function fault(file: string, error: unknown): StatusError {
  const why = error instanceof Error ? error.message : String(error);
  return new StatusError(
    "Unavailable",
    `cannot use controller lock "${file}": ${why}: it must be on a local disk that this user may write; it holds nothing, so it may be removed while no controller runs`,
    { cause: error },
  );
}
