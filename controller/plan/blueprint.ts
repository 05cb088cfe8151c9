import type { Bottle } from "../api/bottle.ts";
import { cpuMillis, memoryBytes } from "../api/quantity.ts";
import type { BackendFeatures, Blueprint } from "../ports/backend.ts";
import { canonicalJson, sha256 } from "./digest.ts";
import type { EffectiveTemplate } from "./resolve.ts";

/** Spells out a bottle for a backend: after this no choice is left. */
export function blueprintOf(
  bottle: Bottle,
  template: EffectiveTemplate,
  options: { features: BackendFeatures; defaultImage: string },
): Blueprint {
  const { resources } = template;
  const made = {
    image: options.features.images ? (template.image ?? options.defaultImage) : undefined,
    runtime: bottle.spec.backend?.docker?.runtime,
    env: Object.fromEntries(template.env.map((variable) => [variable.name, variable.value])),
    limits: {
      cpuMillis: resources.cpu === undefined ? undefined : cpuMillis(resources.cpu),
      memoryBytes: resources.memory === undefined ? undefined : memoryBytes(resources.memory),
      pids: resources.pids,
    },
  };
  return {
    uid: bottle.metadata.uid,
    namespace: bottle.metadata.namespace,
    name: bottle.metadata.name,
    generation: bottle.metadata.generation,
    specHash: sha256(canonicalJson(made)).slice(0, 32),
    ...made,
  };
}

/** Why this backend cannot serve this bottle; empty if it can. Accepting a limit that does not hold would be a lie. */
export function unservedReasons(
  template: EffectiveTemplate,
  backend: { name: string; features: BackendFeatures },
): string[] {
  const { limits } = backend.features;
  const { resources, allowedBackends } = template;
  const reasons: string[] = [];
  const refuse = (field: string, value: string | number | undefined, held: boolean) => {
    if (value === undefined || held) return;
    reasons.push(
      `resources.${field} is "${value}", but backend ${backend.name} cannot enforce it: remove it or choose another backend`,
    );
  };
  refuse("cpu", resources.cpu, limits.cpu);
  refuse("memory", resources.memory, limits.memory);
  refuse("pids", resources.pids, limits.pids);
  if (allowedBackends !== undefined && !allowedBackends.some((type) => type.toLowerCase() === backend.name)) {
    const allowed = allowedBackends.length === 0 ? "none" : allowedBackends.join(", ");
    reasons.push(`backend ${backend.name} is not in allowedBackends (${allowed}): choose one of them`);
  }
  return reasons;
}
