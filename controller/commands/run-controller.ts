import { detectBackend } from "../../backends/index.ts";
import { createBackendSet, type DefaultBackend } from "../loop/backend-set.ts";
import { createController } from "../loop/controller.ts";
import type { AuditLog } from "../ports/audit.ts";
import type { Backend } from "../ports/backend.ts";
import type { EventRecorder } from "../ports/events.ts";
import type { Journal, Transcripts } from "../ports/journal.ts";
import type { Log } from "../ports/log.ts";
import type { Store } from "../ports/store.ts";

/** Runs in the image of agents whose templates name none: small, glibc, with a shell. */
const DEFAULT_IMAGE = "docker.io/library/debian:bookworm-slim";
const WORKERS = 8;
/** A host where no backend worked is asked again after this, so that installing one needs no restart. */
const DETECT_AGAIN_MS = 30_000;

export interface RunControllerOptions {
  store: Store;
  journal: Journal;
  transcripts: Transcripts;
  auditLog: AuditLog;
  guardKey: Uint8Array;
  backends: readonly Backend[];
  events: EventRecorder;
  log: Log;
  now: () => number;
  /** As `--backend` says; above BOT_BOTTLE_BACKEND. */
  backendName?: string;
  defaultImage?: string;
  signal: AbortSignal;
  ready?: () => void;
}

/** Runs the control loop until `signal` aborts and the work under way is done. */
export function runController(options: RunControllerOptions): Promise<void> {
  const controller = createController({
    ...options,
    backends: createBackendSet(options.backends, defaultBackend(options)),
    random: Math.random,
    defaultImage: options.defaultImage ?? defaultImage(),
    workers: WORKERS,
  });
  return controller.run(options.signal, options.ready);
}

export function defaultImage(): string {
  const fromEnv = process.env["BOT_BOTTLE_IMAGE"];
  return fromEnv === undefined || fromEnv === "" ? DEFAULT_IMAGE : fromEnv;
}

/** Asks once and keeps the answer; a refusal is asked again after a while. */
function defaultBackend(options: RunControllerOptions): DefaultBackend {
  let answer: { atMs: number; detection: ReturnType<typeof detectBackend> } | undefined;
  return async () => {
    if (answer === undefined || answer.atMs + DETECT_AGAIN_MS < options.now()) {
      const env = process.env["BOT_BOTTLE_BACKEND"];
      answer = {
        atMs: options.now(),
        detection: detectBackend(options.backends, { explicit: options.backendName, env }),
      };
    }
    const found = await answer.detection;
    if (!found.ok) return { ok: false, reason: "NoBackend", message: found.message };
    answer.atMs = Infinity;
    return { ok: true, name: found.name };
  };
}
