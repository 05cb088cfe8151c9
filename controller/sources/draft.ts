import { invalid, type FieldCause } from "../api/errors.ts";
import type { Manifest } from "../api/manifest.ts";
import { nearest, oneOf, quote, typeOf } from "../api/words.ts";
import type { DeclaredDraft } from "./apply.ts";

const TOP_FIELDS = ["apiVersion", "kind", "metadata", "spec"] as const;
/** Its fields stand beside its metadata. */
const SECRET_FIELDS = ["apiVersion", "kind", "metadata", "type", "immutable", "data", "stringData"] as const;
const META_FIELDS = ["name", "namespace", "labels", "annotations"] as const;
/** What a server fills in: accepted, because people apply what `get -o yaml` printed, and ignored. */
const SERVER_FIELDS: readonly string[] = [
  "status",
  "uid",
  "resourceVersion",
  "generation",
  "creationTimestamp",
  "deletionTimestamp",
  "deletionGracePeriodSeconds",
  "finalizers",
  "managedFields",
  "ownerReferences",
  "selfLink",
];

/**
 * What a manifest asks for, without what only a store may say. Its metadata is checked here, because a merge over the stored object
 * would hide a fault in it from admission; the rest is checked by admission.
 */
export function draftOf(manifest: Manifest): DeclaredDraft {
  const { apiVersion, kind, metadata, spec } = manifest;
  const isSecret = kind === "Secret";
  const written: Record<string, unknown> = { ...metadata };
  const causes = [
    ...unknownFields(Object.keys(manifest), isSecret ? SECRET_FIELDS : TOP_FIELDS, ""),
    ...unknownFields(Object.keys(written), META_FIELDS, "metadata."),
    ...namespaceCauses(written["namespace"]),
    ...textMapCauses("metadata.labels", written["labels"]),
    ...textMapCauses("metadata.annotations", written["annotations"]),
  ];
  if (!isSecret && !isRecord(spec)) {
    const message = spec === undefined ? "is missing: write it" : `must be an object, got ${typeOf(spec)}`;
    causes.push({ field: "spec", message, reason: spec === undefined ? "FieldValueRequired" : "FieldValueInvalid" });
  }
  if (causes.length > 0) throw invalid(`${kind} ${quote(metadata.name)}`, causes);
  const kept = Object.entries(written).filter(([field]) => META_FIELDS.some((known) => known === field));
  // Admission checks the content against the kind's schema before anything is stored.
  if (isSecret) {
    const content = SECRET_FIELDS.flatMap((field) => (manifest[field] === undefined ? [] : [[field, manifest[field]]]));
    return { ...Object.fromEntries(content), metadata: Object.fromEntries(kept) } as DeclaredDraft;
  }
  return { apiVersion, kind, metadata: Object.fromEntries(kept), spec } as unknown as DeclaredDraft;
}

function unknownFields(fields: readonly string[], known: readonly string[], prefix: string): FieldCause[] {
  return fields
    .filter((field) => !known.includes(field) && !SERVER_FIELDS.includes(field))
    .map((field) => {
      const meant = nearest(field, known);
      const hint = meant === undefined ? `write ${oneOf(known)}` : `did you mean "${meant}"?`;
      return { field: `${prefix}${field}`, message: `unknown field: ${hint}`, reason: "FieldValueForbidden" };
    });
}

function namespaceCauses(namespace: unknown): FieldCause[] {
  if (namespace === undefined) return [];
  if (typeof namespace === "string" && /^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$/.test(namespace)) return [];
  const message = `must be small letters, digits and "-", at most 63, got ${quote(namespace)}: correct it or leave it out`;
  return [{ field: "metadata.namespace", message, reason: "FieldValueInvalid" }];
}

function textMapCauses(field: string, value: unknown): FieldCause[] {
  if (value === undefined || value === null) return [];
  if (!isRecord(value)) {
    return [{ field, message: `must be an object, got ${typeOf(value)}`, reason: "FieldValueInvalid" }];
  }
  return Object.entries(value)
    .filter(([, text]) => typeof text !== "string")
    .map(([name, text]) => {
      const message = `must be a string, got ${quote(text)}: put it in quotes`;
      return { field: `${field}.${name}`, message, reason: "FieldValueInvalid" };
    });
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
