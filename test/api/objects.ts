import { admit } from "../../controller/api/admit.ts";
import { StatusError } from "../../controller/api/errors.ts";
import type { KindMap, KindName } from "../../controller/api/kinds.ts";

type Spec = Record<string, unknown>;

const base = (kind: string, spec: unknown) => ({
  apiVersion: "bot-bottle.dev/v1alpha1",
  kind,
  metadata: { name: "one", namespace: "default" },
  spec,
});

export const CUSTOM = { provider: { type: "Custom", custom: { command: ["true"] } } };
export const bottle = (spec: Spec = {}) => base("Bottle", { agentRef: { name: "worker" }, ...spec });
export const template = (spec: Spec) => base("BottleTemplate", spec);
export const agent = (spec: Spec) => base("Agent", spec);

/** The refusal of an object; a failure if it is admitted. */
export function refusal(kind: KindName, object: unknown, old?: unknown): StatusError {
  try {
    admit(kind, object, old as KindMap[KindName] | undefined);
  } catch (error) {
    if (error instanceof StatusError) return error;
    throw error;
  }
  throw new Error("the object was admitted");
}

/** Field and message of every cause. */
export function causesOf(kind: KindName, object: unknown, old?: unknown): [string, string][] {
  return refusal(kind, object, old).causes.map((cause) => [cause.field, cause.message]);
}
