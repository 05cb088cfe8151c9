import { StatusError } from "../../api/errors.ts";
import type { KindMap, KindName } from "../../api/kinds.ts";
import { DEFAULT_NAMESPACE, type ObjectKey } from "../../api/meta.ts";
import type { Admission, DeleteOptions, Store } from "../../ports/store.ts";
import type { Changes } from "./changes.ts";
import { openCollector, type Collector } from "./collect.ts";
import type { Connection, Durability } from "./connection.ts";
import { deepEqual } from "../../api/deep-equal.ts";
import {
  checkNames,
  draftMetadata,
  hasStatus,
  nameOf,
  parseEntity,
  serialise,
  timestamp,
  type Entity,
  type Written,
} from "./entity.ts";
import type { History } from "./history.ts";
import type { Row, Rows } from "./rows.ts";
import { checkCurrent, checkMetadata, nextMetadata } from "./update-rules.ts";

/** Events are a courtesy to people; beyond this many the oldest go. */
const EVENTS_MAX = 5_000;

export interface StoreParts {
  connection: Connection;
  rows: Rows;
  history: History;
  changes: Changes;
  watch: Store["watch"];
  admission: Admission;
  now: () => number;
  randomUid: () => string;
}

interface Parts extends StoreParts {
  collector: Collector;
}

/** The Store port on one SQLite file. Each write is one transaction; everything it decides on was read inside it. */
export function openStore(given: StoreParts): Store {
  const parts = { ...given, collector: openCollector(given.rows, given.now) };
  const { connection, rows, history, changes } = parts;
  async function write<T>(durability: Durability, work: () => T): Promise<T> {
    const result = await connection.write(durability, work);
    changes.notify();
    return result;
  }
  function writeObject<K extends KindName>(
    object: unknown,
    act: (parts: Parts, written: Written) => Entity,
  ): Promise<KindMap[K]> {
    const written = object as Written;
    return write(durabilityOf(written.kind), () => typed<K>(act(parts, written)));
  }
  return {
    get: (kind, key) =>
      connection.read(() => {
        const row = rows.find(kind, key);
        return row === undefined ? undefined : typed<typeof kind>(parseEntity(row));
      }),
    list: (kind, options = {}) =>
      connection.read(() => {
        const items = rows.all(kind, options.namespace).map((row) => typed<typeof kind>(parseEntity(row)));
        return { items, resourceVersion: String(history.head()) };
      }),
    watch: parts.watch,
    create: (draft) => writeObject(draft, create),
    update: (object) => writeObject(object, update),
    patchStatus: (kind, key, patch) => write("Normal", () => typed(patchStatus(parts, { kind, key, ...patch }))),
    delete: (kind, key, options = {}) => write(durabilityOf(kind), () => remove(parts, { kind, key, options })),
  };
}

/** The one place where a kept object gets its kind's type back: it was admitted as that kind before it was kept. */
function typed<K extends KindName>(entity: Entity): KindMap[K] {
  return entity as unknown as KindMap[K];
}

/** Desired state must survive a power cut; Events need not. */
function durabilityOf(kind: string): Durability {
  return kind === "Event" ? "Normal" : "Full";
}

function create(parts: Parts, draft: Written): Entity {
  const { rows, collector } = parts;
  const { kind } = draft;
  const admitted = admit(parts, draft, undefined);
  const metadata = draftMetadata(admitted.metadata);
  checkNames(kind, metadata);
  refuseTaken(rows, kind, metadata);

  const uid = metadata.uid ?? parts.randomUid();
  const creationTimestamp = timestamp(parts.now());
  const assigned = { uid, creationTimestamp, resourceVersion: "", generation: 1 };
  const entity: Entity = { ...admitted, metadata: { ...metadata, ...assigned } };
  const body = serialise(entity);
  const version = rows.insert({ entity, body, generation: 1 });
  if (collector.isAbandoned(entity)) removeNow(parts, kind, metadata);
  if (kind === "Event") for (const row of rows.surplusEvents(EVENTS_MAX)) rows.remove(row, row);
  return parseEntity({ version, generation: 1, body });
}

function refuseTaken(rows: Rows, kind: string, metadata: ObjectKey & { uid?: string }): void {
  const row = rows.find(kind, metadata);
  if (row !== undefined) {
    const deleting = parseEntity(row).metadata.deletionTimestamp !== undefined;
    const why = deleting
      ? "the object of that name is still being deleted: wait until it is gone"
      : "the name is taken: update that object or choose another name";
    throw new StatusError("AlreadyExists", `cannot create ${nameOf(kind, metadata)}: ${why}`);
  }
  const twin = metadata.uid === undefined ? undefined : rows.findUid(metadata.uid);
  if (twin !== undefined) {
    throw new StatusError(
      "AlreadyExists",
      `cannot create ${nameOf(kind, metadata)}: its uid "${twin.uid}" is that of ${nameOf(twin.kind, twin)}: leave the uid out`,
    );
  }
}

function update(parts: Parts, written: Written): Entity {
  const { rows, collector } = parts;
  const { kind } = written;
  const key = { name: written.metadata.name, namespace: written.metadata.namespace ?? DEFAULT_NAMESPACE };
  checkNames(kind, key);
  const row = findOrRefuse(rows, "update", { kind, key });
  const old = parseEntity(row);
  checkCurrent(written, old);
  const admitted = admit(parts, written, row);
  checkMetadata(admitted, old);

  const metadata = nextMetadata(admitted.metadata, old.metadata);
  const status = old["status"] === undefined ? {} : { status: old["status"] };
  const body = serialise({ ...admitted, metadata, ...status });
  const next = parseEntity({ ...row, body });
  if (deepEqual(next, old)) return next;

  const generation = deepEqual(next["spec"], old["spec"]) ? row.generation : row.generation + 1;
  if (metadata.deletionTimestamp !== undefined && metadata.finalizers === undefined) {
    const version = rows.remove(row, { body, generation });
    collector.removeDependents(row.uid);
    return parseEntity({ version, generation, body });
  }
  const version = rows.replace(row, { entity: next, body, generation });
  if (collector.isAbandoned(next)) removeNow(parts, kind, metadata);
  next.metadata.resourceVersion = String(version);
  next.metadata.generation = generation;
  return next;
}

function patchStatus({ rows }: Parts, patch: { kind: string; key: ObjectKey; uid: string; status: unknown }): Entity {
  const { kind, key, uid, status } = patch;
  if (!hasStatus(kind)) {
    throw new StatusError("BadRequest", `cannot write status of ${nameOf(kind, key)}: a ${kind} has none`);
  }
  const row = findOrRefuse(rows, "write status of", { kind, key });
  if (row.uid !== uid) {
    throw new StatusError(
      "NotFound",
      `cannot write status of ${nameOf(kind, key)}: the object with uid "${uid}" is gone, another one has its name`,
    );
  }
  const old = parseEntity(row);
  const body = serialise({ ...old, status });
  const next = parseEntity({ ...row, body });
  if (deepEqual(next, old)) return next;
  const version = rows.replace(row, { entity: next, body, generation: row.generation });
  next.metadata.resourceVersion = String(version);
  return next;
}

function remove(parts: Parts, request: { kind: string; key: ObjectKey; options: DeleteOptions }): void {
  const { kind, key, options } = request;
  const row = findOrRefuse(parts.rows, "delete", { kind, key });
  if (options.uid !== undefined && options.uid !== row.uid) {
    throw new StatusError(
      "Conflict",
      `cannot delete ${nameOf(kind, key)}: its uid is "${row.uid}", not "${options.uid}"`,
    );
  }
  if (options.resourceVersion !== undefined && options.resourceVersion !== String(row.version)) {
    throw new StatusError(
      "Conflict",
      `cannot delete ${nameOf(kind, key)}: its resourceVersion is "${row.version}", not "${options.resourceVersion}": read it again`,
    );
  }
  if (options.propagation === "Orphan") parts.collector.orphan(row.uid);
  removeNow(parts, kind, key);
}

function removeNow({ rows, collector }: Parts, kind: string, key: ObjectKey): void {
  const row = rows.find(kind, key);
  if (row !== undefined) collector.remove(row);
}

function findOrRefuse(rows: Rows, what: string, { kind, key }: { kind: string; key: ObjectKey }): Row {
  const row = rows.find(kind, key);
  if (row === undefined) throw new StatusError("NotFound", `cannot ${what} ${nameOf(kind, key)}: there is none`);
  return row;
}

/** What admission makes of a written object. Status is not the writer's to set, so admission does not see one. */
function admit({ admission }: Parts, written: Written, old: Row | undefined): Written {
  const { status: _ignored, ...object } = written;
  const kind = written.kind as KindName;
  const admitted = admission(kind, object, old === undefined ? undefined : typed<KindName>(parseEntity(old)));
  const { status: _made, ...rest } = admitted as Written;
  return rest as Written;
}
