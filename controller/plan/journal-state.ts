import type { JournalEntry, StopReason } from "../ports/journal.ts";

/** What the journal says of one turn. */
export interface TurnHistory {
  /** Attempts that were announced. The unit of the newest may not have started if the controller died right after. */
  starting: number;
  /** Attempts that ended. Never above `starting` but for runs that somebody else started. */
  finished: number;
  /** Attempts that ended as Interrupted for another reason than a freeze; bounded, so that a bottle that cannot live does not retry for ever. */
  breakdowns: number;
  stop?: { attempt: number; reason: StopReason; timeMs: number };
  last?: Extract<JournalEntry, { type: "TurnFinished" }>;
}

/** The journal of one bottle, folded. */
export interface JournalState {
  /** The newest launch; its backend is the bottle's for good. */
  launch?: Extract<JournalEntry, { type: "LaunchIntended" }>;
  probe?: Extract<JournalEntry, { type: "Probed" }>;
  /** The newest settings of a guard. */
  configured?: Extract<JournalEntry, { type: "GuardConfigured" }>;
  turns: ReadonlyMap<string, TurnHistory>;
  /** Since when nothing but the disk is there; absent while the bottle is live. */
  frozenMs?: number;
  expiredMs?: number;
}

export const EMPTY_JOURNAL: JournalState = { turns: new Map() };

const NO_HISTORY: TurnHistory = { starting: 0, finished: 0, breakdowns: 0 };

export function historyOf(state: JournalState, turn: string): TurnHistory {
  return state.turns.get(turn) ?? NO_HISTORY;
}

/** Adds one entry. The given state is left as it is. */
export function foldEntry(state: JournalState, entry: JournalEntry): JournalState {
  switch (entry.type) {
    case "LaunchIntended":
      return { ...state, launch: entry, frozenMs: undefined };
    case "Probed":
      return { ...state, probe: entry };
    case "GuardConfigured":
      return { ...state, configured: entry };
    case "Frozen":
      return { ...state, frozenMs: entry.timeMs };
    case "Expired":
      return { ...state, expiredMs: entry.timeMs };
    case "TurnStarting":
    case "TurnStopRequested":
    case "TurnFinished":
      return { ...state, turns: new Map(state.turns).set(entry.turn, foldTurn(historyOf(state, entry.turn), entry)) };
  }
}

type TurnEntry = Extract<JournalEntry, { type: "TurnStarting" | "TurnStopRequested" | "TurnFinished" }>;

function foldTurn(history: TurnHistory, entry: TurnEntry): TurnHistory {
  switch (entry.type) {
    case "TurnStarting":
      return { ...history, starting: Math.max(history.starting, entry.attempt) };
    case "TurnStopRequested":
      return { ...history, stop: { attempt: entry.attempt, reason: entry.reason, timeMs: entry.timeMs } };
    case "TurnFinished": {
      const frozen = history.stop?.attempt === entry.attempt && history.stop.reason === "Freeze";
      const breakdown = entry.outcome === "Interrupted" && !frozen;
      return {
        ...history,
        finished: Math.max(history.finished, entry.attempt),
        breakdowns: history.breakdowns + (breakdown ? 1 : 0),
        last: entry,
      };
    }
  }
}

/** Folds entries in order over what is already known. */
export function foldJournal(state: JournalState, entries: readonly JournalEntry[]): JournalState {
  return entries.reduce(foldEntry, state);
}
