import type { StopReason } from "../ports/journal.ts";
import { ANNOTATIONS, FINALIZER } from "../api/meta.ts";
import { historyOf } from "./journal-state.ts";
import { KILL_SETTLE_MS, STOP_GRACE_MS, UNSEEN_RETRY_MS } from "./limits.ts";
import { progress, type Decision, type Rule } from "./rule.ts";
import { configureHoldMs, guardSteps, removal } from "./rules-guard.ts";
import { outcomeOf, vanishedOutcome, wasKilled } from "./outcome.ts";
import type { AgentUnit, Situation } from "./situation.ts";
import type { Step } from "./steps.ts";

/** Steps of a deletion: only their failures hold it up. */
const DESTROYING: readonly Step["kind"][] = ["drainAudit", "removeUnits", "removeDisk", "forget", "removeFinalizer"];

/** A bottle that is being deleted loses its units, then its disk, then its journal, and only then its finalizer. */
const destroy: Rule = (situation) => {
  const { deleting, unseen: why, units, disk, bottle, journal, failure } = situation;
  if (!deleting) return undefined;
  const note = { state: "Reconciling", reason: "Destroying", message: "the bottle is being destroyed" } as const;
  const launched = journal.launch !== undefined;
  if (launched && why !== undefined)
    return { requeueAfterMs: UNSEEN_RETRY_MS, note: { ...note, blocked: why.message } };
  const blocked = failure !== undefined && DESTROYING.includes(failure.step) ? failure.message : undefined;
  if (units.length > 0) return { steps: removal(situation, units), note: { ...note, blocked } };
  if (disk.length > 0) return { steps: [{ kind: "removeDisk" }], note: { ...note, blocked } };
  if (bottle.metadata.finalizers?.includes(FINALIZER) !== true)
    return { note: { ...note, blocked: "another finalizer is still set" } };
  return { steps: [{ kind: "forget" }, { kind: "removeFinalizer" }], note };
};

const importing: Rule = ({ bottle }) => {
  if (bottle.metadata.annotations?.[ANNOTATIONS.importing] === undefined) return undefined;
  return { note: { state: "Reconciling", reason: "Importing", message: "the disk is being filled by an import" } };
};

/** On a backend that cannot be observed nothing is started, stopped or removed. A bottle that should be down, and was when last seen, is left as it is. */
const unseen: Rule = ({ unseen: why, wanted, journal, desired }) => {
  if (why === undefined) return undefined;
  const down = journal.launch === undefined || journal.frozenMs !== undefined;
  if (!wanted && down && journal.expiredMs === undefined) return undefined;
  // A backend that is not there at all comes back only if a person does something.
  const state = desired.backend.ok ? "Reconciling" : "Stalled";
  return { requeueAfterMs: UNSEEN_RETRY_MS, note: { state, reason: why.reason, message: why.message } };
};

/**
 * An engine that goes down ends its containers side by side, so that for a moment an agent is seen killed beside a holder that still runs. What
 * killed it shows a little later: by then the holder is down as well, or the backend is out of sight.
 */
const settleKilled: Rule = ({ agents, live, now }) => {
  const killed = agents.find((agent) => !agent.recorded && wasKilled(agent));
  if (killed === undefined || !live) return undefined;
  const waitMs = (killed.unit.finishedMs ?? 0) + KILL_SETTLE_MS - now;
  if (waitMs <= 0 || waitMs > KILL_SETTLE_MS) return undefined;
  const message = `turn "${killed.turn}" was killed from outside`;
  return { requeueAfterMs: waitMs, note: { state: "Reconciling", reason: "TurnEnded", message } };
};

/** The end of a run is put on record before anything else happens to its unit. */
const collectEnded: Rule = (situation) => {
  const ended = situation.agents.find((agent) => agent.unit.state === "exited" && !agent.recorded);
  if (ended === undefined) return undefined;
  const { entry, event } = outcomeOf(situation, ended);
  return {
    steps: [{ kind: "collectTurn", entry, event }],
    note: { state: "Reconciling", reason: "TurnEnded", message: `turn "${ended.turn}" ended` },
  };
};

/** A run that was announced and is gone was removed by somebody else; it may have worked, so it is not simply started again. */
const recordVanished: Rule = (situation) => {
  const { bottle, journal, agents, unseen: why } = situation;
  if (why !== undefined) return undefined;
  for (const { id: turn } of bottle.spec.turns ?? []) {
    const history = historyOf(journal, turn);
    const attempt = history.starting;
    if (attempt <= history.finished || agents.some((agent) => agent.turn === turn && agent.attempt === attempt))
      continue;
    const { entry, event } = vanishedOutcome(situation, { turn, attempt, history });
    const message = `the unit of turn "${turn}" is gone from the backend`;
    return {
      steps: [{ kind: "record", entries: [entry], event }],
      note: { state: "Reconciling", reason: "TurnInterrupted", message },
    };
  }
  return undefined;
};

/** A running agent goes on unless it must not: frozen, out of time, or without its guard. What its guard lets through may change under it. */
const superviseRunning: Rule = (situation) => {
  const { running, now, bottle } = situation;
  if (running === undefined) return undefined;
  const reason = stopReason(situation, running);
  if (reason !== undefined) return stop(running, reason, now);
  const deadlineMs = (bottle.spec.lifecycle?.turnDeadlineSeconds ?? 3600) * 1000;
  const leftMs = Math.max(0, (running.unit.startedMs ?? now) + deadlineMs - now);
  const holdMs = configureHoldMs(situation);
  const steps = holdMs === undefined ? guardSteps(situation) : [];
  return {
    steps,
    requeueAfterMs: steps.length > 0 ? undefined : Math.min(leftMs, holdMs ?? leftMs),
    note: runningNote(situation, running, steps.length > 0),
  };
};

function runningNote(situation: Situation, { turn }: AgentUnit, isConfiguring: boolean): Decision["note"] {
  const { resolution } = situation.desired;
  const { failure } = situation;
  const message = `turn "${turn}" is running`;
  if (!resolution.ok) {
    const closed = `${message} and all its egress is refused: ${resolution.message}`;
    return { state: "Stalled", reason: resolution.reason, message: closed };
  }
  if (failure !== undefined && configureHoldMs(situation) !== undefined) {
    const refused = `${message} behind the egress rules of before: ${failure.message}`;
    return { state: "Stalled", reason: failure.reason, message: refused };
  }
  if (isConfiguring) return progress(situation, "Configuring", `${message}, and its guard is told the egress rules`);
  return { state: "Ready", reason: "AgentRunning", message };
}

function stopReason({ bottle, live, now }: Situation, running: AgentUnit): StopReason | undefined {
  const asked = running.history.stop;
  if (asked !== undefined && asked.attempt === running.attempt) return asked.reason;
  if (bottle.spec.operatingMode === "Frozen") return "Freeze";
  if (!live) return "GuardLost";
  const deadlineMs = (bottle.spec.lifecycle?.turnDeadlineSeconds ?? 3600) * 1000;
  return (running.unit.startedMs ?? now) + deadlineMs <= now ? "Deadline" : undefined;
}

const STOP_WORDS: Record<StopReason, string> = {
  Freeze: "the bottle is to be frozen",
  Deadline: "its deadline has passed",
  GuardLost: "holder or guard no longer runs",
  Delete: "the bottle is to be destroyed",
};

/** The reason is on record before the signal: after a crash nobody could tell why the agent died. */
function stop({ turn, attempt, history }: AgentUnit, reason: StopReason, now: number): Decision {
  const message = `turn "${turn}" is being ended: ${STOP_WORDS[reason]}`;
  const recorded = history.stop?.attempt === attempt;
  const announce = {
    kind: "record",
    entries: [{ type: "TurnStopRequested", timeMs: now, turn, attempt, reason }],
    event: { type: "Normal", reason: "TurnStopping", message },
  } as const;
  return {
    steps: [...(recorded ? [] : [announce]), { kind: "stopAgent", turn, attempt, graceMs: STOP_GRACE_MS }],
    note: { state: "Reconciling", reason: "TurnStopping", message },
  };
}

/** What is ending. */
export const endRules: readonly Rule[] = [
  destroy,
  importing,
  unseen,
  settleKilled,
  collectEnded,
  recordVanished,
  superviseRunning,
];
