import type { EgressProtocol } from "../ports/guard.ts";
import {
  missOf,
  rulesOfHost,
  type CompiledPolicy,
  type CompiledRule,
  type Miss,
  type RequestFacts,
} from "./compiled.ts";
import { decideConnect, decideRequest, denied, whyMissed, type Verdict } from "./decide.ts";
import { authorityOf } from "./destination.ts";
import { quoted } from "./text.ts";

/** A request, or the first bytes of a tunnel that carries no requests. */
export type ExplainedFacts = Omit<RequestFacts, "protocol"> & { protocol: EgressProtocol };

/** How one rule took part. `why` is one line. */
export interface ExplainedStep {
  rule: string;
  outcome: "decides" | "matches" | "no";
  why: string;
}

export interface Explanation {
  verdict: Verdict;
  /** One for each rule, in the order of the policy. */
  steps: ExplainedStep[];
}

/** Says what the guard would do and what each rule had to do with it. It asks the deciding functions: it cannot differ from them. */
export function explain(policy: CompiledPolicy, facts: ExplainedFacts): Explanation {
  const tunnel = facts.protocol === "HTTP" ? undefined : decideConnect(policy, facts.destination);
  const request: RequestFacts = { ...facts, protocol: facts.protocol === "HTTP" ? "HTTP" : "HTTPS" };
  if (tunnel !== undefined && tunnel.protocol !== "HTTPS") {
    const verdict = facts.protocol === "TCP" ? withoutTls(tunnel.verdict, tunnel.protocol, facts) : tunnel.verdict;
    const missed = ({ ports }: CompiledRule) => (ports.has(facts.destination.port) ? undefined : "port");
    return { verdict, steps: stepsOf(policy, request, verdict, missed) };
  }
  const decided = decideRequest(policy, request);
  const verdict = facts.protocol === "TCP" ? withoutTls(decided, "HTTPS", facts) : decided;
  return { verdict, steps: stepsOf(policy, request, verdict, (compiled) => missOf(compiled, request)) };
}

/** What is no TLS is cut off where TLS is looked into, even if the rule allows the destination. */
function withoutTls(verdict: Verdict, protocol: "HTTPS" | "TLS" | "TCP", facts: ExplainedFacts): Verdict {
  if (protocol === "TCP" || verdict.action === "Deny") return verdict;
  const where = authorityOf(facts.destination);
  return denied("tls-refused", `rule ${quoted(verdict.rule)} has protocol ${protocol}: to ${where} only TLS passes`);
}

function stepsOf(
  policy: CompiledPolicy,
  request: RequestFacts,
  verdict: Verdict,
  missed: (compiled: CompiledRule) => Miss | undefined,
): ExplainedStep[] {
  const named = new Set(rulesOfHost(policy, request.destination));
  return policy.rules.map((compiled) => {
    const rule = compiled.rule.name;
    if (verdict.matched === compiled) return { rule, outcome: "decides", why: verdict.reason };
    const miss = named.has(compiled) ? missed(compiled) : "host";
    if (miss !== undefined) return { rule, outcome: "no", why: whyMissed(compiled, miss, request) };
    return {
      rule,
      outcome: "matches",
      why: `${compiled.rule.action}, but ${quoted(verdict.rule)} decides: ${verdict.action}`,
    };
  });
}
