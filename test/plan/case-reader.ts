import { parse } from "yaml";
import { z } from "zod";
import type { Bottle } from "../../controller/api/bottle.ts";
import { bottleSpec } from "../../controller/api/bottle.ts";
import { ANNOTATIONS, API_VERSION, FINALIZER } from "../../controller/api/meta.ts";
import { backendType, resourceLimits } from "../../controller/api/template.ts";
import { agentBlueprint, blueprintOf } from "../../controller/plan/blueprint.ts";
import { guardPolicyOf, policyDigest, type ResolvedEgress } from "../../controller/plan/guard-settings.ts";
import { EMPTY_JOURNAL, foldJournal } from "../../controller/plan/journal-state.ts";
import type { EffectiveTemplate } from "../../controller/plan/resolve.ts";
import { settingsOf } from "../../controller/plan/situation.ts";
import type { BackendChoice, Desired, HeardGuard, Observed, StepFailure } from "../../controller/plan/situation.ts";
import type { BackendFeatures, Blueprint, DiskPart, Unit } from "../../controller/ports/backend.ts";
import { digestOf, journalEntry, unit } from "./case-notation.ts";

/** The moment at which every case is planned. */
export const NOW = Date.parse("2026-11-20T12:00:00.000Z");

export const FEATURES: BackendFeatures = { images: true, limits: { cpu: true, memory: true, pids: true } };

/** What a bottle has that no template says anything of egress for. */
export const NO_EGRESS: ResolvedEgress = {
  policy: guardPolicyOf(undefined),
  digest: policyDigest(guardPolicyOf(undefined)),
  secrets: {},
  placeholderEnv: {},
};

const words = z.string().min(1);

const expectation = z.strictObject({
  /** Steps in the notation of `stepText`. Absent: none. */
  steps: z.array(words).default([]),
  /** State and reason of the plan as a whole. */
  ready: z.tuple([z.enum(["Ready", "Reconciling", "Stalled"]), words]),
  /** Part of the message of that. */
  message: words.optional(),
  /** Seconds. Absent: the plan must not ask for a time. */
  requeueAfter: z.number().optional(),
  /** Reasons of the events of the steps, in order; checked only if given. */
  events: z.array(words).optional(),
  /** `Type: Status Reason` for the conditions the case is about; `absent` for one that must not be there. */
  conditions: z.record(words, words).optional(),
  /** `id state [outcome] [exit code]`; checked only if given. */
  turns: z.array(words).optional(),
});

/** One decision. What is not written is as in a healthy bottle; what is unknown is refused, or a typing error would test nothing. */
const planCase = z.strictObject({
  bottle: z
    .strictObject({
      turns: z.array(words).default([]),
      operatingMode: z.enum(["Running", "Frozen"]).default("Running"),
      lifecycle: bottleSpec.shape.lifecycle,
      resources: resourceLimits.optional(),
      annotations: z.array(z.enum(["source", "importing", "rejectedUpdate"])).default([]),
      deleting: z.boolean().default(false),
      /** Default: the controller's own once the bottle was launched. */
      finalizers: z.array(z.enum(["own", "other"])).optional(),
      allowedBackends: z.array(backendType).optional(),
    })
    .prefault({}),
  /** Why the references do not resolve. */
  unresolved: z.enum(["AgentNotFound", "TemplateNotFound", "SecretNotFound", "EgressPolicyInvalid"]).optional(),
  /** What the guard said of itself: `current`, `old` or `none` settings, or the reason why it refuses everything; with its id if it is another one. */
  heard: words.optional(),
  /** seen; unseen: it does not answer; unknown: this controller does not serve it. */
  backend: z.enum(["seen", "unseen", "unknown"]).default("seen"),
  /** Limits the backend cannot enforce. */
  cannotLimit: z.array(z.enum(["cpu", "memory", "pids"])).default([]),
  journal: z.array(words).default([]),
  units: z.array(words).default([]),
  /** Default: all parts a bottle with these units and this journal has. */
  disk: z.array(z.enum(["home", "workspace", "sockets"])).optional(),
  failure: z
    .strictObject({
      step: words,
      kind: z.enum(["Invalid", "NotFound", "Conflict", "Unavailable", "Transient"]),
      reason: words,
      count: z.int().default(1),
      /** Seconds. */
      ago: z.number().default(0),
    })
    .optional(),
  plan: expectation,
});
type PlanCase = z.infer<typeof planCase>;
export type Expectation = z.infer<typeof expectation>;

export interface ReadCase {
  /** The comment at the top: the rule, and why it is so. */
  rule: string;
  desired: Desired;
  observed: Observed;
  now: number;
  plan: Expectation;
}

export function readCase(text: string): ReadCase {
  const rule = /^(?:#.*\n)+/.exec(text)?.[0].replaceAll(/^# ?/gm, "").replaceAll("\n", " ").trim();
  if (rule === undefined || rule === "") throw new Error("a case begins with a comment that says the rule and why");
  const written = planCase.parse(parse(text));
  const desired = desiredOf(written);
  return { rule, desired, observed: observedOf(written, desired), now: NOW, plan: written.plan };
}

function desiredOf(written: PlanCase): Desired {
  const { turns, operatingMode, lifecycle, resources, allowedBackends } = written.bottle;
  const agent = { provider: { type: "Custom" as const, custom: { command: ["work"] } } };
  const bottle: Bottle = {
    apiVersion: API_VERSION,
    kind: "Bottle",
    metadata: metadataOf(written),
    spec: { agent, operatingMode, lifecycle, resources, turns: turns.map((id) => ({ id, prompt: `do ${id}` })) },
  };
  const template: EffectiveTemplate = { env: [], resources: resources ?? {}, allowedBackends };
  const { unresolved } = written;
  return {
    bottle,
    resolution:
      unresolved === undefined
        ? { ok: true, agent, template, digest: "sha256:1", egress: NO_EGRESS }
        : { ok: false, reason: unresolved, message: "what the bottle refers to does not exist" },
    backend: backendOf(written),
    defaultImage: "image",
    token: "token",
  };
}

function metadataOf({ bottle, journal }: PlanCase): Bottle["metadata"] {
  const finalizers = bottle.finalizers ?? (journal.length > 0 ? ["own"] : []);
  return {
    name: "fix",
    namespace: "default",
    uid: "uid-1",
    resourceVersion: "1",
    generation: 1,
    creationTimestamp: "2026-11-20T11:00:00Z",
    deletionTimestamp: bottle.deleting ? "2026-11-20T11:59:00Z" : undefined,
    finalizers: finalizers.map((which) => (which === "own" ? FINALIZER : "example.com/other")),
    annotations: Object.fromEntries(bottle.annotations.map((name) => [ANNOTATIONS[name], `value of ${name}`])),
  };
}

function backendOf({ backend, cannotLimit }: PlanCase): BackendChoice {
  if (backend === "unknown") return { ok: false, reason: "BackendUnknown", message: "the backend is not served" };
  const limits = Object.fromEntries(
    ["cpu", "memory", "pids"].map((limit) => [limit, !cannotLimit.some((one) => one === limit)]),
  ) as BackendFeatures["limits"];
  return { ok: true, name: "docker", features: { images: true, limits } };
}

function observedOf(written: PlanCase, desired: Desired): Observed {
  const { specHash, agentHash } = hashesOf(desired);
  const { digest } = settingsOf(desired);
  const units = written.units.map((line, index) => unit(line, { now: NOW, index, specHash, agentHash }));
  const journal = foldJournal(
    EMPTY_JOURNAL,
    written.journal.map((line) => journalEntry(line, { now: NOW, digest })),
  );
  const parts = written.disk ?? defaultDisk(units, journal.launch !== undefined);
  const disk = parts.map((part): DiskPart => ({ id: `disk-${part}`, part, kind: "Volume", createdMs: NOW - 60_000 }));
  const present = units.length > 0 || disk.length > 0;
  const seen = present ? { uid: "uid-1", namespace: "default", name: "fix", units, disk } : undefined;
  return {
    journal,
    view:
      written.backend === "seen"
        ? { state: "seen", bottle: seen }
        : { state: "unseen", reason: unseenReason(written), message: "the backend does not answer" },
    failure: failureOf(written),
    guard: heardGuard(written, digest),
  };
}

function heardGuard({ heard }: PlanCase, current: string): HeardGuard | undefined {
  if (heard === undefined) return undefined;
  const [word = "", guardId = "guard-1"] = heard.split(" ");
  if (/^[A-Z]/.test(word)) {
    return { guardId, health: { ok: false, reason: word, message: "the guard is unwell" }, digest: current };
  }
  const digest = digestOf(word, current);
  return { guardId, health: { ok: true }, digest: digest === "" ? undefined : digest };
}

function unseenReason({ backend }: PlanCase): string {
  return backend === "unknown" ? "BackendUnknown" : "BackendUnavailable";
}

function defaultDisk(units: readonly Unit[], launched: boolean): DiskPart["part"][] {
  if (!launched) return [];
  return units.length > 0 ? ["home", "workspace", "sockets"] : ["home", "workspace"];
}

function failureOf({ failure }: PlanCase): StepFailure | undefined {
  if (failure === undefined) return undefined;
  const { step, kind, reason, count, ago } = failure;
  return {
    step: step as StepFailure["step"],
    kind,
    reason,
    message: "the step failed",
    count,
    atMs: NOW - ago * 1000,
  };
}

function hashesOf({ bottle, resolution }: Desired): { specHash: string; agentHash: string } {
  const resolved = resolution.ok ? resolution : { template: { env: [], resources: {} }, egress: NO_EGRESS };
  const made: Blueprint = blueprintOf(bottle, resolved, { features: FEATURES, defaultImage: "image", token: "token" });
  return { specHash: made.specHash, agentHash: agentBlueprint(made).specHash };
}
