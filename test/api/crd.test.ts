import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { z } from "zod";
import { type CrdSchema, crdFileName, customResourceDefinition } from "../../controller/api/crd.ts";
import { fieldOf } from "../../controller/api/fields.ts";
import { KINDS, type KindFacts } from "../../controller/api/kinds.ts";
import { mapList } from "../../controller/api/schema.ts";
import { crdYaml } from "../../controller/commands/crds.ts";

interface Part {
  path: string;
  schema: CrdSchema;
  belowList: boolean;
}

/** Every schema of a definition below `spec` and `status`, itself included. */
function partsOf(facts: KindFacts): Part[] {
  const { spec } = customResourceDefinition(facts) as {
    spec: { versions: { schema: { openAPIV3Schema: CrdSchema } }[] };
  };
  const root = spec.versions[0]?.schema.openAPIV3Schema ?? {};
  const { spec: desired, status } = root["properties"] as Record<string, CrdSchema>;
  return [...walk("spec", desired ?? {}, false), ...(status === undefined ? [] : walk("status", status, false))];
}

function walk(path: string, schema: CrdSchema, belowList: boolean): Part[] {
  const parts: Part[] = [{ path, schema, belowList }];
  const properties = (schema["properties"] ?? {}) as Record<string, CrdSchema>;
  for (const [name, part] of Object.entries(properties)) parts.push(...walk(`${path}.${name}`, part, belowList));
  if (schema["items"] !== undefined) parts.push(...walk(`${path}[]`, schema["items"] as CrdSchema, true));
  return parts;
}

const named = KINDS.map((facts) => ({ kind: facts.kind, facts }));

describe.each(named)("the CustomResourceDefinition of $kind", ({ facts }) => {
  const parts = partsOf(facts);
  const of = (type: string) => parts.filter(({ schema }) => schema["type"] === type);

  it("is the one in crds/", () => {
    const file = new URL(`../../crds/${crdFileName(facts)}`, import.meta.url);

    expect(readFileSync(file, "utf8"), "run `npm run gen`").toBe(crdYaml(facts));
  });

  it("is structural: every part has one type that a structural schema knows, and no other logic", () => {
    const types = ["object", "array", "string", "integer", "boolean"];

    expect(parts.filter(({ schema }) => !types.includes(String(schema["type"])))).toEqual([]);
    for (const keyword of ["anyOf", "oneOf", "allOf", "not", "$ref", "additionalProperties", "nullable", "const"]) {
      expect(parts.filter(({ schema }) => keyword in schema)).toEqual([]);
    }
    expect(of("array").filter(({ schema }) => schema["items"] === undefined)).toEqual([]);
  });

  it("bounds every string, list and number format, so that the cost of rules can be estimated", () => {
    const open = of("string").filter(
      ({ schema }) =>
        schema["maxLength"] === undefined && schema["enum"] === undefined && schema["format"] !== "date-time",
    );

    expect(open.map(({ path }) => path)).toEqual([]);
    expect(of("array").filter(({ schema }) => schema["maxItems"] === undefined)).toEqual([]);
    expect(of("integer").filter(({ schema }) => schema["format"] !== "int64")).toEqual([]);
  });

  it("has no default below a list: client-side apply would patch for ever", () => {
    expect(parts.filter(({ schema, belowList }) => belowList && "default" in schema)).toEqual([]);
  });

  it("says of every list how it is merged, and the keys of a list-map are required strings", () => {
    for (const { path, schema } of of("array")) {
      const type = schema["x-kubernetes-list-type"];
      expect(["map", "atomic", "set"], path).toContain(type);
      if (type !== "map") continue;
      const items = schema["items"] as CrdSchema;
      for (const key of schema["x-kubernetes-list-map-keys"] as string[]) {
        expect(items["required"], path).toContain(key);
        expect((items["properties"] as Record<string, CrdSchema>)[key], path).toMatchObject({ type: "string" });
      }
    }
  });

  it("every rule has a message of one line, and a fieldPath that exists", () => {
    for (const { path, schema } of parts) {
      for (const rule of (schema["x-kubernetes-validations"] ?? []) as Record<string, string>[]) {
        expect(rule["message"], path).toMatch(/^[^\n]{10,}$/);
        const field = rule["fieldPath"];
        if (field !== undefined) expect(schema["properties"], path).toHaveProperty(field.slice(1));
      }
    }
  });

  it("has patterns that RE2 can run: no look-around, no back-reference", () => {
    const patterns = parts.map(({ schema }) => String(schema["pattern"] ?? ""));

    expect(patterns.filter((pattern) => /\(\?[=!<]|\\[1-9]|\\u/.test(pattern))).toEqual([]);
  });

  it("is namespaced, in the category bot-bottle, and names are at most 63 characters", () => {
    const crd = customResourceDefinition(facts);

    expect(crd).toMatchObject({
      metadata: { name: `${facts.plural}.bot-bottle.dev` },
      spec: { scope: "Namespaced", names: { categories: ["bot-bottle"], shortNames: facts.shortNames } },
    });
    expect(crd).toHaveProperty(
      "spec.versions.0.schema.openAPIV3Schema.properties.metadata.properties.name.maxLength",
      63,
    );
  });
});

describe("a schema that a CRD cannot say stops the program", () => {
  it.each([
    ["a refinement", z.strictObject({ a: z.string().refine((text) => text !== "x") })],
    ["a transformation", z.strictObject({ a: z.string().transform((text) => text.length) })],
    ["a rewriting check", z.strictObject({ a: z.string().trim() })],
    ["a union", z.strictObject({ a: z.union([z.string(), z.int()]) })],
    ["a record", z.strictObject({ a: z.record(z.string(), z.string()) })],
    ["a list without a list type", z.strictObject({ a: z.array(z.string()).max(3) })],
    ["a refinement below a list", mapList(z.strictObject({ id: z.string().refine(() => true) }), ["id"], 3)],
  ])("%s", (_, schema) => {
    expect(() => fieldOf(schema)).toThrow(/^schema spec/);
  });
});
