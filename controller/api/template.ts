import { z } from "zod";
import { egress } from "./egress.ts";
import { isGuardEnv } from "./guard-env.ts";
import type { Resource } from "./meta.ts";
import {
  atomicList,
  boundedString,
  cpuQuantity,
  mapList,
  memoryQuantity,
  nameRef,
  privateText,
  withRules,
  withWords,
} from "./schema.ts";

/** Backends that `spec.backend.type` and `allowedBackends` may name. An entry appears here with the backend that serves it. */
export const backendType = z.enum(["Docker", "Bubblewrap"]);
export type BackendType = z.infer<typeof backendType>;

/** Limits of the agent. A limit that the chosen backend cannot enforce is refused in the bottle's `Accepted` condition. */
export const resourceLimits = z.strictObject({
  cpu: cpuQuantity.optional().describe("Cores, e.g. 2 or 500m."),
  memory: memoryQuantity.optional().describe("Bytes, e.g. 4Gi. Swap is not added."),
  pids: z.int().min(16).max(1_000_000).optional().describe("Processes and threads alive at once."),
});

const envName = withWords(
  boundedString(128)
    .min(1)
    .regex(/^[A-Za-z_][A-Za-z0-9_]*$/),
  { form: "letters, digits and '_', not starting with a digit" },
);

const envVar = withRules(
  z.strictObject({
    name: envName.describe("The variable's name."),
    value: privateText(32768).describe("A literal. It is visible to the agent and in the store: never a secret."),
  }),
  {
    rule: "!self.name.upperAscii().matches('(^|_)(TOKEN|KEY|SECRET|PASSWORD)$')",
    message: "name looks like a credential: an agent holds no secret, so bind the secret to an egress rule instead",
    reason: "FieldValueForbidden",
    fieldPath: ".name",
  },
  {
    rule: "!self.name.startsWith('BOT_BOTTLE_')",
    message: "names that start with BOT_BOTTLE_ are set by the controller: choose another name",
    reason: "FieldValueForbidden",
    fieldPath: ".name",
  },
  {
    rule: `!(${isGuardEnv("self.name")})`,
    message: "is set by the controller, so that programs find their guard and trust it: remove it",
    reason: "FieldValueForbidden",
    fieldPath: ".name",
  },
);

/**
 * A container image reference: optional registry host, path, optional tag, optional digest. No two neighbouring parts can
 * match the same character, so that a string that does not match is refused in linear time.
 */
const imageRef = withWords(
  boundedString(512)
    .min(1)
    .regex(
      /^([A-Za-z0-9][A-Za-z0-9.-]*(:[0-9]{1,5})?\/)?[a-z0-9]+((\.|__?|-+)[a-z0-9]+)*(\/[a-z0-9]+((\.|__?|-+)[a-z0-9]+)*)*(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(@sha256:[a-f0-9]{64})?$/,
    ),
  { form: "an image reference such as debian:12 or registry.example/team/image@sha256:..." },
);

/** A reusable environment. Templates are merged in order, field by field; later ones win. */
export const bottleTemplateSpec = z.strictObject({
  extendsRef: nameRef.optional().describe("The template below this one."),
  image: imageRef.optional().describe("The agent's image. Not used by backends without images."),
  env: mapList(envVar, ["name"], 128).optional().describe("Environment of the agent; merged by name."),
  resources: resourceLimits.optional().describe("Limits of the agent; merged field by field."),
  egress: egress.optional().describe("What may leave the bottle. Without a rule nothing does."),
  allowedBackends: atomicList(backendType, 8)
    .optional()
    .describe("Backends a bottle of this template may run on; several templates intersect."),
});
export type BottleTemplateSpec = z.infer<typeof bottleTemplateSpec>;

export type BottleTemplate = Resource<"BottleTemplate", BottleTemplateSpec, never>;
