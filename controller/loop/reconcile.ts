import type { Bottle } from "../api/bottle.ts";
import { isStatus } from "../api/errors.ts";
import { keyOf, keyText } from "../api/meta.ts";
import type { Desired, Observed, StepFailure } from "../plan/situation.ts";
import type { Plan, Step } from "../plan/steps.ts";
import { BackendError, type BackendErrorKind } from "../ports/backend.ts";
import type { EventRecorder, EventText } from "../ports/events.ts";
import type { Transcripts } from "../ports/journal.ts";
import type { Log } from "../ports/log.ts";
import type { Store } from "../ports/store.ts";
import { act } from "./act.ts";
import type { AuditCollector } from "./audit-collector.ts";
import type { BackendSet } from "./backend-set.ts";
import { onlyStatusDiffers, type Cache } from "./cache.ts";
import { deepEqual } from "../api/deep-equal.ts";
import { guardToken } from "./guard-token.ts";
import type { Journals } from "./journals.ts";

export interface ReconcilerOptions {
  store: Store;
  cache: Cache;
  journals: Journals;
  transcripts: Transcripts;
  backends: BackendSet;
  collector: Pick<AuditCollector, "drain" | "heard" | "counters">;
  /** Of this installation: the tokens of all its bottles are made from it. */
  guardKey: Uint8Array;
  events: EventRecorder;
  log: Log;
  now: () => number;
  defaultImage: string;
  /** The planner. Given from outside so that the simulation can run planted bugs. */
  plan: (desired: Desired, observed: Observed, now: number) => Plan;
  signal: AbortSignal;
}

/** What a pass wants next: another pass at once, later, or none. */
export interface PassResult {
  requeueAfterMs?: number;
  steps: number;
}

/** Looking again mends these as a rule; what it does not mend after some tries waits like any failure. */
const QUICK_KINDS: readonly BackendErrorKind[] = ["Conflict", "NotFound"];
const QUICK_RETRIES_MAX = 5;
const QUICK_RETRY_MS = 200;

/** Remembers of a failure only what tells people and holds back a hopeless retry; a restart forgets it and tries again. */
interface Remembered extends StepFailure {
  generation: number;
  digest: string;
}

export class Reconciler {
  readonly #options: ReconcilerOptions;
  readonly #failures = new Map<string, Remembered>();
  /** Of the bottles that are in the cache now: a look at ten thousand that did not change makes none anew. */
  readonly #tokens = new WeakMap<Bottle, string>();

  constructor(options: ReconcilerOptions) {
    this.#options = options;
  }

  /** One pass over one bottle: observe, plan, write status, act. Throws what a retry may mend. `since` is the mark of the event that asked for it. */
  async reconcile(key: string, since: number): Promise<PassResult> {
    const bottle = this.#options.cache.bottle(key);
    if (bottle === undefined) return { steps: 0 };
    const { desired, observed } = await this.#gather(bottle, since);
    const plan = this.#options.plan(desired, observed, this.#options.now());
    try {
      const written = await this.#writeStatus(bottle, plan.status);
      // Somebody changed the bottle under this pass, and the write brought that change into the cache: the watch will not tell of it any more.
      if (written !== bottle && !onlyStatusDiffers(bottle, written)) return { steps: 0, requeueAfterMs: 0 };
      await this.#run(written, plan, desired);
    } catch (error) {
      return this.#afterFailure(bottle, error);
    }
    return { steps: plan.steps.length, requeueAfterMs: plan.steps.length > 0 ? 0 : plan.requeueAfterMs };
  }

  async #gather(bottle: Bottle, since: number): Promise<{ desired: Desired; observed: Observed }> {
    const { cache, journals, backends, collector, defaultImage } = this.#options;
    const { uid } = bottle.metadata;
    const journal = await journals.stateOf(bottle.metadata);
    const backend = await backends.choose(bottle, journal);
    const token = this.#tokenOf(bottle);
    const desired: Desired = { bottle, resolution: cache.resolution(bottle), backend, defaultImage, token };
    const view = await this.#view(bottle, backend, since);
    // Heard after the look, which is when the collector learned of a new guard.
    const heard = { guard: collector.heard(uid), egress: collector.counters(uid) };
    return { desired, observed: { journal, view, failure: this.#failureOf(desired), ...heard } };
  }

  #tokenOf(bottle: Bottle): string {
    const token = this.#tokens.get(bottle) ?? guardToken(this.#options.guardKey, bottle.metadata.uid);
    this.#tokens.set(bottle, token);
    return token;
  }

  async #view(bottle: Bottle, backend: Desired["backend"], since: number): Promise<Observed["view"]> {
    if (!backend.ok) return { state: "unseen", reason: backend.reason, message: backend.message };
    const look = await this.#options.backends.observer(backend.name)?.lookSince(since, this.#options.signal);
    if (look === undefined || !look.ok) {
      return { state: "unseen", reason: "BackendUnavailable", message: look?.message ?? "the backend is gone" };
    }
    return { state: "seen", bottle: look.observation.bottles.get(bottle.metadata.uid) };
  }

  async #writeStatus(bottle: Bottle, status: Plan["status"]): Promise<Bottle> {
    if (deepEqual(bottle.status, status)) return bottle;
    const written = await this.#options.store.patchStatus("Bottle", keyOf(bottle), {
      uid: bottle.metadata.uid,
      status,
    });
    this.#options.cache.put(written);
    return written;
  }

  async #run(bottle: Bottle, plan: Plan, desired: Desired): Promise<void> {
    const { backends, cache, log } = this.#options;
    const backend = desired.backend.ok ? backends.backend(desired.backend.name) : undefined;
    const name = keyText(keyOf(bottle));
    let current = bottle;
    for (const step of plan.steps) {
      try {
        current = await act(step, current, backend, this.#options);
      } catch (error) {
        if (error instanceof BackendError) await this.#fail(current, step, error, desired);
        throw error;
      }
      this.#failures.delete(bottle.metadata.uid);
      if (step.kind !== "removeFinalizer") cache.put(current);
      log.debug({ bottle: name, step: step.kind }, "step done");
      if (step.event !== undefined) await this.#tell(current, step.event);
    }
  }

  async #fail(bottle: Bottle, step: Step, error: BackendError, desired: Desired): Promise<void> {
    const { uid, generation } = bottle.metadata;
    const count = (this.#failureOf(desired)?.count ?? 0) + 1;
    const { kind, reason, message } = error;
    const told = { step: step.kind, kind, reason, message, count };
    this.#failures.set(uid, { ...told, atMs: this.#options.now(), generation, digest: digestOf(desired) });
    this.#options.log.warn({ bottle: keyText(keyOf(bottle)), ...told }, "step failed");
    // A conflict is mended by looking again; telling people of it would only frighten them.
    if (kind !== "Conflict") await this.#tell(bottle, { type: "Warning", reason, message });
  }

  /** The failure that is not over; a change of the bottle or of what it refers to may have mended it. */
  #failureOf(desired: Desired): Remembered | undefined {
    const { uid, generation } = desired.bottle.metadata;
    const failure = this.#failures.get(uid);
    return failure?.generation === generation && failure.digest === digestOf(desired) ? failure : undefined;
  }

  #afterFailure(bottle: Bottle, error: unknown): PassResult {
    // The object changed or went while this pass worked on an older one: the event of that change brings the next pass.
    if (isStatus(error, "Conflict") || isStatus(error, "NotFound")) return { steps: 0, requeueAfterMs: QUICK_RETRY_MS };
    if (!(error instanceof BackendError)) throw error;
    const count = this.#failures.get(bottle.metadata.uid)?.count ?? 0;
    // The next pass holds a hopeless step and tells people. A step that is not held, because it only ends things, must not spin.
    if (error.kind === "Invalid" && count <= 1) return { steps: 0, requeueAfterMs: 0 };
    if (QUICK_KINDS.includes(error.kind) && count <= QUICK_RETRIES_MAX)
      return { steps: 0, requeueAfterMs: QUICK_RETRY_MS };
    throw error;
  }

  #tell(bottle: Bottle, event: EventText): Promise<void> {
    const { namespace, name, uid } = bottle.metadata;
    return this.#options.events.record({ kind: "Bottle", namespace, name, uid }, event);
  }
}

function digestOf({ resolution }: Desired): string {
  if (!resolution.ok) return resolution.reason;
  return [resolution.digest, ...Object.values(resolution.egress.secrets)].join();
}
