import type { ObjectMeta } from "../../api/meta.ts";
import { isKeptHere, parseEntity, serialise, timestamp, type Entity } from "./entity.ts";
import type { Row, Rows } from "./rows.ts";

/** Garbage collection by ownerReferences. All of it happens inside the transaction that made it necessary. */
export interface Collector {
  /**
   * Deletes one object by the rules: with finalizers it is marked once, else it is removed and so is everything that it alone owned.
   * A worklist instead of recursion, and a removed row is never found again, so chains of any length and cycles end.
   */
  remove(row: Row): void;
  /** What follows when an object was removed. */
  removeDependents(uid: string): void;
  /** Makes the dependents independent of this owner. */
  orphan(uid: string): void;
  /** True if it names owners and none of them is left. */
  isAbandoned(entity: Entity): boolean;
}

export function openCollector(rows: Rows, now: () => number): Collector {
  /** True if the object is gone now. */
  function removeOne(row: Row): boolean {
    const entity = parseEntity(row);
    if ((entity.metadata.finalizers ?? []).length === 0) {
      rows.remove(row, row);
      return true;
    }
    if (entity.metadata.deletionTimestamp === undefined) {
      entity.metadata.deletionTimestamp = timestamp(now());
      rows.replace(row, { entity, body: serialise(entity), generation: row.generation });
    }
    return false;
  }
  function isAlive(owner: { apiVersion: string; kind: string; uid: string }, namespace: string): boolean {
    if (!isKeptHere(owner)) return true;
    const found = rows.findUid(owner.uid);
    return found !== undefined && found.kind === owner.kind && found.namespace === namespace;
  }
  function isAbandoned({ metadata }: Entity): boolean {
    const owners = metadata.ownerReferences ?? [];
    return owners.length > 0 && !owners.some((owner) => isAlive(owner, metadata.namespace));
  }
  function removeDependents(uid: string): void {
    const gone = [uid];
    for (let owner = gone.pop(); owner !== undefined; owner = gone.pop()) {
      for (const found of rows.dependents(owner)) {
        const row = rows.findUid(found.uid);
        if (row === undefined) continue;
        if (!isAbandoned(parseEntity(row))) dropOwner(rows, row, owner);
        else if (removeOne(row)) gone.push(row.uid);
      }
    }
  }
  return {
    remove: (row) => {
      if (removeOne(row)) removeDependents(row.uid);
    },
    removeDependents,
    orphan: (uid) => {
      for (const row of rows.dependents(uid)) dropOwner(rows, row, uid);
    },
    isAbandoned,
  };
}

function dropOwner(rows: Rows, row: Row, uid: string): void {
  const entity = parseEntity(row);
  const left = (entity.metadata.ownerReferences ?? []).filter((owner) => owner.uid !== uid);
  const { ownerReferences: _all, ...rest } = entity.metadata;
  const metadata: ObjectMeta = left.length > 0 ? { ...rest, ownerReferences: left } : rest;
  const next = { ...entity, metadata };
  rows.replace(row, { entity: next, body: serialise(next), generation: row.generation });
}
