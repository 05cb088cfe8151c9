/* oxlint-disable no-underscore-dangle -- `_zod` is the name under which zod offers its schemas to libraries. */
import { z } from "zod";
import { fieldFacts, type FieldFacts } from "./schema.ts";

/**
 * A schema as the CRD generator, the rules and the messages see it: without zod's wrappers, and only with what a CRD can say.
 * What a CRD cannot say (unions, records, refinements, transformations) is refused here, when the program starts, because a
 * cluster would not enforce it.
 */
export type Field = { facts: FieldFacts } & (
  | { type: "object"; properties: ReadonlyMap<string, Property> }
  | { type: "list"; item: Field; keys: readonly string[] }
  | { type: "string"; values?: readonly string[] }
  | { type: "integer" }
  | { type: "boolean" }
);

export interface Property {
  field: Field;
  required: boolean;
}

export function fieldOf(schema: z.core.$ZodType, path = "spec"): Field {
  const { inner } = unwrap(schema);
  const facts = fieldFacts.get(inner) ?? {};
  refuseUnsayable(inner, path);
  if (inner instanceof z.ZodObject) {
    const properties = new Map<string, Property>();
    for (const [name, member] of Object.entries<z.core.$ZodType>(inner.shape)) {
      properties.set(name, { field: fieldOf(member, `${path}.${name}`), required: unwrap(member).required });
    }
    return { facts, type: "object", properties };
  }
  if (inner instanceof z.ZodArray) {
    if (facts.list === undefined) throw new Error(`schema ${path}: use mapList or atomicList`);
    const keys = facts.list.type === "map" ? facts.list.keys : [];
    return { facts, type: "list", item: fieldOf(inner.element, `${path}[]`), keys };
  }
  if (inner instanceof z.ZodEnum) return { facts, type: "string", values: inner.options.map(String) };
  if (inner instanceof z.ZodString || inner instanceof z.ZodStringFormat) return { facts, type: "string" };
  if (inner instanceof z.ZodNumberFormat) return { facts, type: "integer" };
  if (inner instanceof z.ZodBoolean) return { facts, type: "boolean" };
  throw new Error(`schema ${path}: a CRD cannot say ${inner._zod.def.type}`);
}

/** Looks through `.optional()` and `.default()`, which wrap and so hide what was said about the schema within. */
export function unwrap(schema: z.core.$ZodType): { inner: z.core.$ZodType; required: boolean } {
  let inner = schema;
  let required = true;
  while (inner instanceof z.ZodOptional || inner instanceof z.ZodDefault) {
    inner = inner.def.innerType;
    required = false;
  }
  return { inner, required };
}

/** The field at a path and whether anything on the way is private. */
export function fieldAt(root: Field, path: readonly PropertyKey[]): { field?: Field; isPrivate: boolean } {
  let field: Field | undefined = root;
  let isPrivate = root.facts.isPrivate === true;
  for (const step of path) {
    if (field?.type === "object") field = field.properties.get(String(step))?.field;
    else field = field?.type === "list" ? field.item : undefined;
    isPrivate ||= field?.facts.isPrivate === true;
  }
  return { field, isPrivate };
}

/** `.refine`, `.transform` and the like run here but not in an API server. */
function refuseUnsayable(schema: z.core.$ZodType, path: string): void {
  for (const check of schema._zod.def.checks ?? []) {
    const name = check._zod.def.check;
    if (name === "custom" || name === "overwrite") {
      throw new Error(`schema ${path}: a ${name} check is unknown to an API server: write a CEL rule (withRules)`);
    }
  }
}
