import type { GuardPolicy } from "../../../controller/ports/guard.ts";

/** What has left the bottle since the guard started, and whether more may. */
export interface Budget {
  /** Counts bytes that are about to leave. False: they would go beyond the budget, must not leave, and are not counted. */
  take(settings: { readonly source: Pick<GuardPolicy, "budget"> }, host: string, bytes: number): boolean;
}

/** Under a rule with a wildcard an agent can think of any number of hosts; what is sent to later ones is counted together. */
const HOSTS_MAX = 4_096;

/** Counts without a bound too: settings that come later may have one, and it is for all that left since the start. */
export function createBudget(): Budget {
  const byHost = new Map<string, number>();
  let total = 0;
  return {
    take({ source: { budget } }, host, bytes) {
      const key = byHost.has(host) || byHost.size < HOSTS_MAX ? host : "";
      const ofHost = (byHost.get(key) ?? 0) + bytes;
      if (total + bytes > (budget.uploadBytes ?? Infinity)) return false;
      if (ofHost > (budget.uploadBytesPerHost ?? Infinity)) return false;
      total += bytes;
      byHost.set(key, ofHost);
      return true;
    },
  };
}
