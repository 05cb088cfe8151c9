import type { GuardPolicy, GuardRule } from "../../controller/ports/guard.ts";
import { parseAuthority, type Destination } from "../../controller/policy/destination.ts";
import { compilePolicy, type CompiledPolicy } from "../../controller/policy/matcher.ts";

/** A rule as the plan writes it, of which a test names what it is about. */
export function rule(changes: Partial<GuardRule> = {}): GuardRule {
  return {
    name: "rule",
    host: "allowed.test",
    ports: [443],
    protocol: "HTTPS",
    action: "Allow",
    cidrs: [],
    webSocket: false,
    uninspected: "Refuse",
    inject: [],
    ...changes,
  };
}

export function policyOf(rules: readonly GuardRule[]): GuardPolicy {
  return { rules, dlp: "Block", audit: "Full", budget: {} };
}

export function compiled(...rules: readonly Partial<GuardRule>[]): CompiledPolicy {
  const result = compilePolicy(policyOf(rules.map((changes, index) => rule({ name: `rule-${index}`, ...changes }))));
  if (!result.ok) throw new Error(result.message);
  return result.policy;
}

export function destination(text: string): Destination {
  const parsed = parseAuthority(text);
  if (!parsed.ok) throw new Error(parsed.reason);
  return parsed.destination;
}
