import type { z } from "zod";
import type { Violation } from "./cel.ts";
import type { FieldCause } from "./errors.ts";
import { type Field, fieldAt } from "./fields.ts";
import { count, nearest, oneOf, quote, typeOf } from "./words.ts";

type Issue = z.core.$ZodIssue;
type Reason = FieldCause["reason"];
type Found = Pick<FieldCause, "message" | "reason">;

/** Removed items a message names. */
const REMOVED_MAX = 5;
/** Known fields a message lists; more would bury the rest. */
const LISTED_MAX = 20;

/** `spec.turns[1].prompt`. */
export function pathText(root: string, path: readonly PropertyKey[]): string {
  return path.reduce<string>(
    (text, step) => (typeof step === "number" ? `${text}[${step}]` : `${text}.${String(step)}`),
    root,
  );
}

/**
 * What zod found wrong, in our words: where, what stood there (unless it is private), and what to write instead.
 * `misspelt` holds the paths of the known fields that unknown ones were probably meant to be.
 */
export function issueCauses(
  root: Field,
  value: unknown,
  issues: readonly Issue[],
): { causes: FieldCause[]; misspelt: ReadonlySet<string> } {
  const causes = new Map<string, FieldCause>();
  const misspelt = new Set<string>();
  // Unknown fields first: a field that is missing only because it is misspelt is then not reported twice.
  for (const issue of issues) {
    if (issue.code !== "unrecognized_keys") continue;
    for (const key of issue.keys) {
      const { message, meant } = unknownField(fieldAt(root, issue.path).field, key, valueAt(value, issue.path));
      const field = pathText("spec", [...issue.path, quote(key).slice(1, -1)]);
      causes.set(field, { field, message, reason: "FieldValueInvalid" });
      if (meant !== undefined) misspelt.add(pathText("spec", [...issue.path, meant]));
    }
  }
  for (const issue of issues) {
    if (issue.code === "unrecognized_keys") continue;
    const field = pathText("spec", issue.path);
    const given = valueAt(value, issue.path);
    if (causes.has(field) || (given === undefined && misspelt.has(field))) continue;
    causes.set(field, { field, ...explain(root, issue, given) });
  }
  return { causes: [...causes.values()], misspelt };
}

/** What a rule forbids, with the value where it is a scalar that may be shown, or the names of the items that are gone. */
export function violationCause(
  root: Field,
  violation: Violation,
  { value, old }: { value: unknown; old: unknown },
): FieldCause {
  const { rule, path, first } = violation;
  if (rule === undefined) {
    const list = fieldAt(root, path.slice(0, -1)).field;
    const key = (list?.type === "list" ? list.keys[0] : undefined) ?? "";
    const where = pathText("spec", [...path.slice(0, -1), first ?? 0]);
    const message = `duplicate of ${where}: ${key} ${quote(valueAt(value, [...path, key]))} is used twice: each item needs its own ${key}`;
    return { field: pathText("spec", [...path, key]), message, reason: "FieldValueInvalid" };
  }
  const target = [...path, ...(rule.fieldPath?.split(".").slice(1) ?? [])];
  const got = shown(root, target, valueAt(value, target));
  const removed = removedItems(fieldAt(root, target).field, valueAt(value, target), valueAt(old, target));
  const detail = removed === "" ? got && ` (got ${got})` : ` (removed: ${removed})`;
  const message = `${rule.message}${detail}`;
  return { field: pathText("spec", target), message, reason: rule.reason ?? "FieldValueInvalid" };
}

/** The keys that an old list has and the new one has not. */
function removedItems(field: Field | undefined, value: unknown, old: unknown): string {
  if (field?.type !== "list" || !Array.isArray(old)) return "";
  const [key = ""] = field.keys;
  const kept = new Set(Array.isArray(value) ? value.map((item: unknown) => valueAt(item, [key])) : []);
  const removed = old.map((item: unknown) => valueAt(item, [key])).filter((name) => !kept.has(name));
  return [...removed.slice(0, REMOVED_MAX).map(quote), ...(removed.length > REMOVED_MAX ? ["…"] : [])].join(", ");
}

function unknownField(field: Field | undefined, key: string, given: unknown): { message: string; meant?: string } {
  const known = field?.type === "object" ? [...field.properties.keys()] : [];
  const absent = known.filter((name) => typeof given !== "object" || given === null || !(name in given));
  const meant = nearest(key, absent) ?? nearest(key, known);
  if (meant !== undefined) return { message: `unknown field: did you mean ${meant}?`, meant };
  const listed = known.length > LISTED_MAX ? [...known.slice(0, LISTED_MAX), "…"] : known;
  return { message: `unknown field: remove it; the known fields are ${listed.join(", ")}` };
}

function explain(root: Field, issue: Issue, given: unknown): Found {
  const { field, isPrivate } = fieldAt(root, issue.path);
  const got = shown(root, issue.path, given);
  if (given === undefined && issue.code !== "custom") {
    const what = field === undefined ? "a value" : wanted(field);
    return { message: `is missing: write ${what}`, reason: "FieldValueRequired" };
  }
  switch (issue.code) {
    case "invalid_type":
      return { message: wrongType(field, given, isPrivate), reason: "FieldValueInvalid" };
    case "invalid_value":
      return wrongValue(issue.values.map(String), given);
    case "too_big":
      return tooBig(field, given, Number(issue.maximum));
    case "too_small":
      return tooSmall(given, Number(issue.minimum));
    case "invalid_format": {
      const form = field?.facts.form ?? "in the form that the reference shows";
      return { message: `must be ${form}${got === "" ? "" : `, got ${got}`}`, reason: "FieldValueInvalid" };
    }
    default:
      return { message: "is not allowed here: see the reference of this kind", reason: "FieldValueInvalid" };
  }
}

function wrongType(field: Field | undefined, given: unknown, isPrivate: boolean): string {
  const want = field === undefined ? "another type" : wanted(field);
  if (given === null) return `must be ${want}, got null: write a value or remove the field`;
  const isScalar = typeof given !== "object";
  const isShown = isScalar && !isPrivate && field?.type !== "object" && field?.type !== "list";
  const got = isShown ? `the ${typeof given} ${quote(given)}` : typeOf(given);
  const remedy = isScalar && typeof given !== "string" && field?.type === "string" ? ": put it in quotes" : "";
  return `must be ${want}, got ${got}${remedy}`;
}

function wrongValue(values: readonly string[], given: unknown): Found {
  const allowed = oneOf(values.map((value) => JSON.stringify(value)));
  const meant = typeof given === "string" ? nearest(given, values) : undefined;
  const remedy = meant === undefined ? "" : `: did you mean ${meant}?`;
  return { message: `must be ${allowed}, got ${quote(given)}${remedy}`, reason: "FieldValueNotSupported" };
}

function tooBig(field: Field | undefined, given: unknown, maximum: number): Found {
  if (typeof given === "string") {
    const remedy = field?.facts.tooLong ?? "shorten it";
    const message = `has ${count(given.length)} characters, at most ${count(maximum)} are allowed: ${remedy}`;
    return { message, reason: "FieldValueTooLong" };
  }
  if (Array.isArray(given)) {
    const message = `has ${count(given.length)} items, at most ${count(maximum)} are allowed: remove some`;
    return { message, reason: "FieldValueTooLong" };
  }
  return { message: `must be at most ${maximum}, got ${quote(given)}`, reason: "FieldValueInvalid" };
}

function tooSmall(given: unknown, minimum: number): Found {
  const reason: Reason = "FieldValueInvalid";
  if (typeof given === "string") return { message: "is empty: write a value or remove the field", reason };
  if (Array.isArray(given)) return { message: `has ${given.length} items, at least ${minimum} are needed`, reason };
  return { message: `must be at least ${minimum}, got ${quote(given)}`, reason };
}

function wanted(field: Field): string {
  switch (field.type) {
    case "integer":
      return "a whole number";
    case "object":
      return `an object with ${[...field.properties.keys()].slice(0, LISTED_MAX).join(", ")}`;
    case "list":
      return "a list";
    case "boolean":
      return "true or false";
    default:
      return field.values === undefined ? "a string" : oneOf(field.values.map((value) => JSON.stringify(value)));
  }
}

/** A scalar that may be shown, quoted and shortened; otherwise the empty string. */
function shown(root: Field, path: readonly PropertyKey[], value: unknown): string {
  if (value === undefined || typeof value === "object" || fieldAt(root, path).isPrivate) return "";
  return quote(value);
}

function valueAt(value: unknown, path: readonly PropertyKey[]): unknown {
  let at = value;
  for (const step of path) {
    if (typeof at !== "object" || at === null || !Object.hasOwn(at, step)) return undefined;
    at = Reflect.get(at, step);
  }
  return at;
}
