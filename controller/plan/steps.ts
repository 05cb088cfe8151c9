import type { BottleStatus } from "../api/bottle.ts";
import type { AgentRun, Blueprint } from "../ports/backend.ts";
import type { GuardSettings } from "../ports/guard.ts";
import type { JournalEntry, TurnKey } from "../ports/journal.ts";

/** Told once the step is done. `message` is for people and stable. */
export interface EventNote {
  type: "Normal" | "Warning";
  reason: string;
  message: string;
}

type Effect =
  | { kind: "addFinalizer" }
  | { kind: "removeFinalizer" }
  /** Deletes the Bottle resource; its destruction follows from that. */
  | { kind: "deleteResource" }
  /** Removes journal and transcripts. */
  | { kind: "forget" }
  /** Written before the steps behind it run. */
  | { kind: "record"; entries: readonly JournalEntry[] }
  | { kind: "prepare"; blueprint: Blueprint }
  | { kind: "probe"; holderId: string }
  /** Puts the guard under these settings and records it. `trust`: its certificate authority is written into the agent's home in between. */
  | { kind: "configureGuard"; guardId: string; settings: GuardSettings; trust: boolean }
  /** Reads what is left of the guard's audit into the log, as far as the guard answers: it never holds up what comes after it. */
  | { kind: "drainAudit"; guardId: string }
  | { kind: "createAgent"; blueprint: Blueprint; run: AgentRun }
  | ({ kind: "startAgent" } & TurnKey)
  | ({ kind: "stopAgent"; graceMs: number } & TurnKey)
  /** Saves the transcript of an ended run, then records how it ended. */
  | { kind: "collectTurn"; entry: Extract<JournalEntry, { type: "TurnFinished" }> }
  | { kind: "removeUnits"; unitIds: readonly string[] }
  | { kind: "removeDisk" };

/** One effect on the store or a backend. It leaves nothing to decide and may be repeated after a crash. */
export type Step = Effect & { event?: EventNote };

/** What to do for one bottle now. Steps run in order; the first failure ends the pass. With no steps the bottle is at rest until an event or `requeueAfterMs`. */
export interface Plan {
  steps: readonly Step[];
  status: BottleStatus;
  requeueAfterMs?: number;
}
