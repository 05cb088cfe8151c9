import type { AuditEntry, Outcome } from "./audit-entry.ts";
import type { Egress } from "./egress.ts";
import { refuse, refused, type Answer, type Refused } from "./respond.ts";
import type { ActiveSettings } from "../settings.ts";

/**
 * One request from its head to its end. It ends once: refused, answered, or given up by either side, and whichever comes first takes the other
 * side with it and writes the line.
 */
export interface Exchange {
  readonly egress: Egress;
  readonly entry: AuditEntry;
  ended(): boolean;
  /** What is to be let go of when it ends, in whatever way. */
  onStop(stop: () => void): void;
  refuse(no: Refused): void;
  /** The answer went out whole. */
  complete(): void;
  /** The client went away. */
  gone(): void;
  /** It is allowed, and under these settings; `why` says under others why it is not. */
  allow(rule: string, reason: string, why: (settings: ActiveSettings) => string | undefined): void;
  /** The head of an answer with this status went out. */
  answered(status: number): void;
}

export function createExchange(egress: Egress, entry: AuditEntry, answer: Answer): Exchange {
  let over = false;
  let status: number | undefined;
  let allowed: { rule: string; reason: string } | undefined;
  let close: (() => void) | undefined;
  const stops: (() => void)[] = [];
  egress.load.requests += 1;
  const settle = (): void => {
    over = true;
    egress.load.requests -= 1;
    close?.();
    for (const stop of stops) stop();
  };
  const end = (outcome: Outcome): void => entry.end({ ...outcome, ...(status === undefined ? {} : { status }) });
  const exchange: Exchange = {
    egress,
    entry,
    ended: () => over,
    onStop: (stop) => void (over ? stop() : stops.push(stop)),
    refuse(no) {
      if (over) return;
      if (answer.canSend()) refuse(entry, answer, no);
      else {
        // An answer that has begun is broken off: it must not look complete.
        answer.destroy();
        end({ verdict: no.verdict, rule: no.rule, reason: no.reason });
      }
      settle();
    },
    complete() {
      if (over) return;
      settle();
      end({ verdict: "Allowed", rule: allowed?.rule ?? "", reason: allowed?.reason ?? "" });
    },
    gone() {
      if (over) return;
      settle();
      const { rule, reason } = allowed ?? { rule: "bad-request", reason: "it was not decided" };
      const verdict = status === undefined ? "Failed" : "Allowed";
      end({ verdict, rule, reason: `${reason}; the client went away` });
    },
    allow(rule, reason, why) {
      allowed = { rule, reason };
      const recheck = (settings: ActiveSettings): void => {
        const no = why(settings);
        if (no !== undefined) exchange.refuse(refused("narrowed", `the policy changed: ${no}`));
      };
      close = egress.open.add({ recheck });
    },
    answered: (sent) => void (status = sent),
  };
  return exchange;
}
