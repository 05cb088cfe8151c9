import type { FieldCause } from "./errors.ts";
import { DEFAULT_NAMESPACE } from "./meta.ts";
import { dnsLabel } from "./schema.ts";
import { count, nearest, quote, typeOf } from "./words.ts";

/** Bytes of all annotations of one object, as in Kubernetes. */
const ANNOTATIONS_BYTES_MAX = 256 * 1024;
const ENTRIES_MAX = 256;
const NAME = /^[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$/;
const PREFIX = /^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$/;

/** What a person or the store writes under `metadata`. */
const KNOWN = [
  "name",
  "namespace",
  "labels",
  "annotations",
  "finalizers",
  "ownerReferences",
  "uid",
  "resourceVersion",
  "generation",
  "creationTimestamp",
  "deletionTimestamp",
] as const;
/** Written by kubectl and API servers, without a meaning here. */
const DROPPED = ["managedFields", "selfLink", "deletionGracePeriodSeconds"] as const;

type Report = (field: string, message: string, reason?: FieldCause["reason"]) => void;

/** Checks `metadata`, fills in the namespace, and drops what only an API server uses. */
export function admitMetadata(value: unknown, causes: FieldCause[]): Record<string, unknown> {
  const report: Report = (field, message, reason = "FieldValueInvalid") =>
    causes.push({ field: field === "" ? "metadata" : `metadata.${field}`, message, reason });
  if (!isRecord(value)) {
    if (value === undefined) report("name", "is missing: write a name, e.g. my-bottle", "FieldValueRequired");
    else report("", `must be an object with a name, got ${typeOf(value)}`);
    return {};
  }
  const metadata = Object.fromEntries(
    Object.entries(value).filter(([key, member]) => member !== undefined && member !== null && !isDropped(key)),
  );
  for (const key of Object.keys(metadata)) {
    if ((KNOWN as readonly string[]).includes(key)) continue;
    const meant = nearest(key, KNOWN);
    report(
      quote(key).slice(1, -1),
      meant === undefined ? `unknown field: remove it` : `unknown field: did you mean ${meant}?`,
    );
  }
  checkName(metadata["name"], report);
  metadata["namespace"] ??= DEFAULT_NAMESPACE;
  checkLabel("namespace", metadata["namespace"], report);
  checkMap("labels", metadata["labels"], report);
  checkMap("annotations", metadata["annotations"], report);
  checkFinalizers(metadata["finalizers"], report);
  checkOwners(metadata["ownerReferences"], report);
  return metadata;
}

function isDropped(key: string): boolean {
  return (DROPPED as readonly string[]).includes(key);
}

function checkName(name: unknown, report: Report): void {
  if (name === undefined) report("name", "is missing: write a name, e.g. my-bottle", "FieldValueRequired");
  else checkLabel("name", name, report);
}

function checkLabel(field: string, value: unknown, report: Report): void {
  if (typeof value !== "string") {
    report(field, `must be a string, got ${quote(value)}: put it in quotes`);
  } else if (value.length > 63) {
    report(field, `has ${count(value.length)} characters, at most 63 are allowed: shorten it`, "FieldValueTooLong");
  } else if (!dnsLabel.safeParse(value).success) {
    const form = "lower-case letters, digits and '-', starting and ending with a letter or digit";
    report(field, `must be ${form}, got ${quote(value)}`);
  }
}

/** Values of annotations are not shown: tools keep whole objects there. */
function checkMap(field: "labels" | "annotations", value: unknown, report: Report): void {
  if (value === undefined) return;
  if (!isRecord(value)) {
    report(field, `must be an object of strings, got ${typeOf(value)}`);
    return;
  }
  const entries = Object.entries(value);
  if (entries.length > ENTRIES_MAX) {
    report(
      field,
      `has ${count(entries.length)} entries, at most ${ENTRIES_MAX} are allowed: remove some`,
      "FieldValueTooLong",
    );
    return;
  }
  let bytes = 0;
  for (const [key, text] of entries) {
    if (!isQualifiedName(key)) {
      report(
        field,
        `the key ${quote(key)} must be a name of letters, digits, '-', '_' and '.', at most 63, with an optional prefix as in example.com/name`,
      );
    } else if (typeof text !== "string") {
      report(field, `the value of ${quote(key)} must be a string, got ${typeOf(text)}: put it in quotes`);
    } else if (field === "labels" && text !== "" && !NAME.test(text)) {
      report(
        field,
        `the value of ${quote(key)} must be at most 63 letters, digits, '-', '_' and '.', got ${quote(text)}`,
      );
    } else {
      bytes += key.length + new TextEncoder().encode(text).length;
    }
  }
  if (field === "annotations" && bytes > ANNOTATIONS_BYTES_MAX) {
    report(
      field,
      `have ${count(bytes)} bytes, at most ${count(ANNOTATIONS_BYTES_MAX)} are allowed: shorten them`,
      "FieldValueTooLong",
    );
  }
}

function checkFinalizers(value: unknown, report: Report): void {
  if (value === undefined) return;
  const isList = Array.isArray(value) && value.length <= ENTRIES_MAX;
  if (!isList || !value.every((item) => typeof item === "string" && isQualifiedName(item))) {
    report("finalizers", "must be a list of names as in example.com/name");
  }
}

function checkOwners(value: unknown, report: Report): void {
  if (value === undefined) return;
  const fields = ["apiVersion", "kind", "name", "uid"];
  const isOwner = (item: unknown) => isRecord(item) && fields.every((field) => typeof item[field] === "string");
  if (!Array.isArray(value) || value.length > ENTRIES_MAX || !value.every(isOwner)) {
    report("ownerReferences", "must be a list of objects with apiVersion, kind, name and uid");
  }
}

function isQualifiedName(text: string): boolean {
  const slash = text.indexOf("/");
  return NAME.test(text.slice(slash + 1)) && (slash < 0 || PREFIX.test(text.slice(0, slash)));
}

export function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
