import { deepEqual } from "./deep-equal.ts";
import { admitMetadata, isRecord } from "./admit-meta.ts";
import { admitSecret } from "./admit-secret.ts";
import { issueCauses, pathText, violationCause } from "./causes.ts";
import { compileRules, violations, type RuleTree, type Violation } from "./cel.ts";
import { type FieldCause, invalid } from "./errors.ts";
import { type Field, fieldOf } from "./fields.ts";
import { KINDS, type KindFacts, type KindMap, type KindName } from "./kinds.ts";
import { API_VERSION } from "./meta.ts";
import { count, nearest, quote, typeOf } from "./words.ts";

/** Causes that one refusal lists. */
const CAUSES_MAX = 20;

interface Compiled {
  facts: KindFacts;
  field: Field;
  rules: RuleTree | undefined;
}

/** Compiled once, when the program starts; a schema or rule that an API server could not run stops it here. */
const COMPILED: ReadonlyMap<KindName, Compiled> = new Map(
  KINDS.map((facts) => {
    const field = fieldOf(facts.spec);
    return [facts.kind, { facts, field, rules: compileRules(field) }];
  }),
);

/**
 * Decides whether an object may be stored: returns a copy with defaults filled in, or throws one Invalid StatusError that
 * lists every cause. Pure and idempotent. `old` is the stored object on an update. `status` is passed on unseen: its
 * writers own it.
 */
export function admit<K extends KindName>(kind: K, object: unknown, old: KindMap[K] | undefined): unknown {
  if (kind === "Secret") return admitSecret(object, old);
  const compiled = COMPILED.get(kind);
  if (compiled === undefined) return admitEvent(object);
  if (!isRecord(object)) {
    throw invalid(kind, [
      invalidField("", `must be an object with apiVersion, kind, metadata and spec, got ${typeOf(object)}`),
    ]);
  }

  const causes = typeCauses(object, { apiVersion: API_VERSION, kind });
  causes.push(...topLevelCauses(object, compiled.facts));
  const metadata = admitMetadata(object["metadata"], causes);
  const spec = admitSpec(compiled, object["spec"], specOf(old), causes);
  if (causes.length > 0) throw invalid(whatOf(kind, object), bounded(causes));

  const admitted: Record<string, unknown> = { apiVersion: API_VERSION, kind, metadata, spec };
  if (object["status"] !== undefined) admitted["status"] = object["status"];
  return admitted;
}

function admitSpec(compiled: Compiled, spec: unknown, old: unknown, causes: FieldCause[]): unknown {
  if (spec === undefined) {
    const known = compiled.field.type === "object" ? [...compiled.field.properties.keys()].join(", ") : "";
    causes.push({ field: "spec", message: `is missing: write spec with ${known}`, reason: "FieldValueRequired" });
    return undefined;
  }
  // What is stored was admitted once. Judging it again would let a stricter schema forbid the removal of a finalizer.
  if (old !== undefined && deepEqual(spec, old)) return structuredClone(spec);

  const parsed = compiled.facts.spec.safeParse(spec);
  const issues = parsed.error?.issues ?? [];
  const found = issueCauses(compiled.field, spec, issues);
  // Rules compare lists item by item with one another, so one beyond its bound would cost minutes.
  const isTooBig = issues.some((issue) => issue.code === "too_big" && issue.origin === "array");
  const rules = isTooBig || !isRecord(spec) ? undefined : compiled.rules;
  const value = parsed.success ? parsed.data : spec;
  causes.push(...found.causes);
  if (rules === undefined) return value;
  for (const violation of violations(rules, value, { old, isPartial: !parsed.success })) {
    if (isSaidAlready(violation, found)) continue;
    causes.push(violationCause(compiled.field, violation, { value, old }));
  }
  return value;
}

/** A rule that misses a field says nothing new where the field is there under a misspelt name. */
function isSaidAlready(violation: Violation, found: ReturnType<typeof issueCauses>): boolean {
  const place = pathText("spec", violation.path);
  if (violation.rule?.isTransition === false) {
    return [...found.misspelt].some((path) => path.slice(0, path.lastIndexOf(".")) === place);
  }
  return found.causes.some((cause) => cause.field === place);
}

/** Events come from the controller alone; these checks find its mistakes. */
function admitEvent(object: unknown): unknown {
  const causes: FieldCause[] = [];
  const event = isRecord(object) ? object : {};
  causes.push(...typeCauses(event, { apiVersion: "v1", kind: "Event" }));
  const metadata = admitMetadata(event["metadata"], causes);
  for (const field of ["reason", "message", "type"]) {
    if (typeof event[field] !== "string")
      causes.push(invalidField(field, `must be a string, got ${typeOf(event[field])}`));
  }
  if (!isRecord(event["involvedObject"])) causes.push(invalidField("involvedObject", "must be an object"));
  if (causes.length > 0) throw invalid(whatOf("Event", event), bounded(causes));
  return { ...event, metadata };
}

function typeCauses(object: Record<string, unknown>, want: { apiVersion: string; kind: string }): FieldCause[] {
  return (["apiVersion", "kind"] as const)
    .filter((field) => object[field] !== want[field])
    .map((field) =>
      object[field] === undefined
        ? { field, message: `is missing: write ${want[field]}`, reason: "FieldValueRequired" }
        : { field, message: `must be ${want[field]}, got ${quote(object[field])}`, reason: "FieldValueNotSupported" },
    );
}

function topLevelCauses(object: Record<string, unknown>, facts: KindFacts): FieldCause[] {
  const known = ["apiVersion", "kind", "metadata", "spec", ...(facts.status === undefined ? [] : ["status"])];
  return Object.keys(object)
    .filter((key) => !known.includes(key) && object[key] !== undefined)
    .map((key) => {
      const meant = nearest(key, known) ?? (belongsInSpec(key, facts) ? `spec.${key}` : undefined);
      const remedy =
        meant === undefined ? `remove it; the known fields are ${known.join(", ")}` : `did you mean ${meant}?`;
      return invalidField(quote(key).slice(1, -1), `unknown field: ${remedy}`);
    });
}

function belongsInSpec(key: string, facts: KindFacts): boolean {
  const field = COMPILED.get(facts.kind)?.field;
  return field?.type === "object" && field.properties.has(key);
}

function invalidField(field: string, message: string): FieldCause {
  return { field, message, reason: "FieldValueInvalid" };
}

/** In field order, as many as a person reads. */
function bounded(causes: readonly FieldCause[]): readonly FieldCause[] {
  const sorted = causes
    .map((one) => ({ one, key: orderOf(one) }))
    .sort((a, b) => Number(a.key > b.key) - Number(a.key < b.key))
    .map(({ one }) => one);
  if (sorted.length <= CAUSES_MAX) return sorted;
  const left = count(sorted.length - CAUSES_MAX);
  return [...sorted.slice(0, CAUSES_MAX), invalidField("", `and ${left} more: correct these first`)];
}

/** Item 10 comes after item 9. */
function orderOf(found: FieldCause): string {
  return found.field.replaceAll(/\d+/g, (digits) => digits.padStart(9, "0"));
}

function whatOf(kind: string, object: Record<string, unknown>): string {
  const name = isRecord(object["metadata"]) ? object["metadata"]["name"] : undefined;
  return typeof name === "string" ? `${kind} ${quote(name)}` : kind;
}

function specOf(object: unknown): unknown {
  return isRecord(object) ? object["spec"] : undefined;
}
