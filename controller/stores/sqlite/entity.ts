import { invalid, type FieldCause } from "../../api/errors.ts";
import { apiVersionOf, DECLARED_KINDS, KINDS } from "../../api/kinds.ts";
import { DEFAULT_NAMESPACE, keyText, type DraftMeta, type ObjectKey, type ObjectMeta } from "../../api/meta.ts";
import { dnsLabel } from "../../api/schema.ts";

/** An object of any kind, as far as a store looks into it. */
export interface Entity {
  apiVersion: string;
  kind: string;
  metadata: ObjectMeta;
  [field: string]: unknown;
}

/** An object as somebody wrote it: only a name is certain in its metadata. */
export interface Written {
  apiVersion: string;
  kind: string;
  metadata: Pick<ObjectMeta, "name"> & Partial<ObjectMeta>;
  [field: string]: unknown;
}

/** Bytes of one stored object. etcd refuses requests above this size, so a bottle that fits here fits into a cluster. */
const OBJECT_BYTES_MAX = 1_572_864;
/** Characters of a refused value that a message repeats. */
const QUOTE_LENGTH_MAX = 80;

/** `Bottle "default/fix-login"`, as messages name an object. */
export function nameOf(kind: string, key: ObjectKey): string {
  return `${kind} "${keyText(key)}"`;
}

/** A fresh object from what is kept; see migrate.ts for why version and generation stand apart. */
export function parseEntity(kept: { version: number; generation: number; body: string }): Entity {
  const entity: Entity = JSON.parse(kept.body);
  entity.metadata.resourceVersion = String(kept.version);
  entity.metadata.generation = kept.generation;
  return entity;
}

/** A moment as object metadata has it: RFC 3339 in whole seconds, as a Kubernetes API server writes it. */
export function timestamp(ms: number): string {
  return `${new Date(ms).toISOString().slice(0, 19)}Z`;
}

/** Refuses names that could not be part of a DNS name, a label or a container's name. */
export function checkNames(kind: string, metadata: ObjectKey & { uid?: string }): void {
  const fields = { name: metadata.name, namespace: metadata.namespace, uid: metadata.uid ?? "unset" };
  const causes = Object.entries(fields)
    .filter(([, value]) => !dnsLabel.safeParse(value).success)
    .map(([field, value]): FieldCause => {
      const quoted = JSON.stringify(String(value).slice(0, QUOTE_LENGTH_MAX));
      const rule = "use 1 to 63 of a-z, 0-9 and -, with a letter or digit at both ends";
      return { field: `metadata.${field}`, reason: "FieldValueInvalid", message: `${quoted} is not a label: ${rule}` };
    });
  if (causes.length > 0)
    throw invalid(`${kind} ${JSON.stringify(String(metadata.name).slice(0, QUOTE_LENGTH_MAX))}`, causes);
}

/** What a draft says about itself, without anything that only the store may set, and without empty collections: absent and empty are the same. */
export function draftMetadata(written: DraftMeta): DraftMeta & ObjectKey {
  const { name, namespace, uid } = written;
  return {
    name,
    namespace: namespace === undefined || namespace === "" ? DEFAULT_NAMESPACE : namespace,
    ...(uid === undefined || uid === "" ? {} : { uid }),
    ...writableMetadata(written),
  };
}

/** The part of metadata that a writer may change. */
export function writableMetadata(
  written: Partial<ObjectMeta>,
): Pick<ObjectMeta, "finalizers" | "ownerReferences" | "labels" | "annotations"> {
  const { finalizers = [], ownerReferences = [], labels = {}, annotations = {} } = written;
  return {
    ...(finalizers.length > 0 ? { finalizers } : {}),
    ...(ownerReferences.length > 0 ? { ownerReferences } : {}),
    ...(Object.keys(labels).length > 0 ? { labels } : {}),
    ...(Object.keys(annotations).length > 0 ? { annotations } : {}),
  };
}

/** The text to keep. The order of fields is the writer's, so the same write gives the same text. */
export function serialise(entity: Entity): string {
  const { resourceVersion: _version, generation: _generation, ...metadata } = entity.metadata;
  const body = JSON.stringify({ ...entity, metadata });
  const bytes = Buffer.byteLength(body);
  if (bytes > OBJECT_BYTES_MAX) {
    throw invalid(nameOf(entity.kind, entity.metadata), [
      {
        field: "",
        reason: "FieldValueTooLong",
        message: `it has ${bytes} bytes of at most ${OBJECT_BYTES_MAX}: shorten it, or go on in a new object`,
      },
    ]);
  }
  return body;
}

/** The uids of the owners. */
export function ownersOf(entity: Entity): string[] {
  return (entity.metadata.ownerReferences ?? []).map((owner) => owner.uid);
}

/** True if this store would hold an object of that kind: only then does its absence mean that it is gone. */
export function isKeptHere(reference: { apiVersion: string; kind: string }): boolean {
  const isDeclared = DECLARED_KINDS.some((each) => each.kind === reference.kind);
  return isDeclared && groupOf(reference.apiVersion) === groupOf(apiVersionOf(reference.kind));
}

/** Empty for core kinds, whose apiVersion is only a version. */
function groupOf(apiVersion: string): string {
  return apiVersion.includes("/") ? apiVersion.slice(0, apiVersion.indexOf("/")) : "";
}

/** True for kinds with a status of their own. */
export function hasStatus(kind: string): boolean {
  return KINDS.some((facts) => facts.kind === kind && facts.status !== undefined);
}
