import type { Note } from "./bottle-status.ts";
import type { Situation } from "./situation.ts";
import type { Step } from "./steps.ts";

/** What one rule decided: what to do now and what to tell people. */
export interface Decision {
  steps?: readonly Step[];
  requeueAfterMs?: number;
  note: Note;
}

/** Answers undefined where it does not apply; the first rule that answers decides. Pure. */
export type Rule = (situation: Situation) => Decision | undefined;

/** A failure that lasts is part of what people see; one that the next try mends is not. */
export function progress({ failure }: Situation, reason: string, message: string): Note {
  if (failure === undefined || failure.count < 2) return { state: "Reconciling", reason, message };
  return { state: "Reconciling", reason: failure.reason, message: failure.message };
}
