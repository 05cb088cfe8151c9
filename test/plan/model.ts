import type { Bottle, BottleSpec } from "../../controller/api/bottle.ts";
import { unreachable } from "../../controller/api/errors.ts";
import { API_VERSION, FINALIZER } from "../../controller/api/meta.ts";
import type { BottleTemplate } from "../../controller/api/template.ts";
import { EMPTY_JOURNAL, foldJournal, type JournalState } from "../../controller/plan/journal-state.ts";
import { planBottle } from "../../controller/plan/plan-bottle.ts";
import { resolveBottle } from "../../controller/plan/resolve.ts";
import type { Desired, Observed, StepFailure } from "../../controller/plan/situation.ts";
import type { Plan, Step } from "../../controller/plan/steps.ts";
import type { Blueprint, DiskPart, Role, Unit } from "../../controller/ports/backend.ts";
import type { GuardSettings } from "../../controller/ports/guard.ts";
import { NOW, FEATURES } from "./case-reader.ts";

/** How a pass goes wrong: at the step with this index, before or after its effect. */
export interface PassFault {
  index: number;
  when: "before" | "after";
  kind: StepFailure["kind"];
}

const KNOWN = {
  name: "fix",
  namespace: "default",
  uid: "uid-1",
  resourceVersion: "1",
  generation: 1,
  creationTimestamp: "2026-11-20T11:00:00Z",
};

/**
 * One bottle and a backend without delays: each step has the effect its port documents, at once. Steps that a backend would refuse, because the
 * bottle is not in the state they need, throw: the looks here are never stale, so a plan that asks for one is wrong.
 */
export class Model {
  now = NOW;
  bottle: Bottle | undefined;
  journal: JournalState = EMPTY_JOURNAL;
  units: Unit[] = [];
  disk: DiskPart[] = [];
  failure: StepFailure | undefined;
  /** Whether the backend answers, and what probes find. */
  seen = true;
  sealed = true;
  /** Whether references resolve. */
  resolves = true;
  /** The one host that the bottle's template allows. */
  host = "one.example";
  /** What the running guards have, by id. */
  readonly guards = new Map<string, GuardSettings>();
  /** Guards whose authority the agent's home holds. */
  trusted: string | undefined;
  readonly drained = new Set<string>();
  image = "image-1";
  /** Ids of units count up: one that is made again is another one. */
  #lastId = 0;

  constructor(spec: Partial<BottleSpec>) {
    const agent = { provider: { type: "Custom" as const, custom: { command: ["work"] } } };
    this.bottle = {
      apiVersion: API_VERSION,
      kind: "Bottle",
      metadata: KNOWN,
      spec: { agent, operatingMode: "Running", templateRefs: [{ name: "t" }], ...spec },
    };
  }

  edit(change: (spec: BottleSpec) => BottleSpec): void {
    if (this.bottle === undefined || this.bottle.metadata.deletionTimestamp !== undefined) return;
    const { metadata, spec } = this.bottle;
    this.bottle = {
      ...this.bottle,
      metadata: { ...metadata, generation: metadata.generation + 1 },
      spec: change(spec),
    };
    this.failure = undefined;
  }

  delete(): void {
    if (this.bottle === undefined) return;
    const { metadata } = this.bottle;
    if ((metadata.finalizers ?? []).length === 0) this.bottle = undefined;
    else this.bottle = { ...this.bottle, metadata: { ...metadata, deletionTimestamp: "2026-11-20T12:00:00Z" } };
  }

  /** What the planner is given; undefined once the bottle is gone. */
  input(): { desired: Desired; observed: Observed; now: number } | undefined {
    const { bottle, units, disk, journal, failure, now } = this;
    if (bottle === undefined) return undefined;
    const resolution = this.resolves
      ? resolveBottle(bottle, { agent: () => undefined, template: () => this.#template(), secret: () => undefined })
      : ({ ok: false, reason: "AgentNotFound", message: "the agent does not exist" } as const);
    const view = units.length + disk.length === 0 ? undefined : { uid: "uid-1", namespace: "default", name: "fix" };
    return {
      desired: {
        bottle,
        resolution,
        backend: { ok: true, name: "docker", features: FEATURES },
        defaultImage: this.image,
        token: "token",
      },
      observed: {
        journal,
        view: this.seen
          ? { state: "seen", bottle: view && { ...view, units: [...units], disk: [...disk] } }
          : { state: "unseen", reason: "BackendUnavailable", message: "the backend does not answer" },
        failure,
      },
      now,
    };
  }

  /** One pass: plan, store the status, do the steps up to the fault. Returns the plan; undefined once the bottle is gone. */
  pass(fault?: PassFault): Plan | undefined {
    const input = this.input();
    if (input === undefined) return undefined;
    const plan = planBottle(input.desired, input.observed, input.now);
    if (this.bottle !== undefined) this.bottle = { ...this.bottle, status: plan.status };
    for (const [index, step] of plan.steps.entries()) {
      if (index === fault?.index) {
        if (fault.when === "after") this.perform(step);
        this.#fail(step, fault.kind);
        return plan;
      }
      this.perform(step);
      this.failure = undefined;
    }
    return plan;
  }

  perform(step: Step): void {
    switch (step.kind) {
      case "addFinalizer":
        return this.#setFinalizers([FINALIZER]);
      case "removeFinalizer":
        this.#setFinalizers([]);
        return this.bottle?.metadata.deletionTimestamp === undefined ? undefined : this.delete();
      case "deleteResource":
        return this.delete();
      case "forget":
        this.journal = EMPTY_JOURNAL;
        return undefined;
      case "record":
        this.journal = foldJournal(this.journal, step.entries);
        return undefined;
      case "prepare":
        return this.#prepare(step.blueprint);
      case "probe":
        refuseUnless(this.#state(step.holderId) === "running", "probe of a holder that does not run");
        this.journal = foldJournal(this.journal, [
          { type: "Probed", timeMs: this.now, holderId: step.holderId, passed: this.sealed, detail: "detail" },
        ]);
        return undefined;
      case "configureGuard":
        return this.#configure(step);
      case "drainAudit":
        refuseUnless(this.#state(step.guardId) === "running", "reading the audit of a guard that does not run");
        this.drained.add(step.guardId);
        return undefined;
      case "createAgent":
        return this.#create("agent", step.blueprint.specHash, { turn: step.run.turn, attempt: step.run.attempt });
      case "startAgent":
        return this.#start(step);
      case "stopAgent":
        return this.end(this.#agentId(step), 143);
      case "collectTurn":
        refuseUnless(this.#state(this.#agentId(step.entry)) === "exited", "collecting a run that has not ended");
        this.journal = foldJournal(this.journal, [step.entry]);
        return undefined;
      case "removeUnits":
        this.#mustBeDrained(step.unitIds);
        this.units = this.units.filter((unit) => !step.unitIds.includes(unit.id));
        if (this.ids("holder").length + this.ids("guard").length === 0) {
          this.disk = this.disk.filter(({ part }) => part !== "sockets");
        }
        return undefined;
      case "removeDisk":
        refuseUnless(this.units.length === 0, "removing a disk in use");
        this.disk = [];
        return undefined;
      default:
        return unreachable(step);
    }
  }

  /** A unit ends by itself or is ended; one that does not run is left alone. */
  end(id: string | undefined, code: number | undefined, oom = false): void {
    this.units = this.units.map((unit) =>
      unit.id === id && unit.state === "running"
        ? { ...unit, state: "exited", finishedMs: this.now, exit: { code, oom } }
        : unit,
    );
  }

  /** The ids of all units with that role. */
  ids(role: Role): string[] {
    return this.units.filter((unit) => unit.role === role).map((unit) => unit.id);
  }

  /** A guard that runs and was told something takes lines with it that nobody read. */
  #mustBeDrained(unitIds: readonly string[]): void {
    for (const { id, state } of this.units) {
      if (!unitIds.includes(id) || state !== "running" || !this.guards.has(id)) continue;
      const recorded = this.journal.configured?.guardId === id;
      refuseUnless(!recorded || this.drained.has(id), "removing a guard whose audit was not read");
    }
  }

  #configure({ guardId, settings, trust }: Extract<Step, { kind: "configureGuard" }>): void {
    refuseUnless(this.#state(guardId) === "running", "settings for a guard that does not run");
    this.guards.set(guardId, settings);
    if (trust) this.trusted = guardId;
    const { digest } = settings;
    this.journal = foldJournal(this.journal, [{ type: "GuardConfigured", timeMs: this.now, guardId, digest }]);
  }

  #template(): BottleTemplate {
    const rule = { name: "api", host: this.host, action: "Allow" as const };
    const metadata = { ...KNOWN, name: "t" };
    return { apiVersion: API_VERSION, kind: "BottleTemplate", metadata, spec: { egress: { rules: [rule] } } };
  }

  #prepare({ specHash }: Blueprint): void {
    const doors = this.units.filter((unit) => unit.role === "holder" || unit.role === "guard");
    refuseUnless(!doors.some((unit) => unit.state === "exited"), "prepare over a holder or guard that has exited");
    refuseUnless(!doors.some((unit) => unit.specHash !== specHash), "prepare over units of another spec");
    for (const part of ["home", "workspace", "sockets"] as const) {
      if (this.disk.some((found) => found.part === part)) continue;
      this.disk = [...this.disk, { id: `disk-${part}`, part, kind: "Volume", createdMs: this.now }];
    }
    for (const role of ["holder", "guard"] as const) {
      if (!doors.some((unit) => unit.role === role)) this.#create(role, specHash);
    }
    this.units = this.units.map((unit) => (unit.role === "agent" ? unit : this.#running(unit)));
  }

  #create(role: Role, specHash: string, turn?: Unit["turn"]): void {
    if (turn !== undefined && this.#agentId(turn) !== undefined) return;
    this.#lastId += 1;
    const id = `${role}-${this.#lastId}`;
    this.units = [...this.units, { id, role, state: "created", specHash, turn, createdMs: this.now }];
  }

  #start(key: { turn: string; attempt: number }): void {
    const id = this.#agentId(key);
    refuseUnless(id !== undefined, "start of a unit that is absent");
    for (const role of ["holder", "guard"] as const) {
      const up = this.units.some((unit) => unit.role === role && unit.state === "running");
      refuseUnless(up, `start of an agent while no ${role} runs`);
    }
    const guard = this.units.find((unit) => unit.role === "guard")?.id ?? "";
    const rules = this.guards.get(guard)?.policy.rules ?? [];
    refuseUnless(rules[0]?.host === this.host, "start of an agent behind a guard without the current rules");
    refuseUnless(this.trusted === guard, "start of an agent that does not trust its guard");
    this.units = this.units.map((unit) => (unit.id === id ? this.#running(unit) : unit));
  }

  #running(unit: Unit): Unit {
    return unit.state === "created" ? { ...unit, state: "running", startedMs: this.now } : unit;
  }

  #agentId(key: { turn: string; attempt: number }): string | undefined {
    return this.units.find((unit) => unit.turn?.turn === key.turn && unit.turn.attempt === key.attempt)?.id;
  }

  #state(id: string | undefined): Unit["state"] | undefined {
    return this.units.find((unit) => unit.id === id)?.state;
  }

  #setFinalizers(finalizers: string[]): void {
    if (this.bottle !== undefined) {
      this.bottle = { ...this.bottle, metadata: { ...this.bottle.metadata, finalizers } };
    }
  }

  #fail(step: Step, kind: StepFailure["kind"]): void {
    const count = (this.failure?.count ?? 0) + 1;
    const reason = kind === "Invalid" ? "ImageNotFound" : "EngineError";
    this.failure = { step: step.kind, kind, reason, message: "the step failed", atMs: this.now, count };
  }
}

function refuseUnless(holds: boolean, what: string): void {
  if (!holds) throw new Error(`the backend refuses: ${what}`);
}
