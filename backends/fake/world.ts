import type { BottleIdentity, DiskPart, ProbeReport, Role, UnitExit } from "../../controller/ports/backend.ts";
import { BackendError } from "../../controller/ports/backend.ts";
import type { TurnKey } from "../../controller/ports/journal.ts";
import type { Faults, WorldCall } from "./faults.ts";
import { applyWrites, filesOf, type FileTree } from "./file-tree.ts";
import { freshGuard, guardViolations, request, type FakeGuard } from "./guard.ts";
import { assertHeld, startViolations, type StartedRun } from "./invariants.ts";

/** Older views of the world that a stale list may still return. */
const HISTORY_MAX = 64;

export interface Volume extends BottleIdentity {
  /** The engine's name of the volume, which is also its id. */
  id: string;
  owner: string;
  part: DiskPart["part"];
  createdMs: number;
  /** Owned by the agent's user: an agent on a volume that is not cannot write. */
  seeded: boolean;
  files: FileTree;
}

export interface Container extends BottleIdentity {
  id: string;
  /** The engine's name of the container; `name` is the bottle's. */
  engineName: string;
  owner: string;
  role: Role;
  specHash: string;
  turn?: TurnKey;
  argv: readonly string[];
  env: Readonly<Record<string, string>>;
  tty?: boolean;
  /** Id of the container whose network namespace it joins. A new holder is another one: who joined the old one cannot start any more. */
  joins?: string;
  /** Names of the volumes it mounts. */
  volumes: readonly string[];
  state: "created" | "running" | "exited";
  /** How often its process was started. */
  starts: number;
  createdMs: number;
  startedMs?: number;
  finishedMs?: number;
  exit?: UnitExit;
  /** Of a guard that runs. */
  guard?: FakeGuard;
  /** When it ends by itself, and how. */
  due?: { atMs: number; exit: UnitExit };
  /** What it does with its input; absent: it ignores it. */
  echo?: boolean;
  output: Uint8Array[];
}

/** What a scripted program is told when it starts. `files` is the disk: absolute path to text. */
export interface ProgramRun extends Partial<TurnKey> {
  uid: string;
  role: "agent" | "session";
  argv: readonly string[];
  env: Readonly<Record<string, string>>;
  files: ReadonlyMap<string, string>;
  /** Of a session. */
  tty?: boolean;
}

/** What it does. Without `code` it runs until the test ends it; with `afterMs` it ends by itself that much later. */
export interface ProgramResult {
  output?: string;
  /** Absolute path to text. */
  writes?: Readonly<Record<string, string>>;
  /** Hosts that it asks its guard for. */
  egress?: readonly string[];
  code?: number;
  oom?: boolean;
  afterMs?: number;
  /** The command does not exist: the start is refused and the unit stays `created`, as on Docker. */
  missing?: boolean;
  /** Copies its input to its output and ends with it. */
  echo?: boolean;
}
export type Program = (run: ProgramRun) => ProgramResult;

/** What a list call returns: copies without contents, so that a caller cannot change the world. */
export interface Listing {
  containers: readonly Readonly<Omit<Container, "output" | "guard">>[];
  volumes: readonly Readonly<Omit<Volume, "files">>[];
}

/**
 * An engine in memory, as much of Docker as a backend uses. It has no clock and no chance of its own: time moves by `advance`, ids count up, and
 * whatever happens to a bottle is done to it by the test. Controllers reach it through an `Engine`, which numbers each call and may fail it.
 */
export class World {
  readonly containers = new Map<string, Container>();
  readonly volumes = new Map<string, Volume>();
  /** Every start of a process of an agent or session, with what stood around it. */
  readonly startedRuns: StartedRun[] = [];
  /** Verbs that the backend turned down because the bottle was not in the state they need. */
  readonly refusals: { verb: string; uid: string; why: string }[] = [];
  /** Every invariant that was broken; no call succeeds after the first. */
  readonly violations: string[] = [];
  readonly calls: WorldCall[] = [];
  readonly missingImages = new Set<string>();
  faults: Faults = {};
  program: Program = () => ({});
  probe: (uid: string) => ProbeReport = () => ({ passed: true, detail: "all checks passed" });
  /** While true, every call is refused as if the engine did not run. */
  down = false;
  /** Every line that a guard noted, by uid, whatever became of the guard. */
  readonly audited: { uid: string; host: string }[] = [];
  /** Whether agents need a guard with settings. Tests of single verbs leave that step out. */
  readonly #guarded: boolean;
  #nowMs: number;
  #lastId = 0;
  #version = 0;
  readonly #history: Listing[] = [];
  readonly #listeners = new Set<(uid: string) => void>();

  constructor(options: { nowMs: number; guarded?: boolean }) {
    this.#nowMs = options.nowMs;
    this.#guarded = options.guarded ?? true;
    this.#history.push({ containers: [], volumes: [] });
  }

  now(): number {
    return this.#nowMs;
  }

  /** Grows with every change. */
  get version(): number {
    return this.#version;
  }

  nextId(): string {
    this.#lastId += 1;
    return String(this.#lastId).padStart(12, "0");
  }

  /** Lets time pass, and programs whose time has come end in the order of their times. */
  advance(ms: number): void {
    const untilMs = this.#nowMs + ms;
    for (;;) {
      const next = [...this.containers.values()]
        .filter((unit) => unit.state === "running" && unit.due !== undefined && unit.due.atMs <= untilMs)
        .sort((a, b) => (a.due?.atMs ?? 0) - (b.due?.atMs ?? 0))[0];
      if (next?.due === undefined) break;
      this.#nowMs = next.due.atMs;
      this.finish(next, next.due.exit);
    }
    this.#nowMs = untilMs;
  }

  /** Ends the running agent of a bottle, after it wrote its last words and files. */
  exitAgent(uid: string, end: ProgramResult & { code: number }): void {
    const agent = this.unitsOf(uid).find((unit) => unit.role === "agent" && unit.state === "running");
    if (agent === undefined) throw new Error(`no agent of bottle "${uid}" runs: start one first`);
    this.#perform(agent, end);
    this.finish(agent, { code: end.code, oom: end.oom ?? false });
  }

  /** Ends the running units of that role as if something killed them. */
  killUnit(uid: string, role: Role, exit: UnitExit = { code: 137, oom: false }): void {
    for (const unit of this.unitsOf(uid)) {
      if (unit.role === role && unit.state === "running") this.finish(unit, exit);
    }
  }

  /** The engine stopped and came back: nothing that ran still runs. */
  restartEngine(): void {
    for (const unit of this.containers.values()) {
      if (unit.state === "running") this.finish(unit, { code: 137, oom: false });
    }
  }

  /** A person removed a container or a volume by hand. */
  removeBehindOurBack(id: string): void {
    const gone = this.containers.get(id) ?? this.volumes.get(id);
    if (gone === undefined) throw new Error(`there is no container or volume "${id}" to remove`);
    this.containers.delete(id);
    this.volumes.delete(id);
    this.changed(gone.uid);
  }

  /** The units of one bottle in order of creation. */
  unitsOf(uid: string): Container[] {
    return [...this.containers.values()].filter((unit) => unit.uid === uid);
  }

  /** The process in the guard's container began anew: it knows nothing any more. */
  restartGuard(uid: string): void {
    const unit = this.unitsOf(uid).find((one) => one.role === "guard" && one.state === "running");
    if (unit === undefined) return;
    unit.guard = freshGuard(unit.id, unit.guard);
    this.changed(uid);
  }

  /** What runs in the guard of a bottle. */
  guardOf(uid: string): FakeGuard | undefined {
    return this.unitsOf(uid).find((unit) => unit.role === "guard" && unit.state === "running")?.guard;
  }

  running(uid: string, role: Role): boolean {
    return this.unitsOf(uid).some((unit) => unit.role === role && unit.state === "running");
  }

  /** Runs the program of a container that is being started. */
  start(unit: Container): void {
    if (unit.role === "agent" || unit.role === "session") {
      const result = this.program({
        ...unit.turn,
        uid: unit.uid,
        role: unit.role,
        argv: unit.argv,
        env: unit.env,
        tty: unit.tty,
        files: filesOf(this.#mounted(unit)),
      });
      if (result.missing === true) {
        const words = `cannot start "${unit.argv[0] ?? ""}" in bottle "${unit.name}"`;
        throw new BackendError("Invalid", "CommandNotFound", `${words}: no such command: correct the agent's command`);
      }
      this.#begin(unit);
      this.#perform(unit, result);
      const exit = result.code === undefined ? undefined : { code: result.code, oom: result.oom ?? false };
      if (exit !== undefined && result.afterMs !== undefined) unit.due = { atMs: this.#nowMs + result.afterMs, exit };
      else if (exit !== undefined) this.finish(unit, exit);
      return;
    }
    this.#begin(unit);
  }

  /** A request of the bottle's agent, as its guard sees it. Without a guard it goes nowhere. */
  request(uid: string, host: string): void {
    const guard = this.guardOf(uid);
    if (guard === undefined) return;
    request(guard, host, this.#nowMs);
    this.audited.push({ uid, host });
    this.changed(uid);
  }

  finish(unit: Container, exit: UnitExit): void {
    unit.state = "exited";
    unit.exit = exit;
    unit.finishedMs = this.#nowMs;
    unit.due = undefined;
    unit.guard = undefined;
    this.changed(unit.uid);
  }

  write(unit: Container, bytes: Uint8Array): void {
    unit.output.push(bytes);
    this.changed(unit.uid);
  }

  /** Copies of all objects; `steps` changes ago if the list is stale. */
  list(steps = 0): Listing {
    return this.#history[Math.max(0, this.#history.length - 1 - steps)] ?? { containers: [], volumes: [] };
  }

  /** Must follow every change: it is what lists, watchers and followers of output see. */
  changed(uid: string): void {
    this.#version += 1;
    this.#history.push({
      containers: [...this.containers.values()].map((unit) => ({ ...unit, output: undefined, guard: undefined })),
      volumes: [...this.volumes.values()].map((volume) => ({ ...volume, files: undefined })),
    });
    if (this.#history.length > HISTORY_MAX) this.#history.shift();
    for (const listener of this.#listeners) listener(uid);
  }

  /** Calls back on every change until the returned function is called. */
  listen(listener: (uid: string) => void): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  /** Throws an InvariantViolation if anything that must never happen has happened. */
  check(): void {
    assertHeld(this);
  }

  #begin(unit: Container): void {
    unit.state = "running";
    unit.starts += 1;
    unit.startedMs = this.#nowMs;
    if (unit.role === "guard") unit.guard = freshGuard(unit.id);
    if (unit.role === "agent" || unit.role === "session") {
      const around = (role: Role) => this.unitsOf(unit.uid).find((other) => other.role === role)?.state ?? "absent";
      const run: StartedRun = {
        uid: unit.uid,
        ...unit.turn,
        role: unit.role,
        atMs: this.#nowMs,
        holder: around("holder"),
        guard: around("guard"),
      };
      this.startedRuns.push(run);
      this.violations.push(...startViolations(run, this.#mounted(unit)));
      if (this.#guarded && unit.role === "agent") this.violations.push(...this.#unguarded(unit));
    }
    this.changed(unit.uid);
  }

  #unguarded(unit: Container): string[] {
    const home = this.#mounted(unit).find((volume) => volume.part === "home");
    const what = `agent of bottle "${unit.uid}" started`;
    return guardViolations({ what, env: unit.env }, this.guardOf(unit.uid), home?.files ?? new Map());
  }

  #perform(unit: Container, result: ProgramResult): void {
    if (result.output !== undefined) this.write(unit, new TextEncoder().encode(result.output));
    unit.echo = result.echo;
    applyWrites(this.#mounted(unit), result.writes ?? {});
    for (const host of result.egress ?? []) this.request(unit.uid, host);
    this.changed(unit.uid);
  }

  #mounted(unit: Container): Volume[] {
    return unit.volumes.flatMap((name) => this.volumes.get(name) ?? []);
  }
}
