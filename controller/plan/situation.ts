import { unreachable } from "../api/errors.ts";
import type { Bottle, Turn } from "../api/bottle.ts";
import type { EgressCounters } from "../ports/audit.ts";
import type { BackendErrorKind, BackendFeatures, BottleView, DiskPart, Unit } from "../ports/backend.ts";
import type { GuardHealth, GuardSettings } from "../ports/guard.ts";
import { closedSettings, guardSettings } from "./guard-settings.ts";
import { COPY_MS_MAX } from "./limits.ts";
import { historyOf, type JournalState, type TurnHistory } from "./journal-state.ts";
import type { Resolution } from "./resolve.ts";
import type { Step } from "./steps.ts";

/** The backend a bottle runs on: pinned by its first launch, else chosen; or why there is none. */
export type BackendChoice =
  { ok: true; name: string; features: BackendFeatures } | { ok: false; reason: string; message: string };

/** What people want of one bottle, references followed. */
export interface Desired {
  bottle: Bottle;
  resolution: Resolution;
  backend: BackendChoice;
  /** Image of agents whose templates name none. */
  defaultImage: string;
  /** What this bottle's agent shows its guard. */
  token: string;
}

/** What a guard said of itself when it was last heard. */
export interface HeardGuard {
  guardId: string;
  health: GuardHealth;
  /** Of the settings it has; absent: it has none. */
  digest?: string;
}

/** The last step that failed, until a step succeeds or the spec changes. */
export interface StepFailure {
  step: Step["kind"];
  kind: BackendErrorKind;
  reason: string;
  message: string;
  atMs: number;
  /** Failures in a row. */
  count: number;
}

/** What is known of one bottle: what its backend shows and what happened before. */
export interface Observed {
  journal: JournalState;
  view: { state: "seen"; bottle?: BottleView } | { state: "unseen"; reason: string; message: string };
  failure?: StepFailure;
  /** Absent: nothing was heard yet. */
  guard?: HeardGuard;
  /** Absent: unknown. */
  egress?: EgressCounters;
}

/** One agent unit together with what its turn's history says of it. */
export interface AgentUnit {
  unit: Unit;
  turn: string;
  attempt: number;
  history: TurnHistory;
  /** Its end is in the journal already. */
  recorded: boolean;
}

/** Desired and observed state sorted by meaning: what the rules of the plan look at. */
export interface Situation {
  desired: Desired;
  bottle: Bottle;
  journal: JournalState;
  failure?: StepFailure;
  now: number;
  deleting: boolean;
  /** Why the backend could not be observed; absent if it was. */
  unseen?: { reason: string; message: string };
  units: readonly Unit[];
  /** Units without those that somebody copies through right now: a frozen bottle may have such a helper. */
  standing: readonly Unit[];
  agents: readonly AgentUnit[];
  running?: AgentUnit;
  holder?: Unit;
  guard?: Unit;
  /** Holder and guard run. */
  live: boolean;
  /** What a guard that runs must be told now; absent while none runs. */
  settings?: GuardSettings;
  heard?: HeardGuard;
  egress?: EgressCounters;
  disk: readonly DiskPart[];
  /** The first declared turn that has not ended for good. */
  next?: Turn;
  /** Whether holder and guard should run now. */
  wanted: boolean;
}

export function situationOf(desired: Desired, observed: Observed, now: number): Situation {
  const { bottle } = desired;
  const { journal, failure } = observed;
  const view = observed.view.state === "seen" ? observed.view.bottle : undefined;
  const units = view?.units ?? [];
  const agents = units.flatMap((unit) => agentUnit(unit, journal));
  const holder = newest(units, "holder");
  const guard = newest(units, "guard");
  const next = (bottle.spec.turns ?? []).find((turn) => !isFinal(historyOf(journal, turn.id)));
  const keep = bottle.spec.lifecycle?.afterTurn === "Keep";
  return {
    desired,
    bottle,
    journal,
    failure,
    now,
    deleting: bottle.metadata.deletionTimestamp !== undefined,
    unseen: observed.view.state === "unseen" ? observed.view : undefined,
    units,
    standing: units.filter((unit) => !isCopying(unit, now)),
    agents,
    running: agents.find((agent) => agent.unit.state === "running"),
    holder,
    guard,
    live: holder?.state === "running" && guard?.state === "running",
    settings: guard?.state === "running" ? settingsOf(desired) : undefined,
    heard: observed.guard?.guardId === guard?.id ? observed.guard : undefined,
    egress: observed.egress,
    disk: view?.disk ?? [],
    next,
    wanted: bottle.spec.operatingMode === "Running" && journal.expiredMs === undefined && (next !== undefined || keep),
  };
}

/** While nobody can say what is allowed, nothing is. */
export function settingsOf({ bottle, resolution, token }: Desired): GuardSettings {
  if (!resolution.ok) return closedSettings(token, resolution);
  return guardSettings({ uid: bottle.metadata.uid, token }, resolution.egress);
}

/** An interrupted turn goes on; every other end is for good. */
export function isFinal(history: TurnHistory): boolean {
  return history.last !== undefined && history.last.outcome !== "Interrupted";
}

/** A helper is a session that never runs; one that is older was left behind by a command that died. */
function isCopying(unit: Unit, now: number): boolean {
  return unit.role === "session" && unit.state === "created" && unit.createdMs + COPY_MS_MAX > now;
}

function agentUnit(unit: Unit, journal: JournalState): AgentUnit[] {
  switch (unit.role) {
    case "agent": {
      if (unit.turn === undefined) return [];
      const { turn, attempt } = unit.turn;
      const history = historyOf(journal, turn);
      return [{ unit, turn, attempt, history, recorded: attempt <= history.finished }];
    }
    case "holder":
    case "guard":
    case "session":
      return [];
    default:
      return unreachable(unit.role);
  }
}

function newest(units: readonly Unit[], role: Unit["role"]): Unit | undefined {
  return units.filter((unit) => unit.role === role).sort((a, b) => b.createdMs - a.createdMs)[0];
}
