import * as fc from "fast-check";
import type { Bottle } from "../../controller/api/bottle.ts";
import { TURN_OUTCOMES } from "../../controller/api/bottle.ts";
import { ANNOTATIONS, API_VERSION, FINALIZER } from "../../controller/api/meta.ts";
import { agentBlueprint, blueprintOf } from "../../controller/plan/blueprint.ts";
import { EMPTY_JOURNAL, foldJournal, type JournalState } from "../../controller/plan/journal-state.ts";
import { settingsOf, type Desired, type Observed } from "../../controller/plan/situation.ts";
import type { DiskPart, Unit } from "../../controller/ports/backend.ts";
import type { JournalEntry } from "../../controller/ports/journal.ts";
import { FEATURES, NO_EGRESS, NOW } from "./case-reader.ts";

/** Any state that types allow, also those that no history leads to: a planner that is total does not trust the past. */
export interface AnyState {
  desired: Desired;
  observed: Observed;
  now: number;
}

const turnIds = ["first", "second", "third"] as const;
const timeMs = fc.integer({ min: -4000, max: 10 }).map((seconds) => NOW + seconds * 1000);
const turn = fc.constantFrom(...turnIds);
const attempt = fc.integer({ min: 1, max: 4 });
const key = { timeMs, turn, attempt };
const holderId = fc.constantFrom("unit-0", "unit-1", "unit-9");

/** Stands for the digest of the settings that the drawn bottle's guard must have. */
const CURRENT = "current";

const entry: fc.Arbitrary<JournalEntry> = fc.oneof(
  fc.record({
    type: fc.constant("LaunchIntended"),
    timeMs,
    backend: fc.constant("docker"),
    generation: fc.constant(1),
    templateDigest: fc.constant("sha256:1"),
  }),
  fc.record({ type: fc.constant("Probed"), timeMs, holderId, passed: fc.boolean(), detail: fc.constant("detail") }),
  fc.record({
    type: fc.constant("GuardConfigured"),
    timeMs,
    guardId: fc.constantFrom("unit-0", "unit-1", "unit-9"),
    digest: fc.constantFrom(CURRENT, CURRENT, CURRENT, "sha256:old", ""),
  }),
  fc.record({ type: fc.constant("TurnStarting"), ...key }),
  fc.record({
    type: fc.constant("TurnStopRequested"),
    ...key,
    reason: fc.constantFrom("Freeze", "Deadline", "GuardLost", "Delete"),
  }),
  fc.record({
    type: fc.constant("TurnFinished"),
    ...key,
    outcome: fc.constantFrom(...TURN_OUTCOMES),
    exitCode: fc.constantFrom(undefined, 0, 1, 137),
    endMs: timeMs,
  }),
  fc.record({ type: fc.constantFrom("Frozen", "Expired"), timeMs }),
);

const unit = fc.record({
  role: fc.constantFrom("holder", "guard", "agent", "session"),
  state: fc.constantFrom("created", "running", "exited"),
  current: fc.boolean(),
  turn: fc.record({ turn, attempt }),
  createdMs: timeMs,
  startedMs: fc.option(timeMs, { nil: undefined }),
  finishedMs: fc.option(timeMs, { nil: undefined }),
  exit: fc.option(fc.record({ code: fc.constantFrom(undefined, 0, 1, 137, 143), oom: fc.boolean() }), {
    nil: undefined,
  }),
});

const bottle = fc.record({
  turns: fc.subarray([...turnIds]),
  operatingMode: fc.constantFrom("Running", "Frozen"),
  lifecycle: fc.option(
    fc.record({
      afterTurn: fc.constantFrom("Freeze", "Keep", "Delete"),
      turnDeadlineSeconds: fc.constantFrom(60, 3600),
      ttlSecondsAfterFrozen: fc.constantFrom(undefined, 0, 600),
    }),
    { nil: undefined },
  ),
  memory: fc.constantFrom(undefined, "4Gi"),
  deleting: fc.boolean(),
  finalizers: fc.subarray([FINALIZER, "example.com/other"]),
  annotations: fc.subarray(["source", "importing", "rejectedUpdate"] as const),
});

const drawn = fc.record({
  bottle,
  resolves: fc.boolean(),
  /** One in eight backends is not served, one in eight does not answer. */
  backend: fc.constantFrom("ok", "ok", "ok", "ok", "ok", "noLimits", "unserved", "unseen"),
  entries: fc.array(entry, { maxLength: 12, size: "max" }),
  units: fc.array(unit, { maxLength: 5, size: "max" }),
  disk: fc.subarray(["home", "workspace", "sockets"] as const),
  failure: fc.option(
    fc.record({
      step: fc.constantFrom("prepare", "startAgent", "removeUnits", "configureGuard"),
      kind: fc.constantFrom("Invalid", "Transient", "Conflict"),
      reason: fc.constant("EngineError"),
      message: fc.constant("the step failed"),
      atMs: timeMs,
      count: fc.integer({ min: 1, max: 9 }),
    }),
    { nil: undefined },
  ),
  heard: fc.option(
    fc.record({
      guardId: fc.constantFrom("unit-1", "unit-1", "unit-9"),
      health: fc.constantFrom({ ok: true } as const, { ok: false, reason: "AuditFull", message: "unread" } as const),
      digest: fc.constantFrom(CURRENT, CURRENT, "sha256:old", undefined),
    }),
    { nil: undefined },
  ),
  counters: fc.option(
    fc.record({
      allowed: fc.nat(),
      denied: fc.nat(),
      dlpBlocked: fc.nat(),
      hosts: fc.constant({}),
      lastDenied: fc.option(
        fc.record({
          time: fc.constantFrom("2026-11-20T11:59:00Z", "2026-11-20T12:59:00.123456+01:00", "yesterday"),
          host: fc.constantFrom("api.example.com", "x".repeat(400), "\u001b[2J\n"),
          port: fc.constantFrom(443, null),
          rule: fc.constantFrom("default-deny", "r".repeat(80)),
        }),
        { nil: undefined },
      ),
    }),
    { nil: undefined },
  ),
});

// Half of the states are nudged towards health, or hardly one would get past the rules that come first.
export const anyState: fc.Arbitrary<AnyState> = fc
  .record({ drawn, healthy: fc.boolean() })
  .map(({ drawn: raw, healthy }) => {
    const desired = desiredOf(raw, healthy);
    return { desired, observed: observedOf(raw, desired, healthy), now: NOW };
  });

type Drawn = typeof drawn extends fc.Arbitrary<infer T> ? T : never;

function desiredOf(raw: Drawn, healthy: boolean): Desired {
  const { turns, operatingMode, lifecycle, memory, deleting, finalizers, annotations } = raw.bottle;
  const agent = { provider: { type: "Custom" as const, custom: { command: ["work"] } } };
  const made: Bottle = {
    apiVersion: API_VERSION,
    kind: "Bottle",
    metadata: {
      name: "fix",
      namespace: "default",
      uid: "uid-1",
      resourceVersion: "1",
      generation: 1,
      creationTimestamp: "2026-11-20T11:00:00Z",
      deletionTimestamp: deleting && !healthy ? "2026-11-20T11:59:00Z" : undefined,
      finalizers,
      annotations: healthy
        ? {}
        : Object.fromEntries(annotations.map((name) => [ANNOTATIONS[name], `value of ${name}`])),
    },
    spec: { agent, operatingMode, lifecycle, turns: turns.map((id) => ({ id, prompt: `do ${id}` })) },
  };
  const holds = raw.backend !== "noLimits";
  return {
    bottle: made,
    resolution:
      raw.resolves || healthy
        ? { ok: true, agent, template: { env: [], resources: { memory } }, digest: "sha256:1", egress: NO_EGRESS }
        : { ok: false, reason: "AgentNotFound", message: "the agent does not exist" },
    backend:
      raw.backend === "unserved"
        ? { ok: false, reason: "BackendUnknown", message: "the backend is not served" }
        : { ok: true, name: "docker", features: { ...FEATURES, limits: { cpu: true, memory: holds, pids: true } } },
    defaultImage: "image",
    token: "token",
  };
}

function observedOf(raw: Drawn, desired: Desired, healthy: boolean): Observed {
  const { bottle: made, resolution } = desired;
  const resolved = resolution.ok ? resolution : { template: { env: [], resources: {} }, egress: NO_EGRESS };
  const blueprint = blueprintOf(made, resolved, { features: FEATURES, defaultImage: "image", token: "token" });
  const { specHash } = blueprint;
  const agentHash = agentBlueprint(blueprint).specHash;
  const current = settingsOf(desired).digest;
  const exact = (digest: string | undefined): string | undefined => (digest === CURRENT ? current : digest);
  const live = healthy ? [door("holder", specHash), door("guard", specHash)] : [];
  const units = [
    ...live,
    ...raw.units
      .filter((one) => !healthy || one.role === "agent")
      .map(({ current: isCurrent, ...one }, index): Unit => ({
        ...one,
        id: `unit-${index + live.length}`,
        turn: one.role === "agent" ? one.turn : undefined,
        specHash: isCurrent || healthy ? (one.role === "agent" ? agentHash : specHash) : "old-spec",
      })),
  ];
  const parts: readonly DiskPart["part"][] = healthy ? ["home", "workspace", "sockets"] : raw.disk;
  const disk = parts.map((part): DiskPart => ({ id: `disk-${part}`, part, kind: "Volume", createdMs: NOW }));
  const identity = { uid: "uid-1", namespace: "default", name: "fix" };
  const away = raw.backend === "unserved" || raw.backend === "unseen";
  return {
    journal: honest(
      foldJournal(
        EMPTY_JOURNAL,
        raw.entries.map((one) =>
          one.type === "GuardConfigured" ? { ...one, digest: exact(one.digest) ?? current } : one,
        ),
      ),
    ),
    view: away
      ? { state: "unseen", reason: "BackendUnavailable", message: "the backend does not answer" }
      : { state: "seen", bottle: units.length + disk.length === 0 ? undefined : { ...identity, units, disk } },
    failure: raw.failure,
    guard: raw.heard && { ...raw.heard, digest: exact(raw.heard.digest) },
    egress: raw.counters,
  };
}

function door(role: "holder" | "guard", specHash: string): Unit {
  const id = role === "holder" ? "unit-0" : "unit-1";
  return { id, role, state: "running", specHash, createdMs: NOW - 60_000, startedMs: NOW - 60_000 };
}

const LAUNCH = {
  type: "LaunchIntended",
  timeMs: NOW - 60_000,
  backend: "docker",
  generation: 1,
  templateDigest: "sha256:1",
} as const;

/** What no journal says: that a run was announced in a bottle that was never launched, or that is frozen. */
function honest(journal: JournalState): JournalState {
  const pending = [...journal.turns.values()].some((history) => history.starting > history.finished);
  return pending ? { ...journal, launch: journal.launch ?? LAUNCH, frozenMs: undefined } : journal;
}
