import { setMaxListeners } from "node:events";
import type { Readable, Writable } from "node:stream";
import type { GuardConfig, AuditRequest } from "../../controller/ports/guard.ts";
import type { AuditJournal } from "./audit-journal.ts";
import type { Authority } from "./authority.ts";
import { wrongInAuditRequest, wrongInConfig } from "./config-shape.ts";
import {
  CONTROL_REQUESTS_MAX,
  createLineReader,
  type ControlAnswer,
  type ControlError,
  type ControlRequest,
} from "./control-protocol.ts";
import { SettingsError, type SettingsHolder } from "./settings.ts";

export interface ControlParts {
  settings: SettingsHolder;
  audit: AuditJournal;
  /** It is made while the guard starts; only settings wait for it. */
  authority: Promise<Pick<Authority, "certificate">>;
}

/** The guard's end of a control channel. Nothing that arrives is ever written anywhere, in an error least of all: it may be a secret. */
export function serveControl(parts: ControlParts, channel: { input: Readable; output: Writable }): void {
  const gone = new AbortController();
  // Each reader that waits listens to it; without this Node takes them for a leak.
  setMaxListeners(CONTROL_REQUESTS_MAX, gone.signal);
  // Counted apart: readers that wait must not keep settings out.
  const running = { configure: 0, audit: 0 };
  const send = (one: ControlAnswer): void => {
    if (!gone.signal.aborted && channel.output.writable) channel.output.write(`${JSON.stringify(one)}\n`);
  };
  const take = async (line: string): Promise<void> => {
    const request = readRequest(line);
    if (request === undefined) return;
    if ("error" in request) return send({ ok: false, ...request });
    const { id, type } = request;
    if (running[type] >= CONTROL_REQUESTS_MAX) return send({ id, ok: false, error: BUSY });
    running[type] += 1;
    try {
      send({ id, ok: true, result: await answer(parts, request, gone.signal) });
    } catch (error) {
      send({ id, ok: false, error: toControlError(error) });
    } finally {
      running[type] -= 1;
    }
  };
  const reader = createLineReader((line) => void take(line));
  channel.input.on("data", (chunk: Buffer) => reader.push(chunk));
  // A reader that went away waits for nothing any longer. Settings stay in force: the bottle needs its guard, not its controller.
  for (const event of ["end", "close", "error"]) channel.input.on(event, () => gone.abort());
  channel.output.on("error", () => gone.abort());
}

const BUSY: ControlError = { kind: "Transient", reason: "Busy", message: "too many requests wait for an answer" };

async function answer(
  parts: ControlParts,
  request: ControlRequest,
  signal: AbortSignal,
): Promise<Extract<ControlAnswer, { ok: true }>["result"]> {
  if (request.type === "audit") {
    const page = await parts.audit.read(request.request, signal);
    const digest = parts.settings.current()?.digest;
    return { ...page, ...(digest === undefined ? {} : { digest }) };
  }
  const { certificate } = await parts.authority;
  parts.settings.apply(request.config);
  return { digest: request.config.digest, caCertificate: certificate };
}

/** `undefined` for what is no request at all; an error for one that cannot be served. */
function readRequest(line: string): ControlRequest | { id: string; error: ControlError } | undefined {
  const value = parse(line);
  if (value === undefined) return undefined;
  const { id, type, config, request } = value;
  if (typeof id !== "string" || !/^[-\w]{1,64}$/.test(id)) return undefined;
  const refuse = (what: string) =>
    ({ id, error: { kind: "Invalid", reason: "RequestInvalid", message: what } }) as const;
  if (type === "configure") {
    const wrong = wrongInConfig(config);
    return wrong === undefined
      ? { id, type, config: config as GuardConfig }
      : refuse(`cannot use the settings: ${wrong}`);
  }
  if (type !== "audit") return refuse("the request is none that this guard knows");
  const wrong = wrongInAuditRequest(request);
  return wrong === undefined
    ? { id, type, request: request as AuditRequest }
    : refuse(`cannot read the audit: ${wrong}`);
}

function parse(line: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(line);
    return typeof value === "object" && value !== null ? { ...value } : undefined;
  } catch {
    return undefined;
  }
}

/** Only messages that were written for this are passed on; another error may quote what it failed on. */
function toControlError(error: unknown): ControlError {
  if (error instanceof SettingsError) return { kind: "Invalid", reason: error.reason, message: error.message };
  const code = error instanceof Error && "code" in error ? String(error.code) : "no code";
  return { kind: "Transient", reason: "GuardFailed", message: `the guard could not answer (${code})` };
}
