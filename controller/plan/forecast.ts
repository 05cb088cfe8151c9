import { unreachable } from "../api/errors.ts";
import { FINALIZER } from "../api/meta.ts";
import type { BottleView, DiskPart, Role, Unit } from "../ports/backend.ts";
import type { GuardSettings } from "../ports/guard.ts";
import type { TurnKey } from "../ports/journal.ts";
import { foldEntry, foldJournal } from "./journal-state.ts";
import { planBottle } from "./plan-bottle.ts";
import type { Desired, Observed } from "./situation.ts";
import type { Step } from "./steps.ts";

/** More rounds than any bottle needs; a turn takes about six. */
const ROUNDS_MAX = 2000;

/**
 * What the loop would do for a bottle if every step succeeded and every agent ended well: the steps as short sentences, in order. It runs the planner
 * itself against an ideal backend, so that a preview cannot say anything else than what will happen.
 */
export function forecast(desired: Desired, observed: Observed, now: number): string[] {
  const sentences: string[] = [];
  let state: State = { desired, observed, gone: false };
  for (let round = 0; round < ROUNDS_MAX && !state.gone; round += 1) {
    const { steps } = planBottle(state.desired, state.observed, now);
    if (steps.length === 0) break;
    for (const step of steps) {
      const sentence = describeStep(step, state.desired);
      if (sentence !== undefined) sentences.push(sentence);
      state = applyStep(state, step, now);
    }
  }
  return sentences;
}

interface State {
  desired: Desired;
  observed: Observed;
  gone: boolean;
}

function describeStep(step: Step, { bottle, backend }: Desired): string | undefined {
  const where = backend.ok ? backend.name : "the backend";
  switch (step.kind) {
    case "addFinalizer":
    case "removeFinalizer":
    case "forget":
    case "record":
    case "createAgent":
    case "drainAudit":
      return undefined;
    case "collectTurn":
      return `keep the transcript of turn "${step.entry.turn}"`;
    case "prepare": {
      const image = step.blueprint.image === undefined ? "" : ` (image ${step.blueprint.image})`;
      return `make disk, holder and guard on ${where}${image}`;
    }
    case "probe":
      return "probe that nothing but the guard is in reach";
    case "configureGuard":
      return describeSettings(step.settings);
    case "startAgent":
      return `run turn "${step.turn}"${step.attempt > 1 ? ` again (attempt ${step.attempt})` : ""}`;
    case "stopAgent":
      return `end the run of turn "${step.turn}"`;
    case "removeUnits":
      return `remove ${step.unitIds.length} unit(s); the disk stays`;
    case "removeDisk":
      return "remove the disk";
    case "deleteResource":
      return `delete bottle "${bottle.metadata.name}"`;
    default:
      return unreachable(step);
  }
}

function describeSettings({ policy, secretRefs, closed }: GuardSettings): string {
  if (closed !== undefined) return `close the guard: ${closed.message}`;
  const secrets = secretRefs.length === 0 ? "" : ` and ${secretRefs.length} secret(s)`;
  return `give the guard ${policy.rules.length} egress rule(s)${secrets}`;
}

function applyStep(state: State, step: Step, now: number): State {
  switch (step.kind) {
    case "addFinalizer":
      return { ...state, desired: withFinalizer(state.desired) };
    case "removeFinalizer":
    case "deleteResource":
      return { ...state, gone: true };
    case "forget":
    case "drainAudit":
      return state;
    case "record":
      return withJournal(state, foldJournal(state.observed.journal, step.entries));
    case "collectTurn":
      return withJournal(state, foldEntry(state.observed.journal, step.entry));
    case "probe":
      return withJournal(
        state,
        foldEntry(state.observed.journal, {
          type: "Probed",
          timeMs: now,
          holderId: step.holderId,
          passed: true,
          detail: "",
        }),
      );
    case "configureGuard": {
      const { guardId, settings } = step;
      const entry = { type: "GuardConfigured", timeMs: now, guardId, digest: settings.digest } as const;
      return withJournal(state, foldEntry(state.observed.journal, entry));
    }
    case "prepare": {
      const made = (["holder", "guard"] as const).map((role) => unit(role, step.blueprint.specHash, now));
      return withView(state, (view) => ({ ...view, units: [...view.units, ...made], disk: idealDisk(now) }));
    }
    case "createAgent": {
      const { turn, attempt } = step.run;
      const made = {
        ...unit("agent", step.blueprint.specHash, now),
        state: "created" as const,
        turn: { turn, attempt },
      };
      return withView(state, (view) => ({ ...view, units: [...view.units, made] }));
    }
    case "startAgent":
      return withView(state, (view) => ended(view, step, 0, now));
    case "stopAgent":
      return withView(state, (view) => ended(view, step, 143, now));
    case "removeUnits":
      return withView(state, (view) => removed(view, step.unitIds));
    case "removeDisk":
      return withView(state, (view) => ({ ...view, disk: [] }));
    default:
      return unreachable(step);
  }
}

function withFinalizer(desired: Desired): Desired {
  const { bottle } = desired;
  return {
    ...desired,
    bottle: {
      ...bottle,
      metadata: { ...bottle.metadata, finalizers: [...(bottle.metadata.finalizers ?? []), FINALIZER] },
    },
  };
}

function withJournal(state: State, journal: Observed["journal"]): State {
  return { ...state, observed: { ...state.observed, journal } };
}

function withView(state: State, change: (view: BottleView) => BottleView): State {
  const { uid, namespace, name } = state.desired.bottle.metadata;
  const known = state.observed.view.state === "seen" ? state.observed.view.bottle : undefined;
  const view = known ?? { uid, namespace, name, units: [], disk: [] };
  return { ...state, observed: { ...state.observed, view: { state: "seen", bottle: change(view) } } };
}

function unit(role: Role, specHash: string, now: number): Unit {
  return { id: role, role, state: "running", specHash, createdMs: now, startedMs: now };
}

function idealDisk(now: number): DiskPart[] {
  return (["home", "workspace", "sockets"] as const).map((part) => ({
    id: part,
    part,
    kind: "Directory",
    createdMs: now,
  }));
}

function ended(view: BottleView, run: TurnKey, code: number, now: number): BottleView {
  const units = view.units.map((each) => {
    const isRun = each.turn?.turn === run.turn && each.turn.attempt === run.attempt;
    return isRun
      ? { ...each, state: "exited" as const, startedMs: now, finishedMs: now, exit: { code, oom: false } }
      : each;
  });
  return { ...view, units };
}

function removed(view: BottleView, unitIds: readonly string[]): BottleView {
  const units = view.units.filter((each) => !unitIds.includes(each.id));
  const disk = units.length === 0 ? view.disk.filter((part) => part.part !== "sockets") : view.disk;
  return { ...view, units, disk };
}
