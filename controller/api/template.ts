import { z } from "zod";
import type { Resource } from "./meta.ts";
import { atomicList, cpuQuantity, mapList, memoryQuantity, nameRef, withRules } from "./schema.ts";

/** Backends that `spec.backend.type` and `allowedBackends` may name. An entry appears here with the backend that serves it. */
export const backendType = z.enum(["Docker", "Bubblewrap"]);
export type BackendType = z.infer<typeof backendType>;

/** Limits of the agent. A limit that the chosen backend cannot enforce is refused in the bottle's `Accepted` condition. */
export const resourceLimits = z.strictObject({
  cpu: cpuQuantity.optional().describe("Cores, e.g. 2 or 500m."),
  memory: memoryQuantity.optional().describe("Bytes, e.g. 4Gi. Swap is not added."),
  pids: z.int().min(16).max(1_000_000).optional().describe("Processes and threads alive at once."),
});

const envName = z
  .string()
  .min(1)
  .max(128)
  .regex(/^[A-Za-z_][A-Za-z0-9_]*$/);

const envVar = withRules(
  z.strictObject({
    name: envName.describe("The variable's name."),
    value: z.string().max(32768).describe("A literal. It is visible to the agent and in the store: never a secret."),
  }),
  {
    rule: "!self.name.upperAscii().matches('(^|_)(TOKEN|KEY|SECRET|PASSWORD)$')",
    message: "name looks like a credential: an agent holds no secret, so bind the secret to an egress rule instead",
    reason: "FieldValueForbidden",
  },
  {
    rule: "!self.name.startsWith('BOT_BOTTLE_')",
    message: "names that start with BOT_BOTTLE_ are set by the controller: choose another name",
    reason: "FieldValueForbidden",
  },
);

/** A container image reference: repository, optional tag, optional digest. */
const imageRef = z
  .string()
  .min(1)
  .max(512)
  .regex(/^[a-z0-9]+([._/:-][A-Za-z0-9._-]+)*(@sha256:[a-f0-9]{64})?$/);

/** A reusable environment. Templates are merged in order, field by field; later ones win. */
export const bottleTemplateSpec = z.strictObject({
  extendsRef: nameRef.optional().describe("The template below this one."),
  image: imageRef.optional().describe("The agent's image. Not used by backends without images."),
  env: mapList(envVar, ["name"], 128).optional().describe("Environment of the agent; merged by name."),
  resources: resourceLimits.optional().describe("Limits of the agent; merged field by field."),
  allowedBackends: atomicList(backendType, 8)
    .optional()
    .describe("Backends a bottle of this template may run on; several templates intersect."),
});
export type BottleTemplateSpec = z.infer<typeof bottleTemplateSpec>;

export type BottleTemplate = Resource<"BottleTemplate", BottleTemplateSpec, never>;
