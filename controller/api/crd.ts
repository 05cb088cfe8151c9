import { z } from "zod";
import { unwrap } from "./fields.ts";
import type { KindFacts } from "./kinds.ts";
import { API_VERSION, GROUP } from "./meta.ts";
import { dnsLabel, fieldFacts } from "./schema.ts";

/** A part of an OpenAPI schema as a CustomResourceDefinition may hold it. */
export type CrdSchema = { [key: string]: unknown };

/** What a structural schema may say here; anything else of zod's output has no meaning in a CRD and stops the generator. */
const KEYWORDS = [
  "type",
  "format",
  "description",
  "default",
  "enum",
  "minLength",
  "maxLength",
  "pattern",
  "minimum",
  "maximum",
  "minItems",
  "maxItems",
  "items",
  "required",
  "properties",
  "x-kubernetes-list-type",
  "x-kubernetes-list-map-keys",
  "x-kubernetes-validations",
] as const;

/**
 * The CustomResourceDefinition of a kind: structural, every part bounded, so that an API server from 1.25 on accepts it and can
 * estimate what its rules cost.
 *
 * An API server refuses a rule that may cost more than 10,000,000 and a definition whose rules may cost more than 100,000,000
 * together, estimated from the bounds: comparing n characters costs 4 n / 10 (four bytes each), a step 1 to 3, and all of it
 * once for each item of the lists around the rule. The two that matter, as estimated by the code of Kubernetes 1.34:
 *
 * - `oldSelf.all(o, self.exists(t, t.id == o.id))` on 256 turns, ids of 63 characters: 256 x 256 x 34 = 2,229,506.
 * - `self == oldSelf` on a prompt of 32,000 characters: 12,802, for 256 turns 3,277,312.
 *
 * So the first allows at most 542 turns, and the second at most 781; every other rule together stays below 100,000.
 */
export function customResourceDefinition(facts: KindFacts): CrdSchema {
  const properties: CrdSchema = {
    apiVersion: { type: "string", description: `Always ${API_VERSION}.` },
    kind: { type: "string", description: `Always ${facts.kind}.` },
    metadata: { type: "object", properties: { name: schemaOf(dnsLabel) } },
    spec: schemaOf(facts.spec),
  };
  if (facts.status !== undefined) properties["status"] = schemaOf(facts.status);
  return {
    apiVersion: "apiextensions.k8s.io/v1",
    kind: "CustomResourceDefinition",
    metadata: { name: `${facts.plural}.${GROUP}` },
    spec: {
      group: GROUP,
      names: {
        kind: facts.kind,
        listKind: `${facts.kind}List`,
        plural: facts.plural,
        singular: facts.singular,
        shortNames: [...facts.shortNames],
        categories: ["bot-bottle"],
      },
      scope: "Namespaced",
      versions: [
        {
          name: API_VERSION.slice(GROUP.length + 1),
          served: true,
          storage: true,
          ...(facts.status === undefined ? {} : { subresources: { status: {} } }),
          additionalPrinterColumns: facts.columns.map(({ priority, ...column }) =>
            priority === 0 ? column : { ...column, priority },
          ),
          schema: {
            openAPIV3Schema: { description: facts.description, type: "object", required: ["spec"], properties },
          },
        },
      ],
    },
  };
}

/** The file a definition is kept in, by the convention of Kubernetes tools. */
export function crdFileName(facts: KindFacts): string {
  return `${GROUP}_${facts.plural}.yaml`;
}

function schemaOf(schema: z.ZodType): CrdSchema {
  const json = z.toJSONSchema(schema, {
    target: "openapi-3.0",
    io: "input",
    reused: "inline",
    cycles: "throw",
    unrepresentable: "throw",
    override({ zodSchema, jsonSchema }) {
      Object.assign(jsonSchema, factsOf(zodSchema));
    },
  });
  return structural(json, schemaName(json));
}

function schemaName(json: CrdSchema): string {
  return typeof json["description"] === "string" ? json["description"] : "schema";
}

/** What the registry knows about a schema, in the words of a CRD. */
function factsOf(schema: z.core.$ZodType): CrdSchema {
  const facts = fieldFacts.get(unwrap(schema).inner);
  const said: CrdSchema = {};
  if (facts?.list !== undefined) said["x-kubernetes-list-type"] = facts.list.type;
  if (facts?.list?.type === "map") said["x-kubernetes-list-map-keys"] = [...facts.list.keys];
  if (facts?.rules !== undefined) {
    said["x-kubernetes-validations"] = facts.rules.map(({ rule, message, reason, fieldPath }) => ({
      rule,
      message,
      ...(reason === undefined ? {} : { reason }),
      ...(fieldPath === undefined ? {} : { fieldPath }),
    }));
  }
  return said;
}

/** Turns zod's output into a structural schema with its keywords in a fixed order. */
function structural(json: CrdSchema, path: string): CrdSchema {
  const { additionalProperties, $schema: _, ...schema } = json;
  // Pruning and strict field validation refuse unknown fields; beside `properties` this keyword is not structural.
  if (additionalProperties !== undefined && additionalProperties !== false)
    throw new Error(`${path}: maps need a bound`);
  if (schema["type"] === "integer") Object.assign(schema, integer(schema));
  // The format says it, and zod's pattern repeats a calendar.
  if (schema["format"] === "date-time") schema["pattern"] = undefined;

  const result: CrdSchema = {};
  for (const keyword of KEYWORDS) if (schema[keyword] !== undefined) result[keyword] = schema[keyword];
  const unknown = Object.keys(schema).filter((keyword) => schema[keyword] !== undefined && !(keyword in result));
  if (unknown.length > 0) throw new Error(`${path}: a CRD cannot say ${unknown.join(", ")}`);
  if (isSchema(schema["items"])) result["items"] = structural(schema["items"], `${path}[]`);
  if (isSchema(schema["properties"])) {
    const members = Object.entries(schema["properties"]).filter((member): member is [string, CrdSchema] =>
      isSchema(member[1]),
    );
    result["properties"] = Object.fromEntries(
      members.map(([name, part]) => [name, structural(part, `${path}.${name}`)]),
    );
  }
  return result;
}

/** `z.int()` says the bounds of a JavaScript number, which mean nothing here. */
function integer(schema: CrdSchema): CrdSchema {
  return {
    format: "int64",
    minimum: schema["minimum"] === Number.MIN_SAFE_INTEGER ? undefined : schema["minimum"],
    maximum: schema["maximum"] === Number.MAX_SAFE_INTEGER ? undefined : schema["maximum"],
  };
}

function isSchema(value: unknown): value is CrdSchema {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
