/** Condition types of a Bottle (Kubernetes API conventions; `Ready`, `Reconciling` and `Stalled` are kstatus compatible). */
export const CONDITION_TYPES = [
  "Accepted",
  "ResolvedRefs",
  "GuardReady",
  "EgressEnforced",
  "Ready",
  "Frozen",
  "AgentRunning",
  "Finished",
  "DeletionBlocked",
  "Reconciling",
  "Stalled",
] as const;
export type ConditionType = (typeof CONDITION_TYPES)[number];

/** `reason` is CamelCase and for machines, `message` a short sentence for people that is the same on every pass. */
export interface Condition {
  type: ConditionType;
  status: "True" | "False" | "Unknown";
  reason: string;
  message: string;
  observedGeneration: number;
  lastTransitionTime: string;
}

export function conditionOf(conditions: readonly Condition[] | undefined, type: ConditionType): Condition | undefined {
  return conditions?.find((condition) => condition.type === type);
}
