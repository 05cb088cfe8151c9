import type { TurnOutcome } from "../api/bottle.ts";
import { unreachable } from "../api/errors.ts";
import type { JournalEntry } from "../ports/journal.ts";
import type { TurnHistory } from "./journal-state.ts";
import { BREAKDOWNS_MAX } from "./limits.ts";
import type { AgentUnit, Situation } from "./situation.ts";
import type { EventNote } from "./steps.ts";

type TurnFinished = Extract<JournalEntry, { type: "TurnFinished" }>;

/** Codes of a process that was ended from outside: 128 + SIGKILL, 128 + SIGTERM. */
const KILLED_CODES: readonly number[] = [137, 143];

/** How an exited run ended, as a journal entry and the event that tells of it. */
export function outcomeOf(situation: Situation, agent: AgentUnit): { entry: TurnFinished; event: EventNote } {
  const { unit, turn, attempt } = agent;
  const found = outcome(situation, agent);
  const worn = found === "Interrupted" && wornOut(agent);
  const entry = {
    type: "TurnFinished",
    timeMs: situation.now,
    turn,
    attempt,
    outcome: worn ? "Failed" : found,
    exitCode: unit.exit?.code,
    startMs: unit.startedMs,
    endMs: unit.finishedMs ?? situation.now,
  } as const;
  return { entry, event: eventOf(entry, worn) };
}

function outcome({ holder }: Situation, agent: AgentUnit): TurnOutcome {
  const { exit, finishedMs } = agent.unit;
  const stop = agent.history.stop;
  const stopped = stop?.attempt === agent.attempt && (finishedMs === undefined || finishedMs >= stop.timeMs);
  if (stopped) return stop.reason === "Deadline" ? "DeadlineExceeded" : "Interrupted";
  if (exit?.code === 0) return "Done";
  if (exit?.oom === true) return "OOMKilled";
  if (exit?.code === undefined) return "Interrupted";
  // The holder outlives its agent, so a holder that is down means that host or engine went away and took the agent along.
  if (KILLED_CODES.includes(exit.code) && holder?.state !== "running") return "Interrupted";
  return "Failed";
}

/** Ended from outside, by somebody who put no reason on record. */
export function wasKilled({ unit, history, attempt }: AgentUnit): boolean {
  if (unit.state !== "exited" || unit.exit?.code === undefined || unit.exit.oom) return false;
  return KILLED_CODES.includes(unit.exit.code) && history.stop?.attempt !== attempt;
}

/** How a run ended whose unit is gone: it was ended, or it was interrupted. */
export function vanishedOutcome(
  situation: Situation,
  run: { turn: string; attempt: number; history: TurnHistory },
): { entry: TurnFinished; event: EventNote } {
  const { turn, attempt, history } = run;
  const late = history.stop?.attempt === attempt && history.stop.reason === "Deadline";
  const worn = !late && wornOut(run);
  const ended = late ? "DeadlineExceeded" : worn ? "Failed" : "Interrupted";
  const { now } = situation;
  const entry = { type: "TurnFinished", timeMs: now, turn, attempt, outcome: ended, endMs: now } as const;
  return { entry, event: eventOf(entry, worn) };
}

/** Whether another breakdown is one too many. A freeze is none. */
function wornOut({ history, attempt }: { history: TurnHistory; attempt: number }): boolean {
  const frozen = history.stop?.attempt === attempt && history.stop.reason === "Freeze";
  return !frozen && history.breakdowns + 1 >= BREAKDOWNS_MAX;
}

function eventOf(entry: TurnFinished, worn: boolean): EventNote {
  const what = `turn "${entry.turn}"`;
  const code = entry.exitCode === undefined ? "no exit code" : `exit code ${entry.exitCode}`;
  switch (entry.outcome) {
    case "Done":
      return { type: "Normal", reason: "TurnDone", message: `${what} is done` };
    case "Failed": {
      const why = worn ? `it was interrupted ${BREAKDOWNS_MAX} times` : code;
      return { type: "Warning", reason: "TurnFailed", message: `${what} failed: ${why}` };
    }
    case "Interrupted":
      return { type: "Warning", reason: "TurnInterrupted", message: `${what} was interrupted: ${code}` };
    case "DeadlineExceeded":
      return {
        type: "Warning",
        reason: "TurnDeadlineExceeded",
        message: `${what} ran longer than its deadline and was ended`,
      };
    case "OOMKilled":
      return {
        type: "Warning",
        reason: "TurnOOMKilled",
        message: `${what} was killed because it used more memory than its limit`,
      };
    default:
      return unreachable(entry.outcome);
  }
}
