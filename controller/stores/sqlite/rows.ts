import type { Database } from "better-sqlite3";
import type { ObjectKey } from "../../api/meta.ts";
import { ownersOf, type Entity } from "./entity.ts";
import type { History } from "./history.ts";

/** An object as it is kept. */
export interface Row {
  id: number;
  kind: string;
  namespace: string;
  name: string;
  uid: string;
  version: number;
  generation: number;
  body: string;
}

/** What a row becomes. `body` is the entity, serialised. */
export interface Next {
  entity: Entity;
  body: string;
  generation: number;
}

/** The table of objects. Writes belong inside a write transaction; each logs itself and returns the version it took. */
export interface Rows {
  find(kind: string, key: ObjectKey): Row | undefined;
  findUid(uid: string): Row | undefined;
  /** By namespace and name. */
  all(kind: string, namespace?: string): Row[];
  /** Objects that name this uid as an owner, oldest first. */
  dependents(ownerUid: string): Row[];
  /** The Events beyond the newest `keep`. */
  surplusEvents(keep: number): Row[];
  insert(next: Next): number;
  replace(row: Row, next: Next): number;
  remove(row: Row, last: { body: string; generation: number }): number;
}

export function prepareRows(db: Database, history: History): Rows {
  const find = db.prepare<[string, string, string], Row>(
    "SELECT * FROM objects WHERE kind = ? AND namespace = ? AND name = ?",
  );
  const findUid = db.prepare<[string], Row>("SELECT * FROM objects WHERE uid = ?");
  const all = db.prepare<[string], Row>("SELECT * FROM objects WHERE kind = ? ORDER BY namespace, name");
  const allIn = db.prepare<[string, string], Row>(
    "SELECT * FROM objects WHERE kind = ? AND namespace = ? ORDER BY name",
  );
  const dependents = db.prepare<[string], Row>(
    "SELECT objects.* FROM owners JOIN objects ON objects.id = owners.object WHERE owners.uid = ? ORDER BY objects.id",
  );
  const events = db.prepare<[], number>("SELECT count(*) FROM objects WHERE kind = 'Event'").pluck();
  const oldestEvents = db.prepare<[number], Row>("SELECT * FROM objects WHERE kind = 'Event' ORDER BY version LIMIT ?");
  const insert = db.prepare<[string, string, string, string, number, number, string]>(
    "INSERT INTO objects (kind, namespace, name, uid, version, generation, body) VALUES (?, ?, ?, ?, ?, ?, ?)",
  );
  const replace = db.prepare<[number, number, string, number]>(
    "UPDATE objects SET version = ?, generation = ?, body = ? WHERE id = ?",
  );
  const remove = db.prepare<[number]>("DELETE FROM objects WHERE id = ?");
  const setOwners = prepareOwners(db);
  return {
    find: (kind, key) => find.get(kind, key.namespace, key.name),
    findUid: (uid) => findUid.get(uid),
    all: (kind, namespace) => (namespace === undefined ? all.all(kind) : allIn.all(kind, namespace)),
    dependents: (ownerUid) => dependents.all(ownerUid),
    surplusEvents: (keep) => {
      const surplus = (events.get() ?? 0) - keep;
      return surplus > 0 ? oldestEvents.all(surplus) : [];
    },
    insert: ({ entity, body, generation }) => {
      const { kind } = entity;
      const { namespace, name, uid } = entity.metadata;
      const version = history.append({ type: "ADDED", row: { kind, namespace, name }, generation, body });
      const { lastInsertRowid } = insert.run(kind, namespace, name, uid, version, generation, body);
      setOwners(Number(lastInsertRowid), ownersOf(entity));
      return version;
    },
    replace: (row, { entity, body, generation }) => {
      const version = history.append({ type: "MODIFIED", row, generation, body });
      replace.run(version, generation, body, row.id);
      setOwners(row.id, ownersOf(entity));
      return version;
    },
    remove: (row, { body, generation }) => {
      remove.run(row.id);
      return history.append({ type: "DELETED", row, generation, body });
    },
  };
}

/** The index from an owner's uid to its dependents. Rows of a removed object go with it (foreign key). */
function prepareOwners(db: Database): (object: number, uids: readonly string[]) => void {
  const find = db.prepare<[number], string>("SELECT uid FROM owners WHERE object = ? ORDER BY uid").pluck();
  const clear = db.prepare<[number]>("DELETE FROM owners WHERE object = ?");
  const add = db.prepare<[string, number]>("INSERT INTO owners (uid, object) VALUES (?, ?)");
  return (object, uids) => {
    const known = new Set(find.all(object));
    const wanted = new Set(uids);
    if (known.size === wanted.size && uids.every((uid) => known.has(uid))) return;
    clear.run(object);
    for (const uid of wanted) add.run(uid, object);
  };
}
