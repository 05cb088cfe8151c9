import type { Egress, EgressRule } from "../api/egress.ts";

/** Egress of a bottle after every template was merged. */
export interface EffectiveEgress extends Omit<Egress, "rules"> {
  /** Each name once, in the order in which the names were first met. */
  rules: EgressRule[];
}

/** `over` wins: whole rules by name, all else field by field. */
export function mergeEgress(base: EffectiveEgress | undefined, over: Egress | undefined): EffectiveEgress | undefined {
  if (over === undefined) return base;
  const rules = new Map((base?.rules ?? []).map((rule) => [rule.name, rule]));
  for (const rule of over.rules ?? []) rules.set(rule.name, rule);
  const merged: EffectiveEgress = { rules: [...rules.values()] };
  const dlp = mergeFields(base?.dlp, over.dlp);
  const audit = over.audit ?? base?.audit;
  const budget = mergeFields(base?.budget, over.budget);
  if (dlp !== undefined) merged.dlp = dlp;
  if (audit !== undefined) merged.audit = audit;
  if (budget !== undefined) merged.budget = budget;
  return merged;
}

/** Members of `over` that are defined replace those of `base`. */
export function mergeFields<T extends object>(base: T | undefined, over: T | undefined): T | undefined {
  if (base === undefined || over === undefined) return over ?? base;
  const defined = Object.entries(over).filter(([, member]) => member !== undefined);
  return { ...base, ...(Object.fromEntries(defined) as Partial<T>) };
}
