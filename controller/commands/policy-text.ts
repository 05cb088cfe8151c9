import type { Egress, EgressRule } from "../api/egress.ts";
import { guardPolicyOf } from "../plan/guard-settings.ts";
import type { EffectiveEgress } from "../plan/merge-egress.ts";

/**
 * The merged egress as a template would say it, with every default written out: applied as it is printed, it means the same. What is absent
 * here (methods, paths, reason, a budget) means "all" or "none" and has no other spelling.
 */
export function shownEgress(egress: EffectiveEgress | undefined): Egress {
  const policy = guardPolicyOf(egress);
  const rules = (egress?.rules ?? []).map((rule, index): EgressRule => {
    const full = policy.rules[index];
    if (full === undefined) return rule;
    const readsRequests = full.protocol === "HTTPS" || full.protocol === "HTTP";
    return {
      name: rule.name,
      host: full.host,
      ports: [...full.ports],
      protocol: full.protocol,
      ...(rule.methods === undefined ? {} : { methods: rule.methods }),
      ...(rule.paths === undefined ? {} : { paths: rule.paths }),
      action: full.action,
      ...(rule.reason === undefined ? {} : { reason: rule.reason }),
      cidrs: [...full.cidrs],
      // Admission refuses both where requests are not read, because they would mean nothing there.
      ...(readsRequests ? { webSocket: full.webSocket ? "Allow" : "Deny", uninspected: full.uninspected } : {}),
      ...(rule.inject === undefined ? {} : { inject: rule.inject.map(withTemplate) }),
    };
  });
  return {
    rules,
    dlp: { mode: policy.dlp },
    audit: policy.audit,
    ...(egress?.budget === undefined ? {} : { budget: egress.budget }),
  };
}

function withTemplate(injection: NonNullable<EgressRule["inject"]>[number]) {
  return { ...injection, valueTemplate: injection.valueTemplate ?? "{value}" };
}
