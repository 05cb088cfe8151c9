import {
  createFakeBackend,
  ControllerCrash,
  World,
  type FakeGuard,
  type ProgramResult,
  type ProgramRun,
} from "../../backends/fake/index.ts";
import { admit } from "../../controller/api/admit.ts";
import type { Bottle, BottleSpec } from "../../controller/api/bottle.ts";
import { conditionOf } from "../../controller/api/conditions.ts";
import { API_VERSION, FINALIZER } from "../../controller/api/meta.ts";
import { isStatus } from "../../controller/api/errors.ts";
import { BackendError } from "../../controller/ports/backend.ts";
import type { JournalEntry } from "../../controller/ports/journal.ts";
import type { Log } from "../../controller/ports/log.ts";
import { createBackendSet } from "../../controller/loop/backend-set.ts";
import { Cache } from "../../controller/loop/cache.ts";
import { createJournals } from "../../controller/loop/journals.ts";
import { Reconciler, type ReconcilerOptions } from "../../controller/loop/reconcile.ts";
import { openDatabase } from "../../controller/stores/sqlite/open-database.ts";

import { simCollector } from "./collector.ts";

export type Planner = ReconcilerOptions["plan"];

export const KEY = { namespace: "default", name: "sim" };
/** What the template of every simulated bottle allows, and the secret that it injects there. */
export const HOST = "api.example.com";
const TEMPLATE = { namespace: "default", name: "net" };
const SECRET = { namespace: "default", name: "api" };
const GUARD_KEY = new Uint8Array(32).fill(7);
const SILENT: Log = { debug() {}, info() {}, warn() {}, error() {} };
/** A real run of one bottle takes fewer than twenty passes; more means that the loop does not come to rest. */
const PASSES_MAX = 200;
/** Who waits longer than this is at rest: it waits for a deadline or for a person. */
const REST_MS = 10_000;

/** One journal entry that broke a rule, or one state that must never be. */
export class SafetyViolation extends Error {}

/**
 * A whole installation in memory: the real loop, the real store on SQLite, a fake engine. Controllers die at calls and are replaced, as a process
 * that is killed and started again: what it knew is gone, what it wrote is there.
 */
export class Rig {
  readonly world = new World({ nowMs: 1_000_000 });
  readonly #database = openDatabase({ file: ":memory:", admission: admit, now: () => this.world.now() });
  readonly #plan: Planner;
  #controller: { cache: Cache; reconciler: Reconciler };
  /** Writes to the store that are still allowed before the controller dies; undefined: no limit. */
  storeWritesLeft: number | undefined;
  crashes = 0;

  constructor(plan: Planner) {
    this.#plan = plan;
    this.#controller = this.#boot();
  }

  get store() {
    return this.#database.store;
  }

  get journal() {
    return this.#database.journal;
  }

  /** Starts a controller that knows nothing but what is stored. */
  restart(): void {
    this.#controller = this.#boot();
  }

  #boot(): { cache: Cache; reconciler: Reconciler } {
    const backend = createFakeBackend({ world: this.world, owner: "sim", now: () => this.world.now() });
    const backends = createBackendSet([backend], async () => ({ ok: true, name: backend.name }));
    const store = this.#mortal(this.#database.store, ["update", "patchStatus", "delete"]);
    const journal = this.#mortal(this.#database.journal, ["append", "forget"]);
    const transcripts = this.#mortal(this.#database.transcripts, ["save"]);
    const auditLog = this.#mortal(this.#database.auditLog, ["append"]);
    const cache = new Cache(store, SILENT);
    const reconciler = new Reconciler({
      store,
      cache,
      journals: createJournals(journal),
      transcripts,
      backends,
      collector: simCollector(this.world, auditLog),
      guardKey: GUARD_KEY,
      events: { record: async () => {} },
      log: SILENT,
      now: () => this.world.now(),
      defaultImage: "image",
      plan: this.#plan,
      signal: new AbortController().signal,
    });
    return { cache, reconciler };
  }

  /** Lets the controller die right before one of its writes. */
  #mortal<T extends object>(port: T, writes: readonly (keyof T)[]): T {
    return new Proxy(port, {
      get: (target, name) => {
        const member = Reflect.get(target, name) as unknown;
        if (typeof member !== "function") return member;
        return (...args: unknown[]) => {
          if (writes.includes(name as keyof T) && this.storeWritesLeft !== undefined) {
            if (this.storeWritesLeft === 0) {
              this.storeWritesLeft = undefined;
              throw new ControllerCrash({ number: 0, verb: "ping", uid: "", target: `store ${String(name)}` });
            }
            this.storeWritesLeft -= 1;
          }
          return Reflect.apply(member, target, args) as unknown;
        };
      },
    });
  }

  async create(spec: BottleSpec, annotations?: Record<string, string>): Promise<void> {
    await this.putSecret("one");
    await this.allow(HOST);
    await this.store.create<"Bottle">({
      apiVersion: API_VERSION,
      kind: "Bottle",
      metadata: { ...KEY, annotations },
      spec: { templateRefs: [{ name: TEMPLATE.name }], ...spec },
    });
  }

  /** Writes the template so that this host alone is allowed, with these variables for the agent. */
  async allow(host: string, env: { name: string; value: string }[] = []): Promise<void> {
    const inject = [
      { header: "Authorization", secretRef: { name: SECRET.name, key: "token" }, placeholderEnv: "API_TOKEN" },
    ];
    const spec = { env, egress: { rules: [{ name: "api", host, action: "Allow" as const, inject }] } };
    const draft = { apiVersion: API_VERSION, kind: "BottleTemplate" as const, metadata: TEMPLATE, spec };
    const known = await this.store.get("BottleTemplate", TEMPLATE);
    if (known === undefined) await this.store.create<"BottleTemplate">(draft);
    else await this.store.update<"BottleTemplate">({ ...known, spec });
  }

  async putSecret(value: string): Promise<void> {
    const data = { token: Buffer.from(value).toString("base64") };
    const known = await this.store.get("Secret", SECRET);
    if (known !== undefined) await this.store.update<"Secret">({ ...known, data });
    else
      await this.store.create<"Secret">({ apiVersion: "v1", kind: "Secret", metadata: SECRET, type: "Opaque", data });
  }

  async removeSecret(): Promise<void> {
    if ((await this.store.get("Secret", SECRET)) !== undefined) await this.store.delete("Secret", SECRET);
  }

  /** What runs in the bottle's guard. */
  async guard(): Promise<FakeGuard | undefined> {
    return this.world.guardOf((await this.bottle())?.metadata.uid ?? "");
  }

  /** Hosts that the guards' kept audit names, in order. */
  async auditedHosts(): Promise<string[]> {
    const uid = (await this.bottle())?.metadata.uid ?? "";
    return (await this.#database.auditLog.read(uid, { afterSeq: 0, limit: 1000 })).map(({ line }) => line.host);
  }

  async bottle(): Promise<Bottle | undefined> {
    return this.store.get("Bottle", KEY);
  }

  /** Changes the spec as a person does. Absent or being deleted: nothing. */
  async edit(change: (spec: BottleSpec) => BottleSpec): Promise<void> {
    const bottle = await this.bottle();
    if (bottle === undefined || bottle.metadata.deletionTimestamp !== undefined) return;
    await this.store.update<"Bottle">({ ...bottle, spec: change(bottle.spec) });
  }

  async remove(): Promise<void> {
    try {
      await this.store.delete("Bottle", KEY);
    } catch (error) {
      if (!isStatus(error, "NotFound")) throw error;
    }
  }

  /** One pass. Returns when the loop wants the next; undefined: not before something happens. A crash replaces the controller. */
  async pass(): Promise<number | undefined> {
    try {
      await this.#controller.cache.load();
      const result = await this.#controller.reconciler.reconcile(
        `${KEY.namespace}/${KEY.name}`,
        Number.MAX_SAFE_INTEGER - 1,
      );
      await this.checkSafety();
      return result.requeueAfterMs;
    } catch (error) {
      await this.checkSafety();
      if (error instanceof ControllerCrash) {
        this.crashes += 1;
        this.restart();
        return 0;
      }
      if (error instanceof BackendError) return 1000;
      throw error;
    }
  }

  /** Passes until the loop is at rest: nothing to do at once, and a second look does nothing. */
  async settle(): Promise<void> {
    for (let passes = 0; passes < PASSES_MAX; passes += 1) {
      const waitMs = await this.pass();
      if (waitMs === undefined || waitMs > REST_MS) return;
      this.world.advance(Math.max(waitMs, 100));
    }
    const bottle = await this.bottle();
    const ready = conditionOf(bottle?.status?.conditions, "Ready");
    throw new SafetyViolation(`the loop does not come to rest: ${ready?.reason ?? "gone"}: ${ready?.message ?? ""}`);
  }

  async entries(): Promise<JournalEntry[]> {
    const bottle = await this.bottle();
    if (bottle === undefined) return [];
    return (await this.journal.read(bottle.metadata.uid)).map(({ entry }) => entry);
  }

  /** What must hold after every pass, whatever failed. The world checks the rest after every call. */
  async checkSafety(): Promise<void> {
    this.world.check();
    const bottle = await this.bottle();
    const entries = await this.entries();
    const owned = [...this.world.containers.values(), ...this.world.volumes.values()];
    if (owned.length > 0 && bottle === undefined)
      throw new SafetyViolation("the bottle is gone and left something behind");
    if (owned.length > 0 && bottle?.metadata.finalizers?.includes(FINALIZER) !== true) {
      throw new SafetyViolation("something exists on the backend and no finalizer holds the bottle");
    }
    const destroyed = bottle?.metadata.deletionTimestamp !== undefined && owned.length === 0;
    if (bottle !== undefined && !destroyed) checkJournal(entries, this.world);
    if (bottle !== undefined && !destroyed) checkGuards(entries, this.world);
    const over =
      bottle === undefined ||
      bottle.metadata.deletionTimestamp !== undefined ||
      entries.some((entry) => entry.type === "Expired");
    const worked = this.world.startedRuns.some((run) => run.uid === bottle?.metadata.uid);
    const disks = [...this.world.volumes.values()].filter((volume) => volume.part !== "sockets");
    if (!over && worked && disks.length < 2 && !this.lostDisk)
      throw new SafetyViolation("a disk was destroyed though the bottle was neither deleted nor expired");
  }

  /** Set by a test that removes a disk behind the controller's back. */
  lostDisk = false;
}

/** Every start of an agent was announced, was probed before, and followed a real interruption if it was not the first of its turn. */
function checkJournal(entries: readonly JournalEntry[], world: World): void {
  const outcomes = new Map<string, string>();
  const announced = new Set<string>();
  for (const entry of entries) {
    if (entry.type === "TurnStarting") announced.add(`${entry.turn}/${entry.attempt}`);
    if (entry.type !== "TurnFinished") continue;
    const id = `${entry.turn}/${entry.attempt}`;
    if (outcomes.has(id)) throw new SafetyViolation(`the end of run ${id} is on record twice`);
    outcomes.set(id, entry.outcome);
  }
  const runs = world.startedRuns.filter((run) => run.role === "agent");
  const seen = new Set<string>();
  for (const run of runs) {
    const id = `${run.turn}/${run.attempt}`;
    if (seen.has(id)) throw new SafetyViolation(`run ${id} started twice`);
    seen.add(id);
    if (!announced.has(id)) throw new SafetyViolation(`run ${id} started without being on record`);
    const before = `${run.turn}/${(run.attempt ?? 1) - 1}`;
    if ((run.attempt ?? 1) > 1 && outcomes.get(before) !== "Interrupted") {
      throw new SafetyViolation(`run ${id} started although ${before} ended as ${outcomes.get(before) ?? "nothing"}`);
    }
  }
  const probed = entries.some((entry) => entry.type === "Probed" && entry.passed);
  if (runs.length > 0 && !probed) throw new SafetyViolation("an agent started in a bottle that was never probed");
}

/** A guard is on record with settings only after it had them. */
function checkGuards(entries: readonly JournalEntry[], world: World): void {
  for (const entry of entries) {
    if (entry.type !== "GuardConfigured" || entry.digest === "") continue;
    const guard = world.containers.get(entry.guardId)?.guard;
    if (guard === undefined || guard.digests.has(entry.digest)) continue;
    throw new SafetyViolation(`guard ${entry.guardId} is on record with settings that it never had`);
  }
}

/** The spec of most simulated bottles: any command, prompts that say what the scripted program does. */
export function simSpec(change: Partial<BottleSpec> = {}): BottleSpec {
  return {
    agent: { provider: { type: "Custom", custom: { command: ["agent"] } } },
    operatingMode: "Running",
    ...change,
  };
}

export function turnsOf(...prompts: string[]): BottleSpec["turns"] {
  return prompts.map((prompt, index) => ({ id: String(index + 1), prompt }));
}

/** `exit N`, `ask HOST`, `oom`, `sleep MS N`, `forever`, `missing`: the last argument is the prompt. */
export function simProgram(run: ProgramRun): ProgramResult {
  const [word, first, second] = (run.argv.at(-1) ?? "").split(" ");
  switch (word) {
    case "exit":
      return { code: Number(first), output: `turn ${run.turn}\n`, writes: { [`/workspace/turn-${run.turn}`]: "done" } };
    case "ask":
      return { code: 0, egress: [String(first)] };
    case "oom":
      return { code: 137, oom: true };
    case "sleep":
      return { code: Number(second), afterMs: Number(first), output: "slept\n" };
    case "missing":
      return { missing: true };
    default:
      return {};
  }
}
