import type { Bottle } from "../api/bottle.ts";
import { cpuMillis, memoryBytes } from "../api/quantity.ts";
import type { BackendFeatures, Blueprint } from "../ports/backend.ts";
import { canonicalJson, sha256 } from "./digest.ts";
import { guardEnv } from "./guard-env.ts";
import { placeholderOf, type ResolvedEgress } from "./guard-settings.ts";
import type { EffectiveTemplate } from "./resolve.ts";

/** A bottle with its references followed. */
export interface Resolved {
  template: EffectiveTemplate;
  egress: ResolvedEgress;
}

/** Spells out a bottle for a backend: after this no choice is left. */
export function blueprintOf(
  bottle: Bottle,
  { template, egress }: Resolved,
  options: { features: BackendFeatures; defaultImage: string; token: string },
): Blueprint {
  const { uid, namespace, name, generation } = bottle.metadata;
  const { resources } = template;
  const made = {
    image: options.features.images ? (template.image ?? options.defaultImage) : undefined,
    runtime: bottle.spec.backend?.docker?.runtime,
    limits: {
      cpuMillis: resources.cpu === undefined ? undefined : cpuMillis(resources.cpu),
      memoryBytes: resources.memory === undefined ? undefined : memoryBytes(resources.memory),
      pids: resources.pids,
    },
  };
  const variables = [
    ...template.env.map((variable) => [variable.name, variable.value] as const),
    ...Object.entries(egress.placeholderEnv).map(([variable, id]) => [variable, placeholderOf(uid, id)] as const),
    ...Object.entries(guardEnv(options.token)),
  ];
  // What the controller sets comes last and wins; sorted, because the order of a template must not make another blueprint.
  const env = Object.fromEntries([...new Map(variables)].sort(([a], [b]) => (a < b ? -1 : 1)));
  return { uid, namespace, name, generation, specHash: hashOf(made), ...made, env };
}

/**
 * The blueprint of one run. Its hash covers the environment too, which holder and guard know nothing of: when a variable changes, a unit that
 * waits for its start is made again, and its bottle stays up.
 */
export function agentBlueprint(blueprint: Blueprint): Blueprint {
  const { specHash, env } = blueprint;
  return { ...blueprint, specHash: hashOf({ specHash, env }) };
}

function hashOf(made: unknown): string {
  return sha256(canonicalJson(made)).slice(0, 32);
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
