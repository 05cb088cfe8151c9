import type { BottleStatus, TurnStatus } from "../api/bottle.ts";
import { conditionOf, type Condition, type ConditionType } from "../api/conditions.ts";
import { ANNOTATIONS } from "../api/meta.ts";
import { backendType } from "../api/template.ts";
import { historyOf, type TurnHistory } from "./journal-state.ts";
import { unservedReasons } from "./blueprint.ts";
import { isConfigured, recordedDigest } from "./rules-guard.ts";
import { isFinal, type Situation } from "./situation.ts";

/** What the deciding rule says of the bottle as a whole. */
export interface Note {
  /** Ready: it is what its spec asks for. Reconciling: it is on its way. Stalled: a person must change something. */
  state: "Ready" | "Reconciling" | "Stalled";
  reason: string;
  message: string;
  /** Why a deletion does not get on. */
  blocked?: string;
}

type Verdict = Pick<Condition, "status" | "reason" | "message">;

/** The whole status, from the situation and the decision alone; earlier status lends nothing but transition times. */
export function bottleStatus(situation: Situation, note: Note): BottleStatus {
  const { bottle, desired, deleting } = situation;
  const verdicts: Partial<Record<ConditionType, Verdict>> = {
    Accepted: accepted(situation),
    ResolvedRefs: resolvedRefs(situation),
    GuardReady: guardReady(situation),
    EgressEnforced: egressEnforced(situation),
    Ready: verdict(note.state === "Ready", note.reason, note.message),
    Frozen: frozen(situation, note),
    AgentRunning: agentRunning(situation),
    Finished: finished(situation),
    DeletionBlocked: deleting ? deletionBlocked(note) : undefined,
    Reconciling: verdict(note.state === "Reconciling", note.reason, note.message),
    Stalled: verdict(note.state === "Stalled", note.reason, note.message),
  };
  const turns = (bottle.spec.turns ?? []).map((turn) => turnStatus(turn.id, situation));
  return prune({
    observedGeneration: bottle.metadata.generation,
    conditions: conditionList(verdicts, situation),
    bottleID: bottle.metadata.uid,
    backend: backendStatus(situation),
    resolved: desired.resolution.ok
      ? prune({
          templateDigest: desired.resolution.digest,
          policyDigest: desired.resolution.egress.digest,
          image: imageOf(situation),
        })
      : undefined,
    guard: guardStatus(situation),
    turns,
    lastTurn: lastTurn(turns),
    disk: diskStatus(situation),
    egress: egressStatus(situation),
  });
}

function verdict(holds: boolean, reason: string, message: string): Verdict {
  return { status: holds ? "True" : "False", reason, message };
}

/** What is so has its own reason; what is not says what is the case instead. */
function accepted({ bottle, desired }: Situation): Verdict {
  const rejected = bottle.metadata.annotations?.[ANNOTATIONS.rejectedUpdate];
  if (rejected !== undefined) return verdict(false, "UpdateRejected", rejected);
  if (desired.resolution.ok && desired.backend.ok) {
    const reasons = unservedReasons(desired.resolution.template, desired.backend);
    if (reasons.length > 0) return verdict(false, "NotServed", reasons.join("; "));
  }
  return verdict(true, "Accepted", "the spec is accepted");
}

function resolvedRefs({ desired: { resolution } }: Situation): Verdict {
  if (resolution.ok) return verdict(true, "Resolved", "agent and templates were found");
  return verdict(false, resolution.reason, resolution.message);
}

/** Of a backend that cannot be seen nothing is said anew: what was known stays. */
function guardReady(situation: Situation): Verdict | undefined {
  const { live, holder, guard, unseen } = situation;
  if (unseen !== undefined) return undefined;
  if (live) return whyRefusing(situation) ?? verdict(true, "Running", "holder and guard run");
  if (holder === undefined && guard === undefined)
    return verdict(false, "NotRunning", "there is neither holder nor guard");
  return verdict(false, "Incomplete", "holder and guard do not both run");
}

/** Why a guard that runs lets nothing through, or not what it should; undefined if it does. */
function whyRefusing(situation: Situation): Verdict | undefined {
  const { desired, failure, heard } = situation;
  const isCurrent = isConfigured(situation);
  const failed = failure?.step === "configureGuard" && (failure.kind === "Invalid" || failure.count > 1);
  if (failed && !isCurrent) {
    return verdict(false, failure.reason, `the guard does not have the egress rules: ${failure.message}`);
  }
  const isClosed = isCurrent || !recordedDigest(situation);
  if (!desired.resolution.ok) {
    const { reason, message } = desired.resolution;
    return verdict(false, reason, `${isClosed ? "all egress is refused" : "the guard is being closed"}: ${message}`);
  }
  if (!recordedDigest(situation)) {
    return verdict(false, "NotConfigured", "all egress is refused: the guard was not told the egress rules yet");
  }
  if (heard?.health.ok !== false) return undefined;
  return verdict(false, heard.health.reason, `all egress is refused: ${heard.health.message}`);
}

function egressEnforced({ journal: { probe } }: Situation): Verdict | undefined {
  if (probe === undefined) return undefined;
  return verdict(probe.passed, probe.passed ? "ProbePassed" : "ProbeFailed", probe.detail);
}

function frozen({ journal, standing, unseen }: Situation, note: Note): Verdict {
  const down = journal.frozenMs !== undefined && (standing.length === 0 || unseen !== undefined);
  if (down) return verdict(true, "DiskOnly", "only the disk is left");
  return verdict(false, note.reason, note.message);
}

function agentRunning({ running, unseen }: Situation): Verdict | undefined {
  if (unseen !== undefined) return undefined;
  if (running === undefined) return verdict(false, "NotRunning", "no turn is running");
  return verdict(true, "TurnRunning", `turn "${running.turn}" is running`);
}

function finished({ bottle, next, journal }: Situation): Verdict {
  const turns = bottle.spec.turns ?? [];
  if (turns.length === 0) return verdict(false, "NoTurns", "no turn is declared");
  if (next !== undefined) return verdict(false, "TurnsLeft", `turn "${next.id}" has not ended`);
  const bad = turns.filter((turn) => historyOf(journal, turn.id).last?.outcome !== "Done");
  if (bad.length === 0) return verdict(true, "AllDone", "all turns are done");
  return verdict(true, "TurnsFailed", `ended otherwise than Done: ${bad.map((turn) => turn.id).join(", ")}`);
}

function deletionBlocked(note: Note): Verdict {
  if (note.blocked === undefined) return verdict(false, "Destroying", "the bottle is being destroyed");
  return verdict(true, "Blocked", note.blocked);
}

function conditionList(verdicts: Partial<Record<ConditionType, Verdict>>, { bottle, now }: Situation): Condition[] {
  const before = bottle.status?.conditions;
  const list: Condition[] = [];
  for (const [type, found] of Object.entries(verdicts) as [ConditionType, Verdict | undefined][]) {
    const old = conditionOf(before, type);
    if (found === undefined && old === undefined) continue;
    // A condition that was known once never vanishes: what cannot be told any more stays as it was.
    const { status, reason, message } = found ?? (old as Condition);
    const lastTransitionTime = old !== undefined && old.status === status ? old.lastTransitionTime : isoTime(now);
    list.push({
      type,
      status,
      reason,
      message: message.slice(0, 4096),
      observedGeneration: bottle.metadata.generation,
      lastTransitionTime,
    });
  }
  return list;
}

function backendStatus({ journal, desired }: Situation): BottleStatus["backend"] {
  const name = journal.launch?.backend ?? (desired.backend.ok ? desired.backend.name : undefined);
  if (name === undefined) return undefined;
  return { type: backendType.options.find((type) => type.toLowerCase() === name) ?? name };
}

function imageOf({ desired }: Situation): string | undefined {
  const { resolution, backend, defaultImage } = desired;
  if (!resolution.ok || !backend.ok || !backend.features.images) return undefined;
  return resolution.template.image ?? defaultImage;
}

function turnStatus(id: string, { journal, agents, unseen }: Situation): TurnStatus {
  const history = historyOf(journal, id);
  // Of a run that is on record as started nothing else is known while the backend cannot be seen.
  const running = unseen !== undefined && history.starting > history.finished;
  const unit = agents.find((agent) => agent.turn === id && agent.unit.state === "running")?.unit;
  const ended = history.last;
  return prune({
    id,
    state: turnState(history, running || unit !== undefined),
    outcome: unit === undefined ? ended?.outcome : undefined,
    exitCode: unit === undefined ? ended?.exitCode : undefined,
    attempts: Math.max(history.starting, history.finished),
    startTime: optionalTime(unit?.startedMs ?? ended?.startMs),
    completionTime: unit === undefined ? optionalTime(ended?.endMs) : undefined,
  });
}

function turnState(history: TurnHistory, running: boolean): TurnStatus["state"] {
  if (running) return "Running";
  return isFinal(history) ? "Ended" : "Pending";
}

function lastTurn(turns: readonly TurnStatus[]): BottleStatus["lastTurn"] {
  const last = turns.findLast((turn) => turn.attempts > 0);
  if (last === undefined) return undefined;
  return prune({ id: last.id, outcome: last.outcome ?? last.state, exitCode: last.exitCode });
}

function guardStatus(situation: Situation): BottleStatus["guard"] {
  const { bottle, unseen, guard, holder } = situation;
  if (unseen !== undefined) return bottle.status?.guard;
  return [
    { name: "guard", ready: guard?.state === "running" && whyRefusing(situation) === undefined },
    { name: "holder", ready: holder?.state === "running" },
  ];
}

function diskStatus({ bottle, unseen, disk, journal }: Situation): BottleStatus["disk"] {
  if (unseen !== undefined) return bottle.status?.disk;
  const workspace = disk.find((part) => part.part === "workspace");
  if (workspace === undefined) return undefined;
  return prune({ kind: workspace.kind, id: workspace.id, frozenTime: optionalTime(journal.frozenMs) });
}

/** Hosts are what an agent wrote: only so much of them is shown as a status may hold and a terminal prints. */
function egressStatus({ bottle, egress }: Situation): BottleStatus["egress"] {
  if (egress === undefined) return bottle.status?.egress;
  const { allowed, denied, dlpBlocked, lastDenied } = egress;
  const timeMs = Date.parse(lastDenied?.time ?? "");
  const last =
    lastDenied === undefined || Number.isNaN(timeMs)
      ? undefined
      : prune({
          time: isoTime(timeMs),
          host: lastDenied.host.replaceAll(/[^\x21-\x7e]/g, "?").slice(0, 253),
          port: lastDenied.port ?? undefined,
          rule: lastDenied.rule.slice(0, 63),
        });
  return prune({ allowed, denied, dlpBlocked, lastDenied: last });
}

function optionalTime(ms: number | undefined): string | undefined {
  return ms === undefined ? undefined : isoTime(ms);
}

function isoTime(ms: number): string {
  return new Date(ms).toISOString();
}

/**
 * Without members that are undefined: a status that was stored and read back compares equal. A loop, because every pass over every bottle
 * comes by here, and lists of entries made this a sixth of its time.
 */
function prune<T extends object>(value: T): T {
  const kept: Partial<T> = {};
  for (const name in value) {
    if (value[name] !== undefined) kept[name] = value[name];
  }
  return kept as T;
}
