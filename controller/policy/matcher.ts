/** The front of the egress policy: what a guard, the plan and the commands need of it. */
export { BUILT_IN_RULES, type BuiltInRule } from "./built-in-rules.ts";
export { compilePolicy, type PolicyCompilation } from "./compile-policy.ts";
export type { CompiledPolicy, CompiledRule, RequestFacts } from "./compiled.ts";
export { decideAddress, decideConnect, decideRequest, type ConnectDecision, type Verdict } from "./decide.ts";
export { explain, type ExplainedFacts, type ExplainedStep, type Explanation } from "./explain.ts";
