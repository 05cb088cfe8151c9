import { chmodSync, mkdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";
import Database from "better-sqlite3";
import { describe, expect, onTestFinished, test } from "vitest";
import { invalid, StatusError } from "../../controller/api/errors.ts";
import { keyOf } from "../../controller/api/meta.ts";
import type { Admission } from "../../controller/ports/store.ts";
import { connect } from "../../controller/stores/sqlite/connection.ts";
import type { OpenOptions } from "../../controller/stores/sqlite/open-database.ts";
import { storeContract } from "../contract/store-contract.ts";
import { bottle, changesSince, event, eventsUntil, refusal, relabelled, template } from "../contract/store-fixtures.ts";
import { open, openTemporary, temporaryFolder } from "./temporary.ts";

storeContract("SQLite", async () => openTemporary());

function opened(options: Partial<OpenOptions> = {}) {
  const database = openTemporary(options);
  onTestFinished(() => database.dispose());
  return database;
}

function temporaryFile(): string {
  const folder = temporaryFolder();
  onTestFinished(() => folder.remove());
  return folder.file;
}

describe("the SQLite store file", () => {
  test("directory and files can be read by their owner alone, whatever the umask", async () => {
    const before = process.umask(0);
    onTestFinished(() => {
      process.umask(before);
    });
    const { file, store } = opened();
    await store.create<"Bottle">(bottle("a"));

    const modes = [dirname(file), file, `${file}-wal`, `${file}-shm`].map((path) => statSync(path).mode & 0o777);

    expect(modes).toEqual([0o700, 0o600, 0o600, 0o600]);
  });

  test("the guard key is 32 random bytes, another one for each file, and the same after closing", () => {
    const file = temporaryFile();
    const first = open(file);
    first.close();
    const again = open(file);
    again.close();

    expect(first.guardKey).toHaveLength(32);
    expect(again.guardKey).toEqual(first.guardKey);
    expect(opened().guardKey).not.toEqual(first.guardKey);
  });

  test("a file of the release before has its objects, and can keep an audit", async () => {
    const file = temporaryFile();
    const before = open(file);
    await before.store.create<"Bottle">(bottle("a"));
    before.close();
    const db = new Database(file);
    for (const table of ["audit", "audit_counters", "audit_cursors"]) db.exec(`DROP TABLE ${table}`);
    db.exec("DELETE FROM settings WHERE name = 'guardKey'");
    db.pragma("user_version = 1");
    db.close();

    const after = open(file);
    onTestFinished(() => after.close());

    expect((await after.store.list("Bottle")).items).toHaveLength(1);
    expect(await after.auditLog.cursor("a", "g")).toBe("");
    expect(after.guardKey).toHaveLength(32);
  });

  test("a file whose mode was widened is narrowed again", () => {
    const file = temporaryFile();
    open(file).close();
    chmodSync(file, 0o644);

    open(file).close();

    expect(statSync(file).mode & 0o777).toBe(0o600);
  });

  test("objects, journal, transcripts and the installation id outlive closing", async () => {
    const file = temporaryFile();
    const first = open(file);
    const made = await first.store.create<"Bottle">(bottle("a"));
    await first.journal.append(made.metadata.uid, [{ type: "Frozen", timeMs: 1 }]);
    const transcript = { turn: "one", attempt: 1, truncated: false, bytes: Uint8Array.of(1) };
    await first.transcripts.save(made.metadata.uid, transcript);
    first.close();

    const second = open(file);
    onTestFinished(() => second.close());

    expect(await second.store.get("Bottle", keyOf(made))).toEqual(made);
    expect(await second.journal.read(made.metadata.uid)).toHaveLength(1);
    expect(await second.transcripts.load(made.metadata.uid, transcript)).toEqual(transcript);
    expect(second.installationId).toBe(first.installationId);
  });

  test("a version is not used again after everything was deleted and the file opened again", async () => {
    const file = temporaryFile();
    const first = open(file, { historyMax: 2 });
    for (const name of ["a", "b", "c"]) {
      await first.store.delete("Bottle", keyOf(await first.store.create<"Bottle">(bottle(name))));
    }
    first.close();
    const second = open(file);
    onTestFinished(() => second.close());

    const next = await second.store.create<"Bottle">(bottle("a"));

    expect(next.metadata.resourceVersion).toBe("7");
  });

  test("a newer schema is refused, naming the file and the remedy", () => {
    const file = temporaryFile();
    open(file).close();
    const db = new Database(file);
    db.pragma("user_version = 99");
    db.close();

    expect(() => open(file)).toThrow(expect.objectContaining({ reason: "Unavailable" }));
    expect(() => open(file)).toThrow(/store\.db": a newer bot-bottle wrote it \(schema 99.*upgrade bot-bottle/);
  });

  test("the database of another program is refused and left as it is", () => {
    const file = temporaryFile();
    mkdirSync(dirname(file));
    const db = new Database(file);
    db.exec("CREATE TABLE theirs (x)");
    db.close();
    const before = readFileSync(file);

    expect(() => open(file)).toThrow(/store\.db": it is a SQLite database of another program/);
    expect(readFileSync(file).equals(before)).toBe(true);
  });

  test("a file that is no database is refused and left as it is", () => {
    const file = temporaryFile();
    mkdirSync(dirname(file));
    writeFileSync(file, "not a database, but long enough to have a header of one hundred bytes".repeat(20));
    const before = readFileSync(file);

    expect(() => open(file)).toThrow(/store\.db": it is not a SQLite database: restore it from a backup/);
    expect(readFileSync(file).equals(before)).toBe(true);
  });

  test("a damaged file is refused, naming the file and the remedy", () => {
    const file = temporaryFile();
    open(file).close();
    const bytes = readFileSync(file);
    bytes.fill(0xff, 100, 4096);
    writeFileSync(file, bytes);

    expect(() => open(file)).toThrow(expect.objectContaining({ reason: "Unavailable" }));
    expect(() => open(file)).toThrow(/store\.db": it is damaged .*restore it from a backup/);
  });

  test("a directory that cannot be made is refused by name", () => {
    const file = temporaryFile();
    writeFileSync(dirname(file), "a file where a directory should be");

    expect(() => open(file)).toThrow(expect.objectContaining({ reason: "Unavailable" }));
  });

  test("a closed store refuses calls as Unavailable, ends its watches and may be closed again", async () => {
    const { store, close } = openTemporary();
    const watching = (async () => {
      const { signal } = new AbortController();
      for await (const seen of store.watch(["Bottle"], { resourceVersion: "0", signal })) throw new Error(seen.type);
      return "ended";
    })();

    setImmediate(() => {
      close();
      close();
    });

    expect(await watching).toBe("ended");
    expect(await refusal(store.list("Bottle"))).toBe("Unavailable");
  });

  test("a file locked by another writer for too long is Unavailable", async () => {
    const { file, store } = opened();
    const other = new Database(file);
    onTestFinished(() => {
      other.close();
    });
    other.exec("BEGIN IMMEDIATE");

    expect(await refusal(store.create<"Bottle">(bottle("a")))).toBe("Unavailable");
    other.exec("ROLLBACK");
    expect(await refusal(store.create<"Bottle">(bottle("a")))).toBe("none");
  });
});

describe("the durability of a write", () => {
  test("Full and Normal hold for one write each, and the connection is Full again after a refusal too", async () => {
    const db = new Database(":memory:");
    onTestFinished(() => {
      db.close();
    });
    const connection = connect(db, ":memory:");
    const mode = () => ({ synchronous: db.pragma("synchronous", { simple: true }), inTransaction: db.inTransaction });
    db.pragma("synchronous = FULL");

    expect(await connection.write("Full", mode)).toEqual({ synchronous: 2, inTransaction: true });
    expect(await connection.write("Normal", mode)).toEqual({ synchronous: 1, inTransaction: true });
    expect(mode()).toEqual({ synchronous: 2, inTransaction: false });
    expect(await refusal(connection.write("Normal", refuseAll))).toBe("Conflict");
    expect(mode()).toEqual({ synchronous: 2, inTransaction: false });
  });
});

describe("the history of the SQLite store", () => {
  test("it keeps at most historyMax changes, and a watch from before them is Gone", async () => {
    const { file, store } = opened({ historyMax: 20 });
    let made = await store.create<"Bottle">(bottle("a"));
    for (let n = 0; n < 40; n++) made = await store.update<"Bottle">(relabelled(made, `v${n}`));
    const db = new Database(file, { readonly: true });
    onTestFinished(() => {
      db.close();
    });

    const kept = Number(db.prepare("SELECT count(*) FROM log").pluck().get());

    expect(kept).toBeLessThanOrEqual(20);
    expect(kept).toBeGreaterThanOrEqual(18);
    expect(await refusal(changesSince(store, ["Bottle"], "1"))).toBe("Gone");
    const reached = await changesSince(store, ["Bottle"], String(Number(made.metadata.resourceVersion) - 10));
    expect(reached.filter(({ type }) => type === "MODIFIED")).toHaveLength(10);
  });

  test("a watch that falls behind the history while it runs is Gone", async () => {
    const { store } = opened({ historyMax: 10 });
    await store.create<"Bottle">(bottle("a"));
    const { signal } = new AbortController();
    const watch = store.watch(["Bottle"], { resourceVersion: "0", signal })[Symbol.asyncIterator]();
    expect(await watch.next()).toMatchObject({ value: { type: "ADDED" } });

    for (let n = 0; n < 20; n++) await store.create<"Bottle">(bottle(`b-${n}`));

    expect(await refusal(watch.next())).toBe("Gone");
  });

  test("a version that the file never took is Gone, and what is no version is BadRequest", async () => {
    const { store } = opened();

    expect(await refusal(changesSince(store, ["Bottle"], "1000"))).toBe("Gone");
    expect(await refusal(changesSince(store, ["Bottle"], "yesterday"))).toBe("BadRequest");
  });

  test("a slow watcher is told everything, also more than one page", async () => {
    const { store } = opened();
    for (let n = 0; n < 600; n++) await store.create<"Event">(event(`e-${n}`));

    const changes = await changesSince(store, ["Event"], "0");

    expect(changes.map(({ object }) => object.metadata.name)).toEqual(Array.from({ length: 600 }, (_, n) => `e-${n}`));
  });

  test("Events are kept to 5,000: the one written longest ago goes, and watchers are told", async () => {
    const { store } = opened({ file: ":memory:" });
    for (let n = 0; n < 5_000; n++) await store.create<"Event">(event(`e-${n}`));
    const oldest = await store.get("Event", { namespace: "default", name: "e-0" });
    if (oldest === undefined) throw new Error("5,000 Events must be kept");
    const { resourceVersion } = (await store.update<"Event">({ ...oldest, count: 2 })).metadata;

    await store.create<"Event">(event("last"));

    expect((await store.list("Event")).items).toHaveLength(5_000);
    const changes = await changesSince(store, ["Event"], resourceVersion);
    expect(changes.map(({ type, object }) => `${type} ${object.metadata.name}`)).toEqual(["ADDED last", "DELETED e-1"]);
  });
});

/** Refuses one label and fills in a colour that tells creating from updating. */
const defaulting: Admission = (kind, object, old) => {
  const given = object as ReturnType<typeof bottle>;
  if (given.spec.label === "refused")
    throw invalid(kind, [{ field: "spec.label", message: "no", reason: "FieldValueInvalid" }]);
  const color = old === undefined ? "red" : "green";
  return { ...given, spec: { ...given.spec, color } };
};

describe("what the SQLite store does with objects", () => {
  test("what admission returns is stored, and it sees the old object on an update", async () => {
    const { store } = opened({ admission: defaulting });

    const made = await store.create<"Bottle">(bottle("a"));
    const next = await store.update<"Bottle">(relabelled(made, "yes"));

    expect(made.spec.color).toBe("red");
    expect(next.spec.color).toBe("green");
    expect(next.metadata.generation).toBe(2);
  });

  test("what admission refuses is not stored", async () => {
    const { store } = opened({ admission: defaulting });
    const made = await store.create<"Bottle">(bottle("a"));

    const refused = { ...made, spec: { ...made.spec, label: "refused" } };
    expect(await refusal(store.update<"Bottle">(refused))).toBe("Invalid");
    const draft = bottle("b");
    draft.spec.label = "refused";
    expect(await refusal(store.create<"Bottle">(draft))).toBe("Invalid");

    expect((await store.list("Bottle")).items).toEqual([made]);
  });

  test("a uid in the draft is kept, and one that is taken is AlreadyExists", async () => {
    const { store } = opened();
    const uid = "3f0c9a52-6a1e-4f3e-9d8e-0c2b7f1a5d11";

    const made = await store.create<"Bottle">(bottle("a", { uid }));

    expect(made.metadata.uid).toBe(uid);
    expect(await refusal(store.create<"Bottle">(bottle("b", { uid })))).toBe("AlreadyExists");
    expect(await refusal(store.create<"Bottle">(bottle("c", { uid: "No Label" })))).toBe("Invalid");
  });

  test("an owner of a kind that is kept elsewhere counts as alive: a bottle must not go because it is unknown here", async () => {
    const { store } = opened();
    const owner = { apiVersion: "v1", kind: "ConfigMap", name: "theirs", uid: "3f0c9a52-6a1e-4f3e-9d8e-0c2b7f1a5d11" };

    const made = await store.create<"Bottle">(bottle("a", { ownerReferences: [owner] }));

    expect(await store.get("Bottle", keyOf(made))).toEqual(made);
  });

  test("a kind without status refuses one", async () => {
    const { store } = opened();
    const made = await store.create<"BottleTemplate">(template("a"));
    const { uid } = made.metadata;

    expect(await refusal(store.patchStatus("BottleTemplate", keyOf(made), { uid, status: {} }))).toBe("BadRequest");
  });

  test("an object larger than a cluster could hold is Invalid", async () => {
    const { store } = opened();
    const draft = bottle("a");
    draft.spec.turns = [{ id: "one", prompt: "x".repeat(1_600_000) }];

    expect(await refusal(store.create<"Bottle">(draft))).toBe("Invalid");
  });

  test("timestamps come from the given clock, in whole seconds", async () => {
    const { store } = opened({ now: () => 1_800_000_000_999 });

    const made = await store.create<"Bottle">(bottle("a"));

    expect(made.metadata.creationTimestamp).toBe("2027-01-15T08:00:00Z");
  });

  test("every wait of a watch leaves no timer behind", async () => {
    const { store } = opened();
    const before = timerCount();

    const told = eventsUntil(store, { kinds: ["Bottle"], resourceVersion: "0" }, ({ type }) => type === "ADDED");
    await store.create<"Bottle">(bottle("a"));
    await told;

    // The deadline of eventsUntil itself is an AbortSignal, which is not among them.
    expect(timerCount()).toBeLessThanOrEqual(before);
  });
});

function timerCount(): number {
  return process.getActiveResourcesInfo().filter((name) => name === "Timeout").length;
}

function refuseAll(): never {
  throw new StatusError("Conflict", "refused");
}
