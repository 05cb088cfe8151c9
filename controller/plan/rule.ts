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
