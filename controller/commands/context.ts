import { homedir } from "node:os";
import { join, resolve } from "node:path";
import { BACKEND_NAMES, createBackend } from "../../backends/index.ts";
import { admit } from "../api/admit.ts";
import { DEFAULT_NAMESPACE } from "../api/meta.ts";
import { dnsLabel } from "../api/schema.ts";
import type { AuditLog } from "../ports/audit.ts";
import type { Backend } from "../ports/backend.ts";
import type { Journal, Transcripts } from "../ports/journal.ts";
import type { Log } from "../ports/log.ts";
import type { Store } from "../ports/store.ts";
import { controllerPid } from "../stores/sqlite/lock.ts";
import { openDatabase } from "../stores/sqlite/open-database.ts";
import { CommandError, EXIT } from "./exit.ts";
import { guardEnvironment } from "./guard-environment.ts";
import { say, type Io } from "./io.ts";

/** All that a verb works with. Tests make their own. */
export interface CommandContext {
  store: Store;
  journal: Journal;
  transcripts: Transcripts;
  auditLog: AuditLog;
  /** The owner of everything this installation makes on a backend. */
  installationId: string;
  /** What agents show their guards is derived from it. Never printed. */
  guardKey: Uint8Array;
  stateDir: string;
  namespace: string;
  backendNames: readonly string[];
  /** By lower-case name. Throws for one that does not exist. */
  backend(name: string): Backend;
  /** The process that runs `bot-bottle serve` on this state directory. */
  controllerPid(): number | undefined;
  now(): number;
  io: Io;
  env: Readonly<Record<string, string | undefined>>;
  /** Aborts on Ctrl-C. */
  signal: AbortSignal;
  close(): void;
}

/** Options every verb understands, before or after its name. */
export interface GlobalOptions {
  stateDir?: string;
  logLevel?: string;
  namespace?: string;
  color?: boolean;
}

/** Where an installation keeps what it knows. */
export function stateFiles(stateDir: string): { database: string; lock: string } {
  return { database: join(stateDir, "bot-bottle.db"), lock: join(stateDir, "controller.lock") };
}

export function stateDirOf(options: GlobalOptions, env: CommandContext["env"]): string {
  const fromEnv = env["BOT_BOTTLE_STATE_DIR"];
  return resolve(
    options.stateDir ?? (fromEnv === undefined || fromEnv === "" ? join(homedir(), ".bot-bottle") : fromEnv),
  );
}

export function namespaceOf(options: GlobalOptions): string {
  const namespace = options.namespace ?? DEFAULT_NAMESPACE;
  if (!dnsLabel.safeParse(namespace).success) {
    throw new CommandError(EXIT.usage, `namespace "${namespace}" is not a name: use small letters, digits and "-"`);
  }
  return namespace;
}

export { perform } from "./perform.ts";

const LOG_LEVELS = ["debug", "info", "warn", "error"] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];

function wallClock(): number {
  return Date.now();
}

/** The context of a real run: the database of the state directory, the backends of this program, the wall clock. */
export function openContext(options: GlobalOptions, world: { io: Io; signal: AbortSignal }): CommandContext {
  const env = process.env;
  const stateDir = stateDirOf(options, env);
  const namespace = namespaceOf(options);
  const files = stateFiles(stateDir);
  const now = wallClock;
  const database = openDatabase({ file: files.database, admission: admit, now });
  const opened = new Map<string, Backend>();
  const log = stderrLog(world.io, levelOf(options.logLevel));
  return {
    ...world,
    ...database,
    stateDir,
    namespace,
    backendNames: BACKEND_NAMES,
    backend(name) {
      const shared = { stateDir, owner: database.installationId, now, log, ...guardEnvironment(env) };
      const backend = opened.get(name) ?? createBackend(name, shared);
      opened.set(name, backend);
      return backend;
    },
    controllerPid: () => controllerPid(files.lock),
    now,
    env,
  };
}

function levelOf(text: string | undefined): LogLevel {
  const level = LOG_LEVELS.find((known) => known === (text ?? "error"));
  if (level === undefined) {
    throw new CommandError(EXIT.usage, `log level "${text}" is unknown: choose one of ${LOG_LEVELS.join(", ")}`);
  }
  return level;
}

function stderrLog(io: Io, least: LogLevel): Log {
  const at = (level: LogLevel) => (fields: object, message: string) => {
    if (LOG_LEVELS.indexOf(level) < LOG_LEVELS.indexOf(least)) return;
    say(io, `${level}: ${message} ${JSON.stringify(fields)}`);
  };
  return { debug: at("debug"), info: at("info"), warn: at("warn"), error: at("error") };
}
