import { createRequire } from "node:module";
import type Docker from "dockerode";
import { BackendError } from "../../controller/ports/backend.ts";
import { translate } from "./errors.ts";

/** Called around every request to the engine, so that a test can end the process between any two of them. */
export type Failpoint = (label: string, phase: "before" | "after") => void;

export interface CallOptions {
  signal?: AbortSignal | undefined;
  timeoutMs?: number;
  /** The object's name, for messages. */
  subject?: string;
}

/** The one way to the Docker Engine. */
export interface Engine {
  readonly docker: Docker;
  /**
   * Runs one request. `label` is `noun.verb` or `noun.verb:role`. Bounded in time and ended by `signal`; every failure is a BackendError.
   * Of a request that opens a stream only the opening is bounded: who reads the stream ends it.
   */
  call<T>(label: string, request: (abortSignal: AbortSignal) => Promise<T>, options?: CallOptions): Promise<T>;
}

const CALL_MS_MAX = 60_000;

export function createEngine(options: { socketPath?: string | undefined; failpoint?: Failpoint | undefined }): Engine {
  let docker: Docker | undefined;
  const address = options.socketPath ?? process.env["DOCKER_HOST"] ?? "/var/run/docker.sock";
  return {
    get docker() {
      docker ??= connect(options.socketPath);
      return docker;
    },
    async call(label, request, callOptions = {}) {
      options.failpoint?.(label, "before");
      const result = await bounded(label, address, request, callOptions);
      options.failpoint?.(label, "after");
      return result;
    },
  };
}

/** Loaded when the engine is first talked to: it takes longer than most commands, and most commands do not need it. */
function connect(socketPath: string | undefined): Docker {
  const Client: typeof Docker = createRequire(import.meta.url)("dockerode");
  return new Client(socketPath === undefined ? undefined : { socketPath });
}

async function bounded<T>(
  label: string,
  address: string,
  request: (abortSignal: AbortSignal) => Promise<T>,
  { signal, timeoutMs = CALL_MS_MAX, subject }: CallOptions,
): Promise<T> {
  const what = subject === undefined ? label : `${label} "${subject}"`;
  const controller = new AbortController();
  const stopped = new Promise<never>((_resolve, reject) => {
    controller.signal.addEventListener("abort", () => reject(controller.signal.reason), { once: true });
  });
  // Unhandled only in the sense that nobody may be racing yet when a caller's signal was aborted from the start.
  stopped.catch(() => {});
  const abort = () => controller.abort(new BackendError("Transient", "Aborted", `${what} was stopped by its caller`));
  const expire = () => controller.abort(timedOut(what, timeoutMs));
  const timer = Number.isFinite(timeoutMs) ? setTimeout(expire, timeoutMs) : undefined;
  signal?.addEventListener("abort", abort, { once: true });
  if (signal?.aborted === true) abort();
  try {
    controller.signal.throwIfAborted();
    return await Promise.race([request(controller.signal), stopped]);
  } catch (error) {
    if (controller.signal.aborted) throw controller.signal.reason;
    throw translate(error, { what, address });
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener("abort", abort);
  }
}

function timedOut(what: string, timeoutMs: number): BackendError {
  const seconds = Math.round(timeoutMs / 1000);
  return new BackendError(
    "Transient",
    "Timeout",
    `the Docker Engine did not finish ${what} within ${seconds} s: see the engine's log (journalctl -u docker)`,
  );
}
