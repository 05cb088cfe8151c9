import type { EgressRule } from "../api/egress.ts";
import type { EgressProtocol, GuardPolicy, GuardRule, GuardSettings } from "../ports/guard.ts";
import { canonicalJson, sha256 } from "./digest.ts";
import type { EffectiveEgress } from "./merge-egress.ts";

const MIB = 1024 * 1024;
/** 36 to the 40th is more than 2 to the 206th: nobody guesses one, and no text holds one by chance. */
const PLACEHOLDER_LENGTH = 40;

/** What a bottle's guard is told of egress, and which secrets it needs for that, by version. */
export interface ResolvedEgress {
  policy: GuardPolicy;
  /** Of the policy alone: what people compare. */
  digest: string;
  /** Versions of the Secrets by `name/key`. */
  secrets: Readonly<Record<string, string>>;
  /** `name/key` by variable of the agent's environment. */
  placeholderEnv: Readonly<Record<string, string>>;
}

/** The key under which one value of a Secret is known to a guard. */
export function secretId({ name, key }: { name: string; key: string }): string {
  return `${name}/${key}`;
}

/** The merged egress with everything spelt out that templates leave to a default. */
export function guardPolicyOf(egress: EffectiveEgress | undefined): GuardPolicy {
  const { uploadMiB, uploadMiBPerHost } = egress?.budget ?? {};
  return {
    rules: (egress?.rules ?? []).map(guardRule),
    dlp: egress?.dlp?.mode ?? "Block",
    audit: egress?.audit ?? "Full",
    budget: {
      ...(uploadMiB === undefined ? {} : { uploadBytes: uploadMiB * MIB }),
      ...(uploadMiBPerHost === undefined ? {} : { uploadBytesPerHost: uploadMiBPerHost * MIB }),
    },
  };
}

function guardRule(rule: EgressRule): GuardRule {
  const protocol = rule.protocol ?? "HTTPS";
  const { name, host, methods, paths, action, reason } = rule;
  return {
    name,
    host,
    ports: rule.ports ?? [DEFAULT_PORT[protocol]],
    protocol,
    ...(methods === undefined ? {} : { methods: methods.map((method) => method.toUpperCase()) }),
    ...(paths === undefined ? {} : { paths }),
    action,
    ...(reason === undefined ? {} : { reason }),
    cidrs: rule.cidrs ?? [],
    webSocket: rule.webSocket === "Allow",
    uninspected: rule.uninspected ?? "Refuse",
    inject: (rule.inject ?? []).map(({ header, valueTemplate, secretRef }) => ({
      header: header.toLowerCase(),
      valueTemplate: valueTemplate ?? "{value}",
      secret: secretId(secretRef),
    })),
  };
}

/** Admission requires ports with TCP, which has none of its own. */
const DEFAULT_PORT: Record<EgressProtocol, number> = { HTTPS: 443, HTTP: 80, TLS: 443, TCP: 443 };

/** What the agent holds in place of a secret: the same for one bottle and secret at all times, and no secret itself. */
export function placeholderOf(uid: string, secret: string): string {
  const digits = BigInt(`0x${sha256(`placeholder\n${uid}\n${secret}`)}`).toString(36);
  return `bbp_${digits.padStart(PLACEHOLDER_LENGTH, "0").slice(-PLACEHOLDER_LENGTH)}`;
}

/** All that the guard of this bottle must be told now. */
export function guardSettings(bottle: { uid: string; token: string }, egress: ResolvedEgress): GuardSettings {
  const { uid, token } = bottle;
  const placed = [...new Set(Object.values(egress.placeholderEnv))].sort();
  const placeholders = Object.fromEntries(placed.map((secret) => [secret, placeholderOf(uid, secret)]));
  const secretRefs = Object.keys(egress.secrets).sort();
  const said = { token, policy: egress.policy, placeholders, secretRefs };
  // The digest of the policy stands for it: this is asked on every look at a running bottle.
  const { digest, secrets } = egress;
  return { digest: digestOf({ token, policy: digest, placeholders, secrets }), ...said };
}

/** For a guard that runs while nobody can say what it should let through: nothing, and why. */
export function closedSettings(token: string, closed: { reason: string; message: string }): GuardSettings {
  const { reason, message } = closed;
  const said = { token, policy: guardPolicyOf(undefined), placeholders: {}, secretRefs: [] };
  return { digest: digestOf({ token, closed: { reason, message } }), ...said, closed: { reason, message } };
}

function digestOf(value: unknown): string {
  return `sha256:${sha256(canonicalJson(value))}`;
}

export function policyDigest(policy: GuardPolicy): string {
  return digestOf(policy);
}
