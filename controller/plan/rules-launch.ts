import { FINALIZER } from "../api/meta.ts";
import { agentRun } from "../agents/agent-run.ts";
import type { AgentSpec } from "../api/agent.ts";
import type { Blueprint } from "../ports/backend.ts";
import { agentBlueprint, blueprintOf, unservedReasons } from "./blueprint.ts";
import { historyOf } from "./journal-state.ts";
import { INVALID_RETRY_MS, PROBE_RETRY_MS } from "./limits.ts";
import { progress, type Rule } from "./rule.ts";
import { closeGuard, configure, removal } from "./rules-guard.ts";
import type { AgentUnit, Situation } from "./situation.ts";
import type { Step } from "./steps.ts";

const unresolved: Rule = ({ desired }) => {
  if (desired.resolution.ok) return undefined;
  return { note: { state: "Stalled", reason: desired.resolution.reason, message: desired.resolution.message } };
};

const unserved: Rule = ({ desired }) => {
  const { backend, resolution } = desired;
  if (!backend.ok || !resolution.ok) return undefined;
  const reasons = unservedReasons(resolution.template, backend);
  if (reasons.length === 0) return undefined;
  return { note: { state: "Stalled", reason: "NotServed", message: reasons.join("; ") } };
};

/** The engine said that the command cannot be started at all: that is how the turn ended, as a shell would say it. */
const commandNotFound: Rule = ({ failure, agents, now }) => {
  if (failure?.step !== "startAgent" || failure.kind !== "Invalid") return undefined;
  const agent = agents.find(({ unit, recorded }) => unit.state === "created" && !recorded);
  if (agent === undefined || agent.history.starting < agent.attempt) return undefined;
  const { turn, attempt } = agent;
  const entry = {
    type: "TurnFinished",
    timeMs: now,
    turn,
    attempt,
    outcome: "Failed",
    exitCode: 127,
    endMs: now,
  } as const;
  return {
    steps: [
      {
        kind: "record",
        entries: [entry],
        event: { type: "Warning", reason: "TurnFailed", message: `turn "${turn}" failed: ${failure.message}` },
      },
    ],
    note: { state: "Reconciling", reason: failure.reason, message: failure.message },
  };
};

/** What only a person can mend is not tried again at once; a changed spec forgets the failure. */
const held: Rule = ({ failure, now }) => {
  if (failure?.kind !== "Invalid") return undefined;
  const waitMs = failure.atMs + INVALID_RETRY_MS - now;
  if (waitMs <= 0) return undefined;
  return { requeueAfterMs: waitMs, note: { state: "Stalled", reason: failure.reason, message: failure.message } };
};

/** What stands in the way of the next run: recorded runs, runs of another turn, a holder or guard that is down or made from another blueprint. */
const clear: Rule = (situation) => {
  const { units, holder, guard, agents, next, journal } = situation;
  const blueprint = blueprintFor(situation);
  if (blueprint === undefined) return undefined;
  // A guard that was made anew for a holder that was probed with another one has not been probed.
  const halved = guard === undefined && holder !== undefined && journal.probe?.holderId === holder.id;
  const replaced = [holder, guard].some(
    (unit) => unit?.state === "exited" || (unit !== undefined && unit.specHash !== blueprint.specHash),
  );
  const stale = halved || replaced;
  const orphaned = holder === undefined && agents.length > 0;
  const doomed =
    stale || orphaned
      ? units
      : agents.filter((agent) => !isNextRun(agent, next?.id, blueprint)).map((agent) => agent.unit);
  if (doomed.length === 0) return undefined;
  return {
    steps: removal(situation, doomed),
    note: { state: "Reconciling", reason: "Clearing", message: "what is left of the last run is being removed" },
  };
};

function isNextRun(
  { unit, turn, attempt, history, recorded }: AgentUnit,
  next: string | undefined,
  blueprint: Blueprint,
): boolean {
  return (
    turn === next &&
    !recorded &&
    unit.state === "created" &&
    attempt === history.finished + 1 &&
    unit.specHash === agentBlueprint(blueprint).specHash
  );
}

/** Intent first, then holder, guard and disk; the agent's unit is made along with them but starts only after the probe. */
const prepare: Rule = (situation) => {
  const { live, bottle, journal, desired, now, disk } = situation;
  const blueprint = blueprintFor(situation);
  if (blueprint === undefined || !desired.backend.ok || !desired.resolution.ok) return undefined;
  const whole = live && ["home", "workspace", "sockets"].every((part) => disk.some((found) => found.part === part));
  if (whole) return undefined;
  const steps: Step[] = [];
  if (bottle.metadata.finalizers?.includes(FINALIZER) !== true) steps.push({ kind: "addFinalizer" });
  const launch = {
    type: "LaunchIntended",
    timeMs: now,
    backend: desired.backend.name,
    generation: blueprint.generation,
    templateDigest: desired.resolution.digest,
  } as const;
  if (journal.launch === undefined || journal.frozenMs !== undefined) steps.push({ kind: "record", entries: [launch] });
  steps.push({
    kind: "prepare",
    blueprint,
    event: { type: "Normal", reason: "Launched", message: `holder and guard run on ${desired.backend.name}` },
  });
  steps.push(...createStep(situation, blueprint, desired.resolution.agent));
  return { steps, note: progress(situation, "Launching", "disk, holder and guard are being made") };
};

/** No agent starts in a bottle before a look from inside showed that it is sealed. */
const probe: Rule = (situation) => {
  const { holder, journal, units } = situation;
  if (holder === undefined) return undefined;
  const last = journal.probe;
  if (last === undefined || last.holderId !== holder.id) {
    return {
      steps: [{ kind: "probe", holderId: holder.id }],
      note: progress(situation, "Probing", "the fresh bottle is being probed"),
    };
  }
  if (last.passed) return undefined;
  const message = `the probe of the fresh bottle failed, so no agent is started: ${last.detail}`;
  return {
    steps: removal(situation, units, { type: "Warning", reason: "ProbeFailed", message }),
    note: { state: "Stalled", reason: "ProbeFailed", message },
  };
};

/** After a failed probe the bottle stays down for a while; it is down when this is asked. */
const probeFailed: Rule = ({ journal, holder, now }) => {
  const last = journal.probe;
  if (last === undefined || last.passed || holder !== undefined) return undefined;
  const waitMs = last.timeMs + PROBE_RETRY_MS - now;
  if (waitMs <= 0) return undefined;
  return {
    requeueAfterMs: waitMs,
    note: {
      state: "Stalled",
      reason: "ProbeFailed",
      message: `the probe of the fresh bottle failed, so no agent is started: ${last.detail}`,
    },
  };
};

const start: Rule = (situation) => {
  const { agents, next, desired, now } = situation;
  const blueprint = blueprintFor(situation);
  if (next === undefined || blueprint === undefined || !desired.resolution.ok) return undefined;
  const created = agents.find((agent) => isNextRun(agent, next.id, blueprint));
  const note = progress(situation, "TurnStarting", `turn "${next.id}" is being started`);
  if (created === undefined) return { steps: createStep(situation, blueprint, desired.resolution.agent), note };
  const { turn, attempt, history } = created;
  const again = attempt > 1 ? ` again (attempt ${attempt})` : "";
  const announce: Step[] =
    history.starting >= attempt
      ? []
      : [{ kind: "record", entries: [{ type: "TurnStarting", timeMs: now, turn, attempt }] }];
  return {
    steps: [
      ...announce,
      {
        kind: "startAgent",
        turn,
        attempt,
        event: { type: "Normal", reason: "TurnStarted", message: `turn "${turn}" started${again}` },
      },
    ],
    note,
  };
};

function createStep({ next, journal, agents }: Situation, blueprint: Blueprint, agent: AgentSpec): Step[] {
  if (next === undefined || agents.some((found) => isNextRun(found, next.id, blueprint))) return [];
  const attempt = historyOf(journal, next.id).finished + 1;
  return [{ kind: "createAgent", blueprint: agentBlueprint(blueprint), run: agentRun({ agent, turn: next, attempt }) }];
}

function blueprintFor({ desired }: Situation): Blueprint | undefined {
  const { resolution, backend, bottle, defaultImage, token } = desired;
  if (!resolution.ok || !backend.ok) return undefined;
  return blueprintOf(bottle, resolution, { features: backend.features, defaultImage, token });
}

/** What is starting. */
export const launchRules: readonly Rule[] = [
  closeGuard,
  unresolved,
  unserved,
  commandNotFound,
  held,
  clear,
  probeFailed,
  prepare,
  probe,
  configure,
  start,
];
