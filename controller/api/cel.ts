import { celEnv, type CelInput, isCelError, parse, plan } from "@bufbuild/cel";
import { strings } from "@bufbuild/cel/ext";
import type { Field } from "./fields.ts";
import type { CelRule } from "./schema.ts";

export interface CompiledRule extends CelRule {
  /** Names `oldSelf`, so it is asked only where there is an old value. */
  isTransition: boolean;
  /** `undefined`: the rule cannot be asked of this value, e.g. because a field it reads is missing. */
  holds(self: CelInput, oldSelf: CelInput | undefined): boolean | undefined;
}

/** The rules of a schema and of what lies below it; parts without rules are left out. */
export interface RuleTree {
  rules: readonly CompiledRule[];
  properties: ReadonlyMap<string, RuleTree>;
  items?: { keys: readonly string[]; tree: RuleTree };
}

export interface Violation {
  path: (string | number)[];
  /** Absent: the list has two items with the same keys. */
  rule?: CompiledRule;
  /** Of a repeated item: the first one with the same keys. */
  first?: number;
}

/**
 * An API server's `matches` is RE2. RegExp differs from it only in what the rules do not use (look-around, back-references),
 * V8 keeps its compiled form, and compiling RE2 in JavaScript on every call costs some hundred times as much.
 */
const ENV = celEnv({ funcs: strings, re2: { compile: (pattern) => new RegExp(pattern, "u") } });

/** Parses every rule once. Throws on a rule that does not parse, at start-up. */
export function compileRules(field: Field): RuleTree | undefined {
  const rules = (field.facts.rules ?? []).map(compileRule);
  const properties = new Map<string, RuleTree>();
  if (field.type === "object") {
    for (const [name, property] of field.properties) {
      const tree = compileRules(property.field);
      if (tree !== undefined) properties.set(name, tree);
    }
  }
  const below = field.type === "list" ? compileRules(field.item) : undefined;
  const keys = field.type === "list" ? field.keys : [];
  if (rules.length === 0 && properties.size === 0 && below === undefined && keys.length === 0) return undefined;
  const items = field.type === "list" ? { keys, tree: below ?? { rules: [], properties: new Map() } } : undefined;
  return { rules, properties, items };
}

/**
 * Everything of `value` that a rule forbids, in the order of the schema. `old` is the stored value on an update.
 * A rule that cannot be asked of a well-formed value forbids it, as in an API server; of a value that is known to be
 * ill-formed (`isPartial`) it says nothing, because what is wrong is reported already.
 */
export function violations(tree: RuleTree, value: unknown, options: { old: unknown; isPartial: boolean }): Violation[] {
  const found: Violation[] = [];
  const old = options.old === undefined ? undefined : toCel(options.old);
  visit(tree, { value: toCel(value), old, path: [], isPartial: options.isPartial }, found);
  return found;
}

function compileRule(rule: CelRule): CompiledRule {
  const evaluate = plan(ENV, parse(rule.rule));
  return {
    ...rule,
    isTransition: /\boldSelf\b/.test(rule.rule),
    holds(self, oldSelf) {
      const result = evaluate(oldSelf === undefined ? { self } : { self, oldSelf });
      return isCelError(result) || typeof result !== "boolean" ? undefined : result;
    },
  };
}

interface Place {
  value: CelInput;
  old: CelInput | undefined;
  path: (string | number)[];
  isPartial: boolean;
}

function visit(tree: RuleTree, place: Place, found: Violation[]): void {
  for (const rule of tree.rules) {
    if (rule.isTransition && place.old === undefined) continue;
    const holds = rule.holds(place.value, place.old) ?? place.isPartial;
    if (!holds) found.push({ path: place.path, rule });
  }
  if (place.value instanceof Map) {
    const old = place.old instanceof Map ? place.old : undefined;
    for (const [name, below] of tree.properties) {
      const value = place.value.get(name);
      if (value !== undefined)
        visit(below, { ...place, value, old: old?.get(name), path: [...place.path, name] }, found);
    }
  }
  if (tree.items !== undefined && Array.isArray(place.value)) visitItems(tree.items, place, found);
}

/** Items of a list-map meet the old item with the same keys; items of other lists have no old value, as in an API server. */
function visitItems(items: NonNullable<RuleTree["items"]>, place: Place, found: Violation[]): void {
  const list: unknown[] = Array.isArray(place.value) ? place.value : [];
  const old = new Map<string, CelInput>();
  if (Array.isArray(place.old)) {
    for (const item of place.old) {
      const key = itemKey(item, items.keys);
      if (key !== undefined) old.set(key, item);
    }
  }
  const seen = new Map<string, number>();
  for (const [index, item] of list.entries()) {
    const key = itemKey(item, items.keys);
    const path = [...place.path, index];
    const first = key === undefined ? undefined : seen.get(key);
    if (first !== undefined) found.push({ path, first });
    else if (key !== undefined) seen.set(key, index);
    const oldItem = key === undefined ? undefined : old.get(key);
    visit(items.tree, { ...place, value: item as CelInput, old: oldItem, path }, found);
  }
}

function itemKey(item: unknown, keys: readonly string[]): string | undefined {
  if (!(item instanceof Map) || keys.length === 0) return undefined;
  const values = keys.map((key): unknown => item.get(key));
  return values.every((value) => typeof value === "string") ? JSON.stringify(values) : undefined;
}

/** Deeper than any schema; what lies below is unknown to every rule. */
const DEPTH_MAX = 32;

/** JSON to CEL: objects are maps, and whole numbers are `int`, because a CRD's integers are. */
function toCel(value: unknown, depth = 0): CelInput {
  if (typeof value === "string" || typeof value === "boolean" || value === null) return value;
  if (typeof value === "number") return Number.isSafeInteger(value) ? BigInt(value) : value;
  if (typeof value !== "object" || depth > DEPTH_MAX) return null;
  if (Array.isArray(value)) return value.map((item) => toCel(item, depth + 1));
  const members = Object.entries(value).filter(([, member]) => member !== undefined);
  return new Map(members.map(([name, member]) => [name, toCel(member, depth + 1)]));
}
