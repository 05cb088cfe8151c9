import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import Database from "better-sqlite3";
import type { Bottle } from "../../controller/api/bottle.ts";
import type { Admission, Store } from "../../controller/ports/store.ts";
import { openDatabase } from "../../controller/stores/sqlite/open-database.ts";
import { measured, type Measurement } from "./measurement.ts";
import { realisticBottle, realisticStatus } from "./objects.ts";

const ROUNDS = 7;
const COMMITS = 400;
const LISTED = 10_000;
const admitAll: Admission = (_kind, object) => object;

/** The store against SQLite itself: what durable commits and whole lists cost on top. Needs the sqlite3 shell. */
export async function benchStore(): Promise<Measurement[]> {
  const folder = mkdtempSync(join(tmpdir(), "bot-bottle-bench-"));
  try {
    return [await benchUpdate(folder), await benchList(folder)];
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Commits per second with synchronous=FULL against an autocommit loop of the sqlite3 shell, in turns, so that a slow disk slows both. */
async function benchUpdate(folder: string): Promise<Measurement> {
  const database = openDatabase({ file: join(folder, "update.db"), admission: admitAll, now: Date.now });
  const shell = join(folder, "shell.db");
  const created = await database.store.create<"Bottle">(realisticBottle("measured"));
  let current = await database.store.patchStatus(
    "Bottle",
    { namespace: "default", name: "measured" },
    { uid: created.metadata.uid, status: realisticStatus() },
  );
  const size = JSON.stringify(current).length;
  const schema = "CREATE TABLE IF NOT EXISTS objects (name TEXT PRIMARY KEY, version INTEGER, body TEXT);";
  runShell(shell, [schema]);

  const ours: number[] = [];
  const peer: number[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    const started = performance.now();
    for (let n = 0; n < COMMITS; n++) current = await database.store.update<"Bottle">(turned(current, n % 2));
    ours.push((COMMITS / (performance.now() - started)) * 1000);
    peer.push((COMMITS / (shellLoopMs(shell, size) || 1)) * 1000);
  }
  database.close();
  return measured(`update of a ${size} byte bottle, commits/s`, { ours, peer }, { atLeast: 0.5 });
}

/** Milliseconds of the loop alone: an empty script's time is start-up. */
function shellLoopMs(file: string, size: number): number {
  const bodies = ["a", "b"].map((letter) => letter.repeat(size));
  const upserts = Array.from({ length: COMMITS }, (_, n) => {
    const body = bodies[n % 2];
    return (
      `INSERT INTO objects VALUES ('measured', ${n}, '${body}') ` +
      "ON CONFLICT (name) DO UPDATE SET version = excluded.version, body = excluded.body;"
    );
  });
  const empty = runShell(file, []);
  return runShell(file, upserts) - empty;
}

function runShell(file: string, statements: readonly string[]): number {
  const input = ["PRAGMA journal_mode=WAL;", "PRAGMA synchronous=FULL;", ...statements].join("\n");
  const started = performance.now();
  const { status, stderr } = spawnSync("sqlite3", ["-bail", file], { input, encoding: "utf8", timeout: 120_000 });
  const tookMs = performance.now() - started;
  if (status !== 0) throw new Error(`sqlite3 shell exited ${status}: ${stderr}: install the sqlite3 package`);
  return tookMs;
}

/** Milliseconds to list against reading and parsing the same rows by hand. */
async function benchList(folder: string): Promise<Measurement> {
  const file = join(folder, "list.db");
  const database = openDatabase({ file, admission: admitAll, now: Date.now });
  await database.store.create<"Bottle">(realisticBottle("b-0"));
  fill(file);
  const reader = new Database(file, { readonly: true });
  const select = reader.prepare<[], { body: string }>("SELECT body FROM objects WHERE kind = 'Bottle'");

  const ours: number[] = [];
  const peer: number[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    ours.push(await listMs(database.store));
    const started = performance.now();
    const parsed = select.all().map((row): unknown => JSON.parse(row.body));
    peer.push(performance.now() - started);
    if (parsed.length !== LISTED) throw new Error(`read ${parsed.length} rows, not ${LISTED}`);
  }
  reader.close();
  database.close();
  return measured(`list of ${LISTED} bottles, ms`, { ours, peer }, { atMost: 2 });
}

/** Copies the one row in one statement: 10,000 durable creates would take most of the bench. */
function fill(file: string): void {
  const db = new Database(file);
  db.prepare(
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < ?) " +
      "INSERT INTO objects (kind, namespace, name, uid, version, generation, body) " +
      "SELECT kind, namespace, 'b-' || i, 'uid-' || i, version, generation, " +
      "json_set(body, '$.metadata.name', 'b-' || i, '$.metadata.uid', 'uid-' || i, '$.status', json(?)) FROM objects, n",
  ).run(LISTED, JSON.stringify(realisticStatus()));
  db.close();
}

async function listMs(store: Store): Promise<number> {
  const started = performance.now();
  const { items } = await store.list("Bottle");
  if (items.length !== LISTED) throw new Error(`listed ${items.length} bottles, not ${LISTED}`);
  return performance.now() - started;
}

function turned(object: Bottle, n: number): Bottle {
  return { ...object, spec: { ...object.spec, operatingMode: n === 0 ? "Frozen" : "Running" } };
}
