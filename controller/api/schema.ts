import { z } from "zod";

/**
 * A CEL rule of a CRD field (`x-kubernetes-validations`). The same text runs in every mode: a cluster's API server reads it
 * from the CRD, the standalone store evaluates it at admission. `self` is the field's value; a rule that names `oldSelf`
 * runs only on updates.
 */
export interface CelRule {
  rule: string;
  /** One line: what is wrong and what to write instead. */
  message: string;
  reason?: "FieldValueInvalid" | "FieldValueForbidden" | "FieldValueRequired";
}

/** What a CRD needs to know about a field and zod cannot say. */
export interface FieldFacts {
  rules?: readonly CelRule[];
  list?: { type: "map"; keys: readonly string[] } | { type: "atomic" } | { type: "set" };
}

/** Facts by schema, filled by the three functions below; read by the CRD generator and by admission. */
export const fieldFacts = z.registry<FieldFacts>();

/** Attaches CEL rules to a schema. The returned schema is the one to use. */
export function withRules<S extends z.ZodType>(schema: S, ...rules: CelRule[]): S {
  const known = fieldFacts.get(schema);
  fieldFacts.add(schema, { ...known, rules: [...(known?.rules ?? []), ...rules] });
  return schema;
}

/** A list whose items are told apart by `keys` (server-side apply merges it item by item; rules on items see `oldSelf`). */
export function mapList<S extends z.ZodType>(item: S, keys: readonly string[], maxItems: number) {
  return z
    .array(item)
    .max(maxItems)
    .register(fieldFacts, { list: { type: "map", keys } });
}

/** A list that is replaced as a whole. */
export function atomicList<S extends z.ZodType>(item: S, maxItems: number) {
  return z
    .array(item)
    .max(maxItems)
    .register(fieldFacts, { list: { type: "atomic" } });
}

/** An RFC 1123 label: names of objects and references, ids of turns. At most 63 characters. */
export const dnsLabel = z
  .string()
  .min(1)
  .max(63)
  .regex(/^[a-z0-9]([-a-z0-9]*[a-z0-9])?$/);

/** A reference to an object of a known kind in the same namespace. */
export const nameRef = z.strictObject({ name: dnsLabel });

/** Kubernetes quantities as far as this API needs them: cores (`2`, `500m`). */
export const cpuQuantity = z
  .string()
  .max(16)
  .regex(/^([0-9]{1,4}(\.[0-9]{1,3})?|[0-9]{1,7}m)$/);

/** Bytes with an optional binary or decimal suffix (`4Gi`, `512Mi`, `1G`). */
export const memoryQuantity = z
  .string()
  .max(24)
  .regex(/^[0-9]{1,18}(Ki|Mi|Gi|Ti|k|M|G|T)?$/);
