import type { Database } from "better-sqlite3";
import { AUDIT_LINES_MAX, type AuditLog, type EgressCounters } from "../../ports/audit.ts";
import type { AuditLine } from "../../ports/guard.ts";
import { countLines, NO_TRAFFIC } from "./audit-counters.ts";
import type { Connection } from "./connection.ts";

/** Guards of one bottle whose cursors are kept; each launch makes a new one, and those of long ago are gone. */
const CURSORS_MAX = 16;
/** Characters of a line as it is kept. What is longer came from an agent; then each text of it is cut. */
const LINE_LENGTH_MAX = 8_192;
const TEXT_LENGTH_MAX = 256;
const ITEMS_MAX = 16;

interface CountersRow {
  seq: number;
  body: string;
}

/** The AuditLog port: a row for each line, numbered for each bottle, and what they add up to beside them. */
export function openAuditLog({ db, read, write }: Connection): AuditLog {
  const statements = prepareStatements(db);
  const forget = prepareForgetAudit(db);
  const countersOf = (uid: string): { seq: number; counters: EgressCounters } => {
    const row = statements.counters.get(uid);
    return row === undefined ? { seq: 0, counters: NO_TRAFFIC } : { seq: row.seq, counters: JSON.parse(row.body) };
  };
  return {
    append: async (uid, page) => {
      if (page.lines.length === 0 && page.cursor === page.from) return;
      await write("Full", () => {
        if ((statements.cursor.get(uid, page.guardId) ?? "") !== page.from) return;
        statements.setCursor.run(uid, page.guardId, page.cursor);
        statements.dropCursors.run(uid, uid, CURSORS_MAX);
        if (page.lines.length === 0) return;
        const before = countersOf(uid);
        const last = before.seq + page.lines.length;
        // Lines that would be dropped at once are only counted.
        for (const [index, line] of page.lines.entries()) {
          const seq = before.seq + index + 1;
          if (seq > last - AUDIT_LINES_MAX) statements.insert.run(uid, seq, lineText(line));
        }
        statements.prune.run(uid, last - AUDIT_LINES_MAX);
        statements.setCounters.run(uid, last, JSON.stringify(countLines(before.counters, page.lines)));
      });
    },
    cursor: (uid, guardId) => read(() => statements.cursor.get(uid, guardId) ?? ""),
    read: (uid, { afterSeq, limit }) =>
      read(() => statements.lines.all(uid, afterSeq, limit).map(({ seq, line }) => ({ seq, line: JSON.parse(line) }))),
    counters: (uid) => read(() => countersOf(uid).counters),
    forget: (uid) => write("Full", () => forget(uid)),
  };
}

/** Removes what is kept of a bottle's audit. Only inside a write transaction. */
export function prepareForgetAudit(db: Database): (uid: string) => void {
  const tables = ["audit", "audit_counters", "audit_cursors"];
  const statements = tables.map((table) => db.prepare<[string]>(`DELETE FROM ${table} WHERE uid = ?`));
  return (uid) => {
    for (const statement of statements) statement.run(uid);
  };
}

function prepareStatements(db: Database) {
  return {
    cursor: db
      .prepare<[string, string], string>("SELECT cursor FROM audit_cursors WHERE uid = ? AND guard = ?")
      .pluck(),
    setCursor: db.prepare<[string, string, string]>(
      "INSERT INTO audit_cursors (uid, guard, cursor) VALUES (?, ?, ?) " +
        "ON CONFLICT (uid, guard) DO UPDATE SET cursor = excluded.cursor",
    ),
    dropCursors: db.prepare<[string, string, number]>(
      "DELETE FROM audit_cursors WHERE uid = ? AND id NOT IN " +
        "(SELECT id FROM audit_cursors WHERE uid = ? ORDER BY id DESC LIMIT ?)",
    ),
    counters: db.prepare<[string], CountersRow>("SELECT seq, body FROM audit_counters WHERE uid = ?"),
    setCounters: db.prepare<[string, number, string]>(
      "INSERT INTO audit_counters (uid, seq, body) VALUES (?, ?, ?) " +
        "ON CONFLICT (uid) DO UPDATE SET seq = excluded.seq, body = excluded.body",
    ),
    insert: db.prepare<[string, number, string]>("INSERT INTO audit (uid, seq, line) VALUES (?, ?, ?)"),
    prune: db.prepare<[string, number]>("DELETE FROM audit WHERE uid = ? AND seq <= ?"),
    lines: db.prepare<[string, number, number], { seq: number; line: string }>(
      "SELECT seq, line FROM audit WHERE uid = ? AND seq > ? ORDER BY seq LIMIT ?",
    ),
  };
}

function lineText(line: AuditLine): string {
  const text = JSON.stringify(line);
  if (text.length <= LINE_LENGTH_MAX) return text;
  const cut = (value: unknown): unknown => {
    if (typeof value === "string") return value.slice(0, TEXT_LENGTH_MAX);
    return Array.isArray(value) ? value.slice(0, ITEMS_MAX).map(cut) : value;
  };
  return JSON.stringify(Object.fromEntries(Object.entries(line).map(([field, value]) => [field, cut(value)])));
}
