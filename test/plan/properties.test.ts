import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import { bottleStatus } from "../../controller/api/bottle.ts";
import { conditionOf } from "../../controller/api/conditions.ts";
import { FINALIZER } from "../../controller/api/meta.ts";
import { planBottle } from "../../controller/plan/plan-bottle.ts";
import { isConfigured, recordedDigest } from "../../controller/plan/rules-guard.ts";
import { situationOf } from "../../controller/plan/situation.ts";
import type { Plan, Step } from "../../controller/plan/steps.ts";
import { anyState, type AnyState } from "./any-state.ts";
import { freshModel, happen, histories } from "./histories.ts";
import type { Model } from "./model.ts";

/** States that were drawn freely, and those along histories that a bottle may have. Each rule below must hold in both. */
function inEveryState(check: (state: AnyState) => void): void {
  fc.assert(fc.property(anyState, check), { numRuns: 1500 });
  fc.assert(
    fc.property(histories, (history) => {
      const model = freshModel();
      for (const what of history) {
        const state = model.input();
        if (state !== undefined && what.type === "pass") check(state);
        happen(model, what);
      }
    }),
    { numRuns: 150 },
  );
}

function planOf({ desired, observed, now }: AnyState): Plan {
  return planBottle(desired, observed, now);
}

function stepsOf<K extends Step["kind"]>(plan: Plan, kind: K): Extract<Step, { kind: K }>[] {
  return plan.steps.filter((step): step is Extract<Step, { kind: K }> => step.kind === kind);
}

describe("in every state", () => {
  it("planning is a function: it does not throw, changes nothing it is given, and says the same again", () => {
    inEveryState((state) => {
      const before = structuredClone(state);
      deepFreeze(state);

      const first = planOf(state);

      expect(planOf(state)).toEqual(first);
      expect(state).toEqual(before);
    });
  });

  it("an agent starts only between a running holder and guard, after a probe of that holder, in a bottle that is to run", () => {
    inEveryState((state) => {
      const starts = stepsOf(planOf(state), "startAgent");
      if (starts.length === 0) return;

      const situation = situationOf(state.desired, state.observed, state.now);
      const { holder, live, deleting, bottle, journal } = situation;
      expect(starts).toHaveLength(1);
      expect({ live, deleting, mode: bottle.spec.operatingMode, expired: journal.expiredMs }).toEqual({
        live: true,
        deleting: false,
        mode: "Running",
        expired: undefined,
      });
      expect(journal.probe).toMatchObject({ passed: true, holderId: holder?.id });
      expect(isConfigured(situation)).toBe(true);
    });
  });

  it("a guard is told its rules only while it runs, and what it is told is what the bottle's references say, or nothing at all", () => {
    inEveryState((state) => {
      for (const { guardId, settings } of stepsOf(planOf(state), "configureGuard")) {
        const { guard } = situationOf(state.desired, state.observed, state.now);
        expect({ id: guard?.id, state: guard?.state }).toEqual({ id: guardId, state: "running" });
        expect(settings.token).toBe(state.desired.token);
        if (state.desired.resolution.ok) expect(settings.policy).toEqual(state.desired.resolution.egress.policy);
        else expect(settings).toMatchObject({ policy: { rules: [] }, secretRefs: [], closed: {} });
      }
    });
  });

  it("a running guard that was told its rules goes only after its audit was read", () => {
    inEveryState((state) => {
      const situation = situationOf(state.desired, state.observed, state.now);
      const { steps } = planOf(state);
      const index = steps.findIndex((step) => step.kind === "removeUnits");
      const removal = steps[index];
      if (removal?.kind !== "removeUnits" || recordedDigest(situation) === undefined) return;
      if (!removal.unitIds.includes(situation.guard?.id ?? "")) return;

      expect(steps[index - 1]).toMatchObject({ kind: "drainAudit", guardId: situation.guard?.id });
    });
  });

  it("an agent that runs is never ended because of what its guard lets through", () => {
    inEveryState((state) => {
      const { running, deleting } = situationOf(state.desired, state.observed, state.now);
      if (running === undefined || deleting || !state.desired.resolution.ok) return;

      const closed = { ok: false, reason: "SecretNotFound", message: "create it" } as const;
      const without = planOf({ ...state, desired: { ...state.desired, resolution: closed } });
      expect(stepsOf(without, "stopAgent")).toEqual(stepsOf(planOf(state), "stopAgent"));
      expect(stepsOf(without, "removeUnits")).toEqual([]);
    });
  });

  it("no two agents run: none starts or is made while one runs", () => {
    inEveryState((state) => {
      const { running } = situationOf(state.desired, state.observed, state.now);
      if (running === undefined) return;

      const kinds = planOf(state).steps.map((step) => step.kind);
      expect(kinds).not.toContain("startAgent");
      expect(kinds).not.toContain("createAgent");
    });
  });

  it("the start of an agent is on record right before it happens", () => {
    inEveryState((state) => {
      const { steps } = planOf(state);
      const index = steps.findIndex((step) => step.kind === "startAgent");
      const start = steps[index];
      if (start?.kind !== "startAgent") return;

      const { turn, attempt } = start;
      const before = steps[index - 1];
      const recorded = (state.observed.journal.turns.get(turn)?.starting ?? 0) >= attempt;
      const announced =
        before?.kind === "record" &&
        before.entries.some(
          (entry) => entry.type === "TurnStarting" && entry.turn === turn && entry.attempt === attempt,
        );
      expect(announced).toBe(!recorded);
    });
  });

  it("why an agent is stopped is on record before it is", () => {
    inEveryState((state) => {
      const { steps } = planOf(state);
      for (const stop of stepsOf({ ...planOf(state), steps }, "stopAgent")) {
        const known = state.observed.journal.turns.get(stop.turn)?.stop?.attempt === stop.attempt;
        expect(steps.map((step) => step.kind)).toEqual(known ? ["stopAgent"] : ["record", "stopAgent"]);
      }
    });
  });

  it("a disk is removed only if the bottle is deleted or its time is over, and only when no unit is left", () => {
    inEveryState((state) => {
      if (stepsOf(planOf(state), "removeDisk").length === 0) return;

      const { deleting, journal, units } = situationOf(state.desired, state.observed, state.now);
      expect(deleting || journal.expiredMs !== undefined).toBe(true);
      expect(units).toEqual([]);
    });
  });

  it("a unit is removed only after it ran, and a run only after its end is on record, unless the bottle is deleted", () => {
    inEveryState((state) => {
      const { deleting, units, agents } = situationOf(state.desired, state.observed, state.now);
      for (const { unitIds } of stepsOf(planOf(state), "removeUnits")) {
        expect(units.map((unit) => unit.id)).toEqual(expect.arrayContaining([...unitIds]));
        if (deleting) continue;
        for (const { unit, recorded } of agents.filter((agent) => unitIds.includes(agent.unit.id))) {
          expect(unit.state).not.toBe("running");
          expect(unit.state === "created" || recorded).toBe(true);
        }
      }
    });
  });

  it("on a backend that cannot be seen nothing is done but what does not touch it", () => {
    inEveryState((state) => {
      if (state.observed.view.state === "seen") return;

      const { deleting, journal } = situationOf(state.desired, state.observed, state.now);
      const done = planOf(state).steps.map((step) =>
        step.kind === "record" ? `record ${step.entries.map((entry) => entry.type).join()}` : step.kind,
      );
      if (deleting && journal.launch === undefined) expect(["forget,removeFinalizer", ""]).toContain(done.join());
      else expect(["", "deleteResource", "record Expired"]).toContain(done.join());
    });
  });

  it("nothing is made on a backend before finalizer and intent are stored", () => {
    inEveryState((state) => {
      const { steps } = planOf(state);
      const prepared = steps.findIndex((step) => step.kind === "prepare");
      if (prepared === -1) return;

      const before = steps.slice(0, prepared);
      const { finalizers } = state.desired.bottle.metadata;
      const { launch, frozenMs } = state.observed.journal;
      const held = finalizers?.includes(FINALIZER) === true;
      const intended = launch !== undefined && frozenMs === undefined;
      expect(before.map((step) => step.kind)).toEqual([
        ...(held ? [] : ["addFinalizer"]),
        ...(intended ? [] : ["record"]),
      ]);
    });
  });

  it("a plan without steps asks for no pass at once, which would spin", () => {
    inEveryState((state) => {
      const { steps, requeueAfterMs } = planOf(state);

      if (steps.length === 0 && requeueAfterMs !== undefined) expect(requeueAfterMs).toBeGreaterThan(0);
    });
  });

  it("the status is one that a cluster accepts, and exactly one of Ready, Reconciling and Stalled is true", () => {
    inEveryState((state) => {
      const { status } = planOf(state);

      expect(bottleStatus.safeParse(status).error).toBeUndefined();
      const states = (["Ready", "Reconciling", "Stalled"] as const).map((type) => conditionOf(status.conditions, type));
      expect(states.map((condition) => condition?.status).sort()).toEqual(["False", "False", "True"]);
    });
  });

  it("a condition keeps the time of its last change, and one that was known never vanishes", () => {
    inEveryState(({ desired, observed, now }) => {
      const first = planBottle(desired, observed, now).status;
      const stored = { ...desired, bottle: { ...desired.bottle, status: first } };
      const later = planBottle(stored, observed, now + 400).status;

      for (const condition of first.conditions ?? []) {
        const again = conditionOf(later.conditions, condition.type);
        expect(again).toBeDefined();
        if (again?.status === condition.status) expect(again.lastTransitionTime).toBe(condition.lastTransitionTime);
      }
    });
  });
});

describe("from every state that a history leads to", () => {
  it("a backend that works brings the bottle to rest within forty passes, with every turn ended or a person told why not", () => {
    fc.assert(
      fc.property(histories, (history) => {
        const model = freshModel();
        for (const what of history) happen(model, what);

        const passes = settle(model);

        expect(passes).toBeLessThanOrEqual(40);
        if (model.bottle !== undefined) expectAtRest(model);
      }),
      { numRuns: 400 },
    );
  });

  it("at rest a second look does nothing", () => {
    fc.assert(
      fc.property(histories, (history) => {
        const model = freshModel();
        for (const what of history) happen(model, what);
        settle(model);

        const { status } = model.pass() ?? {};

        expect(model.pass()?.status).toEqual(status);
      }),
      { numRuns: 150 },
    );
  });
});

/** Everything works from now on and every agent ends well at once. Returns how many passes did something. */
function settle(model: Model): number {
  model.seen = true;
  model.sealed = true;
  model.resolves = true;
  let passes = 0;
  for (let looks = 0; looks < 100; looks += 1) {
    for (const id of model.ids("agent")) model.end(id, 0);
    const plan = model.pass();
    if (plan === undefined) return passes;
    if (plan.steps.length > 0) passes += 1;
    else if (plan.requeueAfterMs === undefined) return passes;
    else model.now += plan.requeueAfterMs;
  }
  return Infinity;
}

function expectAtRest(model: Model): void {
  const { bottle, units, disk } = model;
  const reason = conditionOf(bottle?.status?.conditions, "Ready")?.reason;
  expect(["Frozen", "Live", "NeverLaunched", "DiskLost"]).toContain(reason);
  if (reason === "DiskLost") return;
  expect(units.map((unit) => unit.role).sort()).toEqual(reason === "Live" ? ["guard", "holder"] : []);
  if (reason === "Frozen") expect(disk.map((part) => part.part)).not.toContain("sockets");
  if (bottle?.spec.operatingMode === "Running") {
    expect(bottle.status?.turns?.map((turn) => turn.state)).toEqual(bottle.spec.turns?.map(() => "Ended"));
  }
}

/** A planner that writes to what it is given fails at the write; maps cannot be frozen and are compared instead. */
function deepFreeze(value: unknown): void {
  if (typeof value !== "object" || value === null || Object.isFrozen(value)) return;
  Object.freeze(value);
  for (const member of value instanceof Map ? value.values() : Object.values(value)) deepFreeze(member);
}
