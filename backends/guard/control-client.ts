import { randomUUID } from "node:crypto";
import type { Duplex } from "node:stream";
import { BackendError } from "../../controller/ports/backend.ts";
import type { AuditPage, AuditRequest, GuardConfig, GuardConfigured } from "../../controller/ports/guard.ts";
import {
  CONTROL_LINE_BYTES_MAX,
  createLineReader,
  type ControlAnswer,
  type ControlRequest,
} from "./control-protocol.ts";

/** One controller's end of a control channel. It owns its ids, not the stream: others may be attached to the same guard. */
export interface ControlClient {
  /** Fails with a BackendError: Invalid for settings that the guard refuses, NotFound when the channel ends, else Transient. */
  configure(config: GuardConfig, signal?: AbortSignal): Promise<GuardConfigured>;
  audit(request: AuditRequest, signal?: AbortSignal): Promise<AuditPage>;
  /** Ends what waits, and lets go of the stream without closing it. */
  close(): void;
}

export interface ControlDeadlines {
  configureMs?: number;
  /** On top of the time that a reader is willing to wait. */
  auditMs?: number;
}

const CONFIGURE_MS_MAX = 15_000;
const AUDIT_MS_MAX = 5_000;

interface Waiting {
  resolve(result: GuardConfigured | AuditPage): void;
  reject(error: BackendError): void;
}

export function createControlClient(stream: Duplex, deadlines: ControlDeadlines = {}): ControlClient {
  const { configureMs = CONFIGURE_MS_MAX, auditMs = AUDIT_MS_MAX } = deadlines;
  const waiting = new Map<string, Waiting>();
  let ended: BackendError | undefined;
  const reader = createLineReader((line) => settle(waiting, line));
  const end = (error: BackendError): void => {
    ended ??= error;
    for (const one of waiting.values()) one.reject(ended);
    stream.off("data", push);
  };
  const push = (chunk: Buffer): void => reader.push(chunk);
  // The listener for errors stays when this client lets go: a stream that fails with nobody listening would end the process.
  stream.on("error", (error) => end(gone(`failed: ${codeOf(error)}`)));
  stream.on("end", () => end(gone("ended")));
  stream.on("close", () => end(gone("was closed")));
  stream.on("data", push);
  if (stream.destroyed || stream.readableEnded) end(gone("was closed"));

  const send = (request: ControlRequest, options: { timeoutMs: number; signal?: AbortSignal }) =>
    new Promise<GuardConfigured | AuditPage>((resolve, reject) => {
      if (ended !== undefined) return reject(ended);
      const line = JSON.stringify(request);
      if (Buffer.byteLength(line) > CONTROL_LINE_BYTES_MAX) return reject(tooLarge(request.type));
      const done = (): void => {
        clearTimeout(timer);
        options.signal?.removeEventListener("abort", abort);
        waiting.delete(request.id);
      };
      const fail = (error: BackendError): void => {
        done();
        reject(error);
      };
      const abort = (): void => fail(stopped(request.type));
      const timer = setTimeout(() => fail(late(request.type, options.timeoutMs)), options.timeoutMs);
      waiting.set(request.id, { reject: fail, resolve: (result) => (done(), resolve(result)) });
      options.signal?.addEventListener("abort", abort, { once: true });
      if (options.signal?.aborted === true) return abort();
      // The newline in front ends what a client that was killed may have left half-written in a shared stream.
      stream.write(`\n${line}\n`);
    });

  return {
    async configure(config, signal) {
      const sent = send({ id: randomUUID(), type: "configure", config }, { timeoutMs: configureMs, signal });
      const result = await sent;
      if ("caCertificate" in result) return result;
      throw unexpected("configure");
    },
    async audit(request, signal) {
      const timeoutMs = request.waitMs + auditMs;
      const result = await send({ id: randomUUID(), type: "audit", request }, { timeoutMs, signal });
      if ("lines" in result) return result;
      throw unexpected("audit");
    },
    close: () => end(new BackendError("Transient", "ControlClosed", "the control channel was closed by its owner")),
  };
}

/** An answer is parsed only if it names a request of ours: pages of other clients pass by in the same stream. */
function settle(waiting: Map<string, Waiting>, line: string): void {
  for (const [id, one] of waiting) {
    if (!line.includes(id)) continue;
    const answer = answerOf(line);
    if (answer?.id !== id) continue;
    if (answer.ok) one.resolve(answer.result);
    else one.reject(new BackendError(answer.error.kind, answer.error.reason, answer.error.message));
    return;
  }
}

function answerOf(line: string): ControlAnswer | undefined {
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch {
    return undefined;
  }
  return isAnswer(value) ? value : undefined;
}

function isAnswer(value: unknown): value is ControlAnswer {
  if (typeof value !== "object" || value === null || !("id" in value) || !("ok" in value)) return false;
  if (value.ok === true) return "result" in value && typeof value.result === "object" && value.result !== null;
  if (!("error" in value) || typeof value.error !== "object" || value.error === null) return false;
  const { error } = value;
  return "kind" in error && (error.kind === "Invalid" || error.kind === "Transient") && "reason" in error;
}

function gone(why: string): BackendError {
  return new BackendError("NotFound", "GuardGone", `the guard's control channel ${why}`);
}

function tooLarge(what: string): BackendError {
  const most = `${CONTROL_LINE_BYTES_MAX / 1024 / 1024} MiB`;
  return new BackendError("Invalid", "SettingsTooLarge", `cannot ${what}: the request is larger than ${most}`);
}

function late(what: string, timeoutMs: number): BackendError {
  return new BackendError("Transient", "GuardTimeout", `the guard did not answer "${what}" within ${timeoutMs} ms`);
}

function stopped(what: string): BackendError {
  return new BackendError("Transient", "Aborted", `the request "${what}" to the guard was stopped by its caller`);
}

function unexpected(what: string): BackendError {
  return new BackendError("Transient", "GuardAnswerUnknown", `the guard answered "${what}" with something else`);
}

function codeOf(error: unknown): string {
  return error instanceof Error && "code" in error ? String(error.code) : "unknown error";
}
