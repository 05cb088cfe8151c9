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
  /** The field below `self` that is to be changed, e.g. `.name`; absent: the field itself. API servers before 1.28 ignore it. */
  fieldPath?: string;
}

/** What a CRD needs to know about a field and zod cannot say. */
export interface FieldFacts {
  rules?: readonly CelRule[];
  list?: { type: "map"; keys: readonly string[] } | { type: "atomic" } | { type: "set" };
  /** What a valid value looks like, in words that end "must be ..."; said where the pattern refuses a value. */
  form?: string;
  /** What to do with a value that is too long. */
  tooLong?: string;
  /** The value may hold a secret or a prompt: messages never show it. */
  isPrivate?: true;
}

/** Facts by schema, filled by the three functions below; read by the CRD generator and by admission. */
export const fieldFacts = z.registry<FieldFacts>();

/** Attaches CEL rules to a schema. The returned schema is the one to use. */
export function withRules<S extends z.ZodType>(schema: S, ...rules: CelRule[]): S {
  const known = fieldFacts.get(schema);
  fieldFacts.add(schema, { ...known, rules: [...(known?.rules ?? []), ...rules] });
  return schema;
}

/** Attaches words for messages to a schema. The returned schema is the one to use. */
export function withWords<S extends z.ZodType>(
  schema: S,
  words: Pick<FieldFacts, "form" | "tooLong" | "isPrivate">,
): S {
  fieldFacts.add(schema, { ...fieldFacts.get(schema), ...words });
  return schema;
}

/**
 * A string of at most `length` characters. A longer one is not matched against any pattern: matching megabytes is what an
 * attacker would want.
 */
export function boundedString(length: number) {
  return z.string().max(length, { abort: true });
}

/** No NUL: arguments, variables and file names of a process end at the first one. */
// oxlint-disable-next-line no-control-regex -- NUL is what this pattern is about
const WITHOUT_NUL = /^[^\x00]*$/;

/** Text that may hold a secret or a prompt and is handed to a process. */
export function privateText(length: number) {
  const schema = boundedString(length).regex(WITHOUT_NUL);
  return withWords(schema, { isPrivate: true, form: "text without NUL characters" });
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
export const dnsLabel = withWords(
  boundedString(63)
    .min(1)
    .regex(/^[a-z0-9]([-a-z0-9]*[a-z0-9])?$/),
  { form: "lower-case letters, digits and '-', starting and ending with a letter or digit" },
);

/** A reference to an object of a known kind in the same namespace. */
export const nameRef = z.strictObject({ name: dnsLabel });

/** Zero would mean "no limit" to container engines. */
const NOT_ZERO: CelRule = {
  rule: "self.matches('[1-9]')",
  message: "must be more than zero: write a limit, or remove the field for none",
};

/** Kubernetes quantities as far as this API needs them: cores (`2`, `500m`). */
export const cpuQuantity = withRules(
  withWords(boundedString(16).regex(/^([0-9]{1,4}(\.[0-9]{1,3})?|[0-9]{1,7}m)$/), {
    form: "a number of cores such as 2, 0.5 or 500m",
  }),
  NOT_ZERO,
);

/**
 * Bytes with an optional binary or decimal suffix (`4Gi`, `512Mi`, `1G`). The digits are bounded so that the bytes are an
 * exact JavaScript number, and from below, because `memory: 512` was meant as megabytes by everybody who ever wrote it.
 */
export const memoryQuantity = withRules(
  withWords(
    boundedString(24).regex(/^([0-9]{7,15}|[0-9]{4,12}(Ki|k)|[0-9]{1,9}(Mi|M)|[0-9]{1,6}(Gi|G)|[0-9]{1,3}(Ti|T))$/),
    { form: "bytes with a suffix such as 512Mi or 4Gi, at least 1M" },
  ),
  NOT_ZERO,
);
