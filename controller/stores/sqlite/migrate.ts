import type { Database } from "better-sqlite3";
import { StatusError } from "../../api/errors.ts";

/** Marks a SQLite file as a store of this project ("botb"), so that no other program's file is ever written to. */
const APPLICATION_ID = 0x626f7462;

/**
 * One entry per schema version, never changed once released.
 *
 * Version and generation stand in columns instead of the body: a body is then serialised once, before they are known.
 * `log` has one row for each version ever taken, without gaps, and only its oldest rows are pruned. So its newest row is the
 * counter of versions (no second page to write), and its oldest row is the horizon of watches.
 */
const MIGRATIONS: readonly string[] = [
  `
  CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;

  CREATE TABLE objects (
    id INTEGER PRIMARY KEY,
    kind TEXT NOT NULL,
    namespace TEXT NOT NULL,
    name TEXT NOT NULL,
    uid TEXT NOT NULL UNIQUE,
    version INTEGER NOT NULL,
    generation INTEGER NOT NULL,
    body TEXT NOT NULL,
    UNIQUE (kind, namespace, name)
  );
  CREATE INDEX events_by_age ON objects (version) WHERE kind = 'Event';

  CREATE TABLE owners (
    uid TEXT NOT NULL,
    object INTEGER NOT NULL REFERENCES objects (id) ON DELETE CASCADE,
    PRIMARY KEY (uid, object)
  ) WITHOUT ROWID;
  CREATE INDEX owners_by_object ON owners (object);

  CREATE TABLE log (
    version INTEGER PRIMARY KEY,
    type TEXT NOT NULL,
    kind TEXT NOT NULL,
    generation INTEGER NOT NULL,
    namespace TEXT NOT NULL,
    name TEXT NOT NULL,
    body TEXT NOT NULL
  );

  CREATE TABLE journal (seq INTEGER PRIMARY KEY AUTOINCREMENT, uid TEXT NOT NULL, body TEXT NOT NULL);
  CREATE INDEX journal_by_uid ON journal (uid, seq);

  CREATE TABLE transcripts (
    id INTEGER PRIMARY KEY,
    uid TEXT NOT NULL,
    turn TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    truncated INTEGER NOT NULL,
    bytes BLOB NOT NULL,
    UNIQUE (uid, turn, attempt)
  );
  `,
  `
  CREATE TABLE audit (uid TEXT NOT NULL, seq INTEGER NOT NULL, line TEXT NOT NULL, PRIMARY KEY (uid, seq)) WITHOUT ROWID;
  CREATE TABLE audit_counters (uid TEXT PRIMARY KEY, seq INTEGER NOT NULL, body TEXT NOT NULL) WITHOUT ROWID;
  CREATE TABLE audit_cursors (
    id INTEGER PRIMARY KEY,
    uid TEXT NOT NULL,
    guard TEXT NOT NULL,
    cursor TEXT NOT NULL,
    UNIQUE (uid, guard)
  );
  `,
];

/** Refuses, without writing a byte, a file that another program or a newer release of this one made. */
export function checkOrigin(db: Database, file: string): void {
  const owner = Number(db.pragma("application_id", { simple: true }));
  const version = Number(db.pragma("user_version", { simple: true }));
  const tables = Number(db.prepare("SELECT count(*) FROM sqlite_master").pluck().get());
  const empty = owner === 0 && version === 0 && tables === 0;
  if (!empty && owner !== APPLICATION_ID) {
    throw new StatusError(
      "Unavailable",
      `cannot open store "${file}": it is a SQLite database of another program: choose another file or state directory`,
    );
  }
  if (version > MIGRATIONS.length) {
    throw new StatusError(
      "Unavailable",
      `cannot open store "${file}": a newer bot-bottle wrote it (schema ${version}, this one knows ${MIGRATIONS.length}): ` +
        "upgrade bot-bottle or choose another state directory",
    );
  }
}

/** Brings the file to the newest schema. Of several processes that open a new file at once, one does the work and the others find it done. */
export function migrate(db: Database): void {
  const run = db.transaction(() => {
    const version = Number(db.pragma("user_version", { simple: true }));
    if (version >= MIGRATIONS.length) return;
    for (const migration of MIGRATIONS.slice(version)) db.exec(migration);
    db.pragma(`application_id = ${APPLICATION_ID}`);
    db.pragma(`user_version = ${MIGRATIONS.length}`);
  });
  run.immediate();
}

/** A setting that is made at random by whoever opens the file first, and is the same for everybody afterwards. */
export function ensureSetting(db: Database, name: "installationId" | "guardKey", make: () => string): string {
  const find = db.prepare<[string]>("SELECT value FROM settings WHERE name = ?").pluck();
  const known = find.get(name);
  if (known !== undefined) return String(known);
  db.prepare("INSERT INTO settings (name, value) VALUES (?, ?) ON CONFLICT DO NOTHING").run(name, make());
  return String(find.get(name));
}
