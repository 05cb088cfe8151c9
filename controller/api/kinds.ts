import type { z } from "zod";
import { agentSpec, type Agent } from "./agent.ts";
import { bottleSpec, bottleStatus, type Bottle } from "./bottle.ts";
import type { EventResource } from "./event.ts";
import { API_VERSION } from "./meta.ts";
import type { SecretResource } from "./secret.ts";
import { bottleTemplateSpec, type BottleTemplate } from "./template.ts";

/** Every kind a store holds. */
export interface KindMap {
  Bottle: Bottle;
  BottleTemplate: BottleTemplate;
  Agent: Agent;
  Secret: SecretResource;
  Event: EventResource;
}
export type KindName = keyof KindMap;
/** Kinds that people declare. */
export type DeclaredKind = Exclude<KindName, "Event">;

export interface PrinterColumn {
  name: string;
  type: "string" | "integer" | "date";
  jsonPath: string;
  /** 0 is always shown, 1 with `-o wide`. */
  priority: 0 | 1;
}

/** How commands name a kind. */
export interface KindNames {
  kind: DeclaredKind;
  plural: string;
  singular: string;
  shortNames: readonly string[];
}

/** A kind of this API group: what its CRD says and how commands name it. */
export interface KindFacts extends KindNames {
  kind: "Bottle" | "BottleTemplate" | "Agent";
  spec: z.ZodType;
  status?: z.ZodType;
  columns: readonly PrinterColumn[];
  description: string;
}

const AGE: PrinterColumn = { name: "Age", type: "date", jsonPath: ".metadata.creationTimestamp", priority: 0 };

function conditionColumn(name: string, field: "status" | "reason", type: string, priority: 0 | 1): PrinterColumn {
  return { name, type: "string", jsonPath: `.status.conditions[?(@.type=="${type}")].${field}`, priority };
}

/** In the order in which a set of manifests is applied: what is referred to comes first. */
export const KINDS: readonly KindFacts[] = [
  {
    kind: "BottleTemplate",
    plural: "bottletemplates",
    singular: "bottletemplate",
    shortNames: ["btt"],
    spec: bottleTemplateSpec,
    columns: [
      { name: "Extends", type: "string", jsonPath: ".spec.extendsRef.name", priority: 0 },
      { name: "Image", type: "string", jsonPath: ".spec.image", priority: 0 },
      AGE,
    ],
    description: "A reusable environment for bottles.",
  },
  {
    kind: "Agent",
    plural: "agents",
    singular: "agent",
    shortNames: ["bagent"],
    spec: agentSpec,
    columns: [{ name: "Provider", type: "string", jsonPath: ".spec.provider.type", priority: 0 }, AGE],
    description: "Who works in a bottle.",
  },
  {
    kind: "Bottle",
    plural: "bottles",
    singular: "bottle",
    shortNames: ["bt"],
    spec: bottleSpec,
    status: bottleStatus,
    columns: [
      { name: "Agent", type: "string", jsonPath: ".spec.agentRef.name", priority: 0 },
      { name: "Backend", type: "string", jsonPath: ".status.backend.type", priority: 0 },
      conditionColumn("Ready", "status", "Ready", 0),
      conditionColumn("Frozen", "status", "Frozen", 0),
      { name: "Turn", type: "string", jsonPath: ".status.lastTurn.id", priority: 0 },
      { name: "Outcome", type: "string", jsonPath: ".status.lastTurn.outcome", priority: 0 },
      { name: "Exit", type: "integer", jsonPath: ".status.lastTurn.exitCode", priority: 0 },
      AGE,
      conditionColumn("Reason", "reason", "Ready", 1),
      { name: "Denied", type: "integer", jsonPath: ".status.egress.denied", priority: 1 },
      { name: "Label", type: "string", jsonPath: ".spec.label", priority: 1 },
      { name: "ID", type: "string", jsonPath: ".status.bottleID", priority: 1 },
    ],
    description: "One agent's sealed place and its conversation.",
  },
];

/** Every kind that people declare, in the order of `KINDS`. A Secret is core/v1: no CRD is made for it, and its fields are not below `spec`. */
export const DECLARED_KINDS: readonly KindNames[] = [
  { kind: "Secret", plural: "secrets", singular: "secret", shortNames: [] },
  ...KINDS,
];

/** What a manifest of this kind says under `apiVersion`. */
export function apiVersionOf(kind: string): string {
  return kind === "Secret" || kind === "Event" ? "v1" : API_VERSION;
}
