import { TURN_OUTCOMES, type BottleStatus } from "../../controller/api/bottle.ts";
import { unreachable } from "../../controller/api/errors.ts";
import type { Step } from "../../controller/plan/steps.ts";
import type { Role, Unit } from "../../controller/ports/backend.ts";
import type { JournalEntry, StopReason } from "../../controller/ports/journal.ts";

/** How long ago things happened in a case that does not say. */
const DEFAULT_AGO_S = 10;

const STOP_REASONS: readonly StopReason[] = ["Freeze", "Deadline", "GuardLost", "Delete"];
const ROLES: readonly Role[] = ["agent", "session", "holder", "guard"];

/** The digest that a guard has: `current`, `old` or `none`. */
export function digestOf(word: string | undefined, current: string): string {
  const found = oneOf(["current", "old", "none"] as const, word ?? "current", word ?? "");
  return { current, old: "sha256:old", none: "" }[found];
}

/**
 * One journal entry: `launch`, `frozen`, `expired`, `probe [failed] [holder-ID]`, `configured [old|none] [guard-ID]`, `starting TURN N`,
 * `stop TURN N Reason`, `finished TURN N Outcome [CODE]`, each with an optional `… 30s ago`. `digest` is that of the settings a guard must have now.
 */
export function journalEntry(line: string, { now, digest }: { now: number; digest: string }): JournalEntry {
  const { rest, ago } = withoutAgo(line);
  const timeMs = now - (ago ?? DEFAULT_AGO_S) * 1000;
  const [word = "", ...more] = rest.split(" ");
  switch (word) {
    case "launch":
      return { type: "LaunchIntended", timeMs, backend: "docker", generation: 1, templateDigest: "sha256:1" };
    case "frozen":
      return { type: "Frozen", timeMs };
    case "expired":
      return { type: "Expired", timeMs };
    case "probe": {
      const passed = more[0] !== "failed";
      const holderId = more[passed ? 0 : 1] ?? "holder-1";
      return { type: "Probed", timeMs, holderId, passed, detail: passed ? "all is sealed" : "DNS answers" };
    }
    case "configured": {
      const guardId = more.find((part) => part.startsWith("guard-")) ?? "guard-1";
      const which = more.find((part) => part !== guardId);
      return { type: "GuardConfigured", timeMs, guardId, digest: digestOf(which, digest) };
    }
    case "starting":
      return { type: "TurnStarting", timeMs, ...turnKey(more, line) };
    case "stop":
      return { type: "TurnStopRequested", timeMs, ...turnKey(more, line), reason: oneOf(STOP_REASONS, more[2], line) };
    case "finished": {
      const outcome = oneOf(TURN_OUTCOMES, more[2], line);
      const exitCode = more[3] === undefined ? undefined : Number(more[3]);
      return { type: "TurnFinished", timeMs, ...turnKey(more, line), outcome, exitCode, endMs: timeMs };
    }
    default:
      throw new Error(`cannot read journal entry "${line}"`);
  }
}

/**
 * One unit: `holder running`, `guard exited`, `session running`, `agent TURN N created`, `agent TURN N running [60s ago]`,
 * `agent TURN N exited [CODE] [oom] [5s ago]` (without a code it is unknown); with `old-spec` it was made from another spec.
 */
export function unit(line: string, context: { now: number; index: number; specHash: string; agentHash: string }): Unit {
  const { rest, ago } = withoutAgo(line);
  const given = rest.split(" ");
  const old = given.at(-1) === "old-spec";
  const [word, ...more] = old ? given.slice(0, -1) : given;
  const role = oneOf(ROLES, word, line);
  const turn = role === "agent" ? turnKey(more, line) : undefined;
  const [state, ...end] = role === "agent" ? more.slice(2) : more;
  const known = oneOf(["created", "running", "exited"] as const, state, line);
  const { now, index } = context;
  const code = end.find((part) => /^\d+$/.test(part));
  const ranMs = now - (ago ?? DEFAULT_AGO_S) * 1000;
  return {
    id: turn === undefined ? `${role}-1` : `agent-${turn.turn}-${turn.attempt}`,
    role,
    state: known,
    specHash: old ? "old-spec" : role === "agent" ? context.agentHash : context.specHash,
    turn,
    createdMs: Math.min(ranMs, now - 60_000) + index,
    startedMs: known === "created" ? undefined : Math.min(ranMs, now - DEFAULT_AGO_S * 1000),
    finishedMs: known === "exited" ? ranMs : undefined,
    exit:
      known === "exited"
        ? { code: code === undefined ? undefined : Number(code), oom: end.includes("oom") }
        : undefined,
  };
}

/** A step as a case writes it. */
export function stepText(step: Step): string {
  switch (step.kind) {
    case "addFinalizer":
    case "removeFinalizer":
    case "deleteResource":
    case "forget":
    case "prepare":
    case "removeDisk":
      return step.kind;
    case "record":
      return `record ${step.entries.map(entryText).join(", ")}`;
    case "probe":
      return `probe ${step.holderId}`;
    case "configureGuard": {
      const closed = step.settings.closed === undefined ? [] : ["closed"];
      return ["configureGuard", step.guardId, ...(step.trust ? ["trust"] : []), ...closed].join(" ");
    }
    case "drainAudit":
      return `drainAudit ${step.guardId}`;
    case "createAgent":
      return `createAgent ${step.run.turn} ${step.run.attempt}`;
    case "startAgent":
    case "stopAgent":
      return `${step.kind} ${step.turn} ${step.attempt}`;
    case "collectTurn":
      return `collectTurn ${entryText(step.entry).replace("finished ", "")}`;
    case "removeUnits":
      return `removeUnits ${step.unitIds.join(" ")}`.trim();
    default:
      return unreachable(step);
  }
}

/** A turn's status as a case writes it: id, state, outcome and exit code. */
export function turnText(turn: NonNullable<BottleStatus["turns"]>[number]): string {
  return [turn.id, turn.state, turn.outcome, turn.exitCode].filter((part) => part !== undefined).join(" ");
}

function entryText(entry: JournalEntry): string {
  switch (entry.type) {
    case "LaunchIntended":
      return "launch";
    case "Probed":
      return `probe ${entry.passed ? "passed" : "failed"}`;
    case "GuardConfigured":
      return entry.digest === "" ? "configured none" : "configured";
    case "TurnStarting":
      return `starting ${entry.turn} ${entry.attempt}`;
    case "TurnStopRequested":
      return `stop ${entry.turn} ${entry.attempt} ${entry.reason}`;
    case "TurnFinished": {
      const code = entry.exitCode === undefined ? "" : ` ${entry.exitCode}`;
      return `finished ${entry.turn} ${entry.attempt} ${entry.outcome}${code}`;
    }
    case "Frozen":
      return "frozen";
    case "Expired":
      return "expired";
    default:
      return unreachable(entry);
  }
}

function withoutAgo(line: string): { rest: string; ago?: number } {
  const found = /^(.*) (\d+(?:\.\d+)?)s ago$/.exec(line);
  return found?.[1] === undefined ? { rest: line } : { rest: found[1], ago: Number(found[2]) };
}

function turnKey([turn, attempt]: readonly string[], line: string): { turn: string; attempt: number } {
  if (turn === undefined || !/^[1-9]\d*$/.test(attempt ?? "")) throw new Error(`cannot read turn in "${line}"`);
  return { turn, attempt: Number(attempt) };
}

function oneOf<T extends string>(values: readonly T[], word: string | undefined, line: string): T {
  const found = values.find((value) => value === word);
  if (found === undefined) throw new Error(`cannot read "${line}": "${word ?? ""}" is none of ${values.join(", ")}`);
  return found;
}
