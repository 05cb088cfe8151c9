import type { EgressRule } from "../api/egress.ts";
import { compilePolicy } from "../policy/matcher.ts";
import { guardPolicyOf, policyDigest, secretId, type ResolvedEgress } from "./guard-settings.ts";
import type { EffectiveEgress } from "./merge-egress.ts";

/** What the loop keeps of a Secret: never a value. */
export interface SecretFacts {
  keys: ReadonlySet<string>;
  /** Another one after every change. */
  version: string;
}

type Failure = { ok: false; reason: "SecretNotFound" | "EgressPolicyInvalid"; message: string };
type Injection = NonNullable<EgressRule["inject"]>[number];

/** Checks the merged egress as the guard will, and finds the secrets that it injects. */
export function resolveEgress(
  egress: EffectiveEgress | undefined,
  lookup: { namespace: string; secret(name: string): SecretFacts | undefined },
): { ok: true; egress: ResolvedEgress } | Failure {
  const policy = guardPolicyOf(egress);
  const compiled = compilePolicy(policy);
  if (!compiled.ok) return invalid(compiled.message);
  const secrets = new Map<string, string>();
  const placed = new Map<string, string>();
  for (const rule of egress?.rules ?? []) {
    for (const injection of rule.inject ?? []) {
      const found = lookup.secret(injection.secretRef.name);
      if (found === undefined || !found.keys.has(injection.secretRef.key)) {
        return notFound(rule.name, injection, found === undefined ? lookup.namespace : undefined);
      }
      const id = secretId(injection.secretRef);
      secrets.set(id, found.version);
      const variable = injection.placeholderEnv;
      if (variable === undefined) continue;
      const taken = placed.get(variable) ?? id;
      if (taken !== id) return invalid(doublePlaceholder(rule.name, variable, taken, id));
      placed.set(variable, id);
    }
  }
  const placeholderEnv = Object.fromEntries(placed);
  return {
    ok: true,
    egress: { policy, digest: policyDigest(policy), secrets: Object.fromEntries(secrets), placeholderEnv },
  };
}

function invalid(message: string): Failure {
  return { ok: false, reason: "EgressPolicyInvalid", message: `the egress of the bottle's templates: ${message}` };
}

function doublePlaceholder(rule: string, variable: string, taken: string, id: string): string {
  return `rule "${rule}": placeholderEnv "${variable}" stands for "${taken}" already and cannot stand for "${id}": name another variable`;
}

/** `namespace`: the Secret is missing there; absent: it lacks the key. */
function notFound(rule: string, { secretRef }: Injection, namespace: string | undefined): Failure {
  const { name, key } = secretRef;
  const message =
    namespace === undefined
      ? `Secret "${name}" has no key "${key}", which egress rule "${rule}" injects: add the key or correct secretRef.key`
      : `Secret "${name}" with key "${key}", which egress rule "${rule}" injects, does not exist in namespace "${namespace}": create it or correct secretRef.name`;
  return { ok: false, reason: "SecretNotFound", message };
}
