import type { Readable, Writable } from "node:stream";
import type { AuditPage, AuditRequest, GuardConfig, GuardConfigured } from "./guard.ts";
import type { TurnKey } from "./journal.ts";

/** `docker`, `bubblewrap`, …: as `--backend` and BOT_BOTTLE_BACKEND spell it. */
export type BackendName = string;

/** agent: one run of the agent's process. session: an extra command beside it. holder: owns the namespace. guard: the only way out. */
export type Role = "agent" | "session" | "holder" | "guard";

/** Whose unit or disk it is. Every backend object carries these as labels. */
export interface BottleIdentity {
  uid: string;
  namespace: string;
  name: string;
}

/** Everything a backend needs to make a bottle: no choice is left to it. Made by `plan` only. */
export interface Blueprint extends BottleIdentity {
  generation: number;
  /** Hash of all fields that would make a running holder or guard another one, or with the environment an agent. Units carry it as a label. */
  specHash: string;
  /** Absent: the backend runs programs of the host (bubblewrap). */
  image?: string;
  /** An OCI runtime of the Docker engine. */
  runtime?: string;
  /** Of the agent; sorted by name, placeholders only, never a secret. */
  env: Readonly<Record<string, string>>;
  limits: { cpuMillis?: number; memoryBytes?: number; pids?: number };
}

/** One run of the agent's process, fully spelt out. `env` is laid over that of the blueprint. */
export interface AgentRun extends TurnKey {
  argv: readonly string[];
  env: Readonly<Record<string, string>>;
}

/** The agent's directories, the same on every backend: both are on the bottle's disk, all else is read-only or in memory. */
export const HOME = "/home/agent";
export const WORKSPACE = "/workspace";
/** Rewritten in the agent's home before each start behind a new guard: what lies there is public. */
export const TRUST_DIR = `${HOME}/.bot-bottle`;
/** The bottle's own certificate authority alone. */
export const CA_FILE = `${TRUST_DIR}/ca.pem`;
/** Public authorities and the bottle's own, for programs that take one file for all. */
export const CA_BUNDLE_FILE = `${TRUST_DIR}/ca-bundle.pem`;

export interface UnitExit {
  /** Absent if it cannot be known (the host died). A signal is 128 + its number. */
  code?: number;
  oom: boolean;
}

/** One container, VM or process group of a bottle, as the backend shows it. */
export interface Unit {
  /** Unique on the backend; another one after a re-creation. */
  id: string;
  role: Role;
  /** created: exists and never ran. starting is running. exited: will not run again. */
  state: "created" | "running" | "exited";
  specHash: string;
  /** Of an agent. */
  turn?: TurnKey;
  createdMs: number;
  startedMs?: number;
  finishedMs?: number;
  /** Of an exited unit. */
  exit?: UnitExit;
}

/** One part of a bottle's disk. `sockets` is the way between holder and guard: not worth keeping. */
export interface DiskPart {
  id: string;
  part: "home" | "workspace" | "sockets";
  kind: "Volume" | "Directory";
  createdMs: number;
}

export interface BottleView extends BottleIdentity {
  units: readonly Unit[];
  disk: readonly DiskPart[];
}

/** All that this installation owns on one backend, from one moment. */
export interface Observation {
  /** When the look began. */
  atMs: number;
  bottles: ReadonlyMap<string, BottleView>;
}

export type Availability =
  | { ok: true; version: string }
  /** `reason` says what was found, `fix` what to type. */
  | { ok: false; reason: string; fix: string };

/** Checks made from inside a fresh bottle before an agent starts in it. */
export interface ProbeReport {
  passed: boolean;
  /** Which checks failed, or what was out of reach; one line, stable between runs. */
  detail: string;
}

export interface ExecRequest {
  argv: readonly string[];
  tty: boolean;
  size?: { columns: number; rows: number };
}

export interface ExecSession {
  stdin: Writable;
  stdout: Readable;
  /** Empty with a terminal: both streams are one there. */
  stderr: Readable;
  resize(size: { columns: number; rows: number }): Promise<void>;
  /** Resolves with the exit code when the command ended and its output was read. */
  exit: Promise<number>;
  /** Ends the command. */
  kill(): Promise<void>;
}

export interface BackendFeatures {
  /** Whether the agent runs from an image. */
  images: boolean;
  /** Which limits of a blueprint hold. */
  limits: { cpu: boolean; memory: boolean; pids: boolean };
}

/**
 * A place where bottles live. Every verb is idempotent: called again after a crash or an unknown outcome it finishes what is missing and
 * leaves alone what is there; absent and already done are success. Names derive from the uid, so that a retry collides instead of duplicating.
 * A verb may block, with a bound of its own (image pull 10 min, else 60 s), and ends early when `signal` aborts. Failures are BackendErrors.
 * A backend decides nothing: the order of verbs, and what is kept or removed, is the plan's.
 */
export interface Backend {
  readonly name: BackendName;
  readonly features: BackendFeatures;

  /** A real attempt to use the engine, not the existence of a file. */
  available(signal?: AbortSignal): Promise<Availability>;

  /** Everything this installation owns, in one cheap round, with every effect of calls that returned before it. Throws a BackendError if it could not look at all of it: nothing may be deleted on half a view. */
  observe(signal?: AbortSignal): Promise<Observation>;

  /** Calls `hint` with a uid when something of that bottle may have changed. Hints may be lost or doubled. Stops on `signal`. */
  watch(hint: (uid: string) => void, signal: AbortSignal): void;

  /** Makes the image present, the disk exist (owned by the agent's user), and holder and guard run. Holder or guard with another specHash: Conflict. */
  prepare(blueprint: Blueprint, signal?: AbortSignal): Promise<void>;

  /** Proves from the agent's network namespace that the guard answers and nothing else is in reach. */
  probe(unit: { uid: string; holderId: string }, signal?: AbortSignal): Promise<ProbeReport>;

  /**
   * Puts settings in force in a guard that runs, and returns its certificate authority. The values of secrets travel through the backend's own
   * channel to that guard and rest nowhere. Settings that the guard cannot use are Invalid, and the ones in force stay. NotFound if the guard is gone.
   */
  configureGuard(
    unit: { uid: string; guardId: string },
    config: GuardConfig,
    signal?: AbortSignal,
  ): Promise<GuardConfigured>;

  /** What the guard has to report. NotFound if it is gone. */
  readAudit(unit: { uid: string; guardId: string }, request: AuditRequest, signal?: AbortSignal): Promise<AuditPage>;

  /** Makes the unit of one run without starting it. One that exists in any state is left alone. */
  createAgent(blueprint: Blueprint, run: AgentRun, signal?: AbortSignal): Promise<void>;

  /** Starts a unit that is `created`; a unit that runs or has exited is left alone, never started again. NotFound if absent; Conflict unless holder and guard run. */
  startAgent(unit: { uid: string } & TurnKey, signal?: AbortSignal): Promise<void>;

  /** SIGTERM, then SIGKILL after `graceMs`. The exited unit stays, with its output and exit code. */
  stopAgent(unit: { uid: string } & TurnKey, options: { graceMs: number; signal?: AbortSignal }): Promise<void>;

  /**
   * Stops and removes units: running agents and sessions first, then guard and holder, then what only they used (sockets; also if no unit is left). The disk stays.
   * Conflict if it would take holder or guard from under an agent that runs and is not among the units.
   */
  removeUnits(uid: string, unitIds: readonly string[], signal?: AbortSignal): Promise<void>;

  /** Removes home, workspace and what is left of the sockets. Conflict if the bottle has units. */
  removeDisk(uid: string, signal?: AbortSignal): Promise<void>;

  /** Output of one run so far, stdout and stderr as one stream; with `follow` until it ends. NotFound if the unit is gone. */
  logs(unit: { uid: string } & TurnKey, options: { follow: boolean; signal?: AbortSignal }): AsyncIterable<Uint8Array>;

  /** Runs a command beside the agent, with its user, disk, limits and namespace. Unavailable if holder and guard do not run. */
  exec(blueprint: Blueprint, request: ExecRequest, signal?: AbortSignal): Promise<ExecSession>;

  /** Makes an empty disk for a bottle that has none yet (import). */
  createDisk(identity: BottleIdentity, signal?: AbortSignal): Promise<void>;

  /** Unpacks a tar stream below `directory` (HOME, WORKSPACE or below) as the agent's user. Works on frozen bottles too. Never follows a link out of the disk. */
  copyIn(uid: string, directory: string, tar: Readable, signal?: AbortSignal): Promise<void>;

  /** A tar stream of `path` (HOME, WORKSPACE or below); its first entry is named for the last part of the path. NotFound if absent. */
  copyOut(uid: string, path: string, signal?: AbortSignal): Promise<Readable>;
}

/** Invalid: the user must change something. Transient: the same call may succeed later. Conflict: look again and plan afresh. */
export type BackendErrorKind = "Invalid" | "NotFound" | "Conflict" | "Unavailable" | "Transient";

export class BackendError extends Error {
  readonly kind: BackendErrorKind;
  /** CamelCase, for a condition: ImageNotFound, CommandNotFound, EngineUnavailable, … */
  readonly reason: string;

  constructor(kind: BackendErrorKind, reason: string, message: string, options: { cause?: unknown } = {}) {
    super(message, options);
    this.name = "BackendError";
    this.kind = kind;
    this.reason = reason;
  }
}
