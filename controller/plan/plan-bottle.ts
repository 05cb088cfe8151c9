import type { Desired, Observed } from "./situation.ts";
import { situationOf, type Situation } from "./situation.ts";
import { bottleStatus } from "./bottle-status.ts";
import type { Decision, Rule } from "./rule.ts";
import { endRules } from "./rules-end.ts";
import { launchRules } from "./rules-launch.ts";
import { restRules } from "./rules-rest.ts";
import type { Plan } from "./steps.ts";

/**
 * The order of the rules is the order of safety: what is ending comes before what is at rest, and that before what is starting, so that nothing
 * starts while something of the bottle still has to be stopped, recorded or removed.
 */
const RULES: readonly Rule[] = [...endRules, ...restRules, ...launchRules];

/**
 * Decides what to do for one bottle. Total, synchronous, no clock, no chance, no I/O: the same state gives the same plan, on every machine and
 * after every crash.
 */
export function planBottle(desired: Desired, observed: Observed, now: number): Plan {
  const situation = situationOf(desired, observed, now);
  const decision = decide(situation);
  return {
    steps: decision.steps ?? [],
    status: bottleStatus(situation, decision.note),
    requeueAfterMs: decision.requeueAfterMs,
  };
}

function decide(situation: Situation): Decision {
  for (const rule of RULES) {
    const decision = rule(situation);
    if (decision !== undefined) return decision;
  }
  return { note: { state: "Ready", reason: "Live", message: "holder and guard run; the next turn starts at once" } };
}
