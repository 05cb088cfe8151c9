/** The API group and version of every kind this project defines. */
export const GROUP = "bot-bottle.dev";
export const API_VERSION = `${GROUP}/v1alpha1`;

/** Held on every Bottle from before its first backend call until nothing of it is left on the backend. */
export const FINALIZER = `${GROUP}/bottle`;

/** Annotations the controller and its sources read. Values are never secret. */
export const ANNOTATIONS = {
  /** The source that declares the object, e.g. `folder:/srv/bottles`; it deletes what it created and declares no more. */
  source: `${GROUP}/source`,
  /** Set on an object that was there before its source declared it: undeclared, it is let go and not deleted. */
  adopted: `${GROUP}/adopted`,
  /** The file below the source in which the object is declared. */
  sourcePath: `${GROUP}/source-path`,
  /** Why the newest declaration of this object was refused; cleared by the next accepted one. */
  rejectedUpdate: `${GROUP}/rejected-update`,
  /** Present while `bot-bottle import` fills the bottle's disk; the controller leaves the bottle alone until it is gone. */
  importing: `${GROUP}/importing`,
} as const;

export interface OwnerReference {
  apiVersion: string;
  kind: string;
  name: string;
  uid: string;
  controller?: boolean;
  blockOwnerDeletion?: boolean;
}

/** Kubernetes object metadata as a store returns it. `generation` counts spec changes only. Timestamps are RFC 3339, UTC. */
export interface ObjectMeta {
  name: string;
  namespace: string;
  uid: string;
  resourceVersion: string;
  generation: number;
  creationTimestamp: string;
  deletionTimestamp?: string;
  finalizers?: string[];
  ownerReferences?: OwnerReference[];
  labels?: Record<string, string>;
  annotations?: Record<string, string>;
}

/** What a person writes under `metadata`. The namespace is `default` where none is written. */
export type DraftMeta = Pick<ObjectMeta, "name"> &
  Partial<Pick<ObjectMeta, "namespace" | "labels" | "annotations" | "finalizers" | "ownerReferences" | "uid">>;

export interface Resource<Kind extends string, Spec, Status> {
  apiVersion: string;
  kind: Kind;
  metadata: ObjectMeta;
  spec: Spec;
  status?: Status;
}

/** Names one object of a kind that is already known. */
export interface ObjectKey {
  namespace: string;
  name: string;
}

export const DEFAULT_NAMESPACE = "default";

export function keyOf(object: { metadata: ObjectKey }): ObjectKey {
  return { namespace: object.metadata.namespace, name: object.metadata.name };
}

/** `namespace/name`, the form used as a map key and in log fields. */
export function keyText(key: ObjectKey): string {
  return `${key.namespace}/${key.name}`;
}

export function parseKeyText(text: string): ObjectKey {
  const slash = text.indexOf("/");
  return { namespace: text.slice(0, slash), name: text.slice(slash + 1) };
}
