import { invalid, StatusError, type FieldCause } from "../../api/errors.ts";
import type { ObjectMeta } from "../../api/meta.ts";
import { nameOf, writableMetadata, type Entity, type Written } from "./entity.ts";

/** Refuses a write that was made from an older version, or from another object of that name. */
export function checkCurrent(written: Written, old: Entity): void {
  const { uid, resourceVersion } = written.metadata;
  const name = nameOf(old.kind, old.metadata);
  if (uid !== undefined && uid !== "" && uid !== old.metadata.uid) {
    throw new StatusError(
      "Conflict",
      `cannot update ${name}: it is another object by now (uid "${old.metadata.uid}"): read it again and repeat the change`,
    );
  }
  if (resourceVersion !== old.metadata.resourceVersion) {
    throw new StatusError(
      "Conflict",
      `cannot update ${name}: it was changed since it was read (its resourceVersion is "${old.metadata.resourceVersion}"): ` +
        "read it again and repeat the change",
    );
  }
}

/** Refuses changes of what only the store sets, and finalizers that come too late. Leaving such a field out changes nothing. */
export function checkMetadata(written: Written, old: Entity): void {
  const causes: FieldCause[] = [];
  for (const field of ["creationTimestamp", "deletionTimestamp"] as const) {
    const value = written.metadata[field];
    if (value === undefined || value === null || value === old.metadata[field]) continue;
    causes.push({
      field: `metadata.${field}`,
      reason: "FieldValueForbidden",
      message: "is set by the store alone: leave it out or as it was read",
    });
  }
  const known = old.metadata.finalizers ?? [];
  const added = (written.metadata.finalizers ?? []).filter((finalizer) => !known.includes(finalizer));
  if (old.metadata.deletionTimestamp !== undefined && added.length > 0) {
    causes.push({
      field: "metadata.finalizers",
      reason: "FieldValueForbidden",
      message: `${added.map((finalizer) => JSON.stringify(finalizer)).join(", ")} cannot be added while the object is being deleted: only remove finalizers`,
    });
  }
  if (causes.length > 0) throw invalid(nameOf(old.kind, old.metadata), causes);
}

/** The metadata of the next version: what the writer may change from `written`, the rest from `old`. */
export function nextMetadata(written: Partial<ObjectMeta>, old: ObjectMeta): ObjectMeta {
  const { finalizers: _f, ownerReferences: _o, labels: _l, annotations: _a, ...fixed } = old;
  return { ...fixed, ...writableMetadata(written) };
}
