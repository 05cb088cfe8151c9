import { createBackend } from "../../backends/index.ts";
import { createEventRecorder, expireEvents } from "../loop/events.ts";
import { createFolderSource } from "../sources/files.ts";
import type { Log } from "../ports/log.ts";
import { holdControllerLock } from "../stores/sqlite/lock.ts";
import { stateFiles, type CommandContext } from "./context.ts";
import { CommandError, EXIT } from "./exit.ts";
import { failpointFromEnv } from "./failpoint.ts";
import { guardEnvironment } from "./guard-environment.ts";
import { runController } from "./run-controller.ts";

/** Old events are removed this often. */
const HOUSEKEEPING_MS = 10 * 60_000;

export interface ControllerRun {
  log: Log;
  /** Folders to follow. */
  watch?: readonly string[];
  backend?: string;
  defaultImage?: string;
  ready?: () => void;
}

/** Runs the control loop and its folder sources in this process until the context's signal aborts. Refused while another process does. */
export async function holdController(context: CommandContext, run: ControllerRun): Promise<void> {
  if (run.backend !== undefined && !context.backendNames.includes(run.backend)) {
    const known = context.backendNames.join(", ");
    throw new CommandError(EXIT.usage, `backend "${run.backend}" is unknown: choose one of ${known}`);
  }
  const lock = holdControllerLock(stateFiles(context.stateDir).lock);
  if (lock === undefined) {
    const pid = context.controllerPid();
    const who = pid === undefined ? "another process" : `process ${pid}`;
    throw new CommandError(
      EXIT.refused,
      `${who} already serves "${context.stateDir}": end it first, or choose another --state-dir`,
    );
  }
  try {
    await runLocked(context, run);
  } finally {
    lock.release();
  }
}

async function runLocked(context: CommandContext, run: ControllerRun): Promise<void> {
  const { store, now, signal } = context;
  const { log } = run;
  const failpoint = failpointFromEnv(context.env, context.io.stderr);
  const owner = context.installationId;
  const shared = { stateDir: context.stateDir, owner, now, log, failpoint, ...guardEnvironment(context.env) };
  const backends = context.backendNames.map((name) => createBackend(name, shared));
  const sourceEvents = createEventRecorder({ store, log, now, component: "folder-source" });
  const folders = (run.watch ?? []).map((dir) => createFolderSource({ dir, store, events: sourceEvents, log, now }));
  const controller = runController({
    ...context,
    log,
    backends,
    events: createEventRecorder({ store, log, now, component: "bottle-controller" }),
    backendName: run.backend,
    defaultImage: run.defaultImage,
    ready: run.ready,
  });
  const housekeeping = setInterval(() => {
    expireEvents(store, now).catch((error: unknown) => log.warn({ error: String(error) }, "old events not removed"));
  }, HOUSEKEEPING_MS);
  try {
    await Promise.all([controller, ...folders.map((folder) => folder.run(signal))]);
  } finally {
    clearInterval(housekeeping);
  }
}

/**
 * Calls `body` while a controller works: the one that runs already, else one in this process for as long as it takes. What goes wrong in that one
 * ends the body.
 */
export async function withController<T>(
  context: CommandContext,
  run: ControllerRun,
  body: (context: CommandContext) => Promise<T>,
): Promise<T> {
  if (context.controllerPid() !== undefined) return body(context);
  const stop = new AbortController();
  const signal = AbortSignal.any([context.signal, stop.signal]);
  const held = holdController({ ...context, signal }, run);
  const broken = held.then(() => new Promise<never>(() => {}));
  try {
    return await Promise.race([body({ ...context, signal }), broken]);
  } finally {
    stop.abort();
    await held.catch(() => {});
  }
}
