import { STATUS_CODES, type IncomingMessage } from "node:http";
import type { Duplex, Writable } from "node:stream";
import { refusalBody, type Remedy } from "../../../controller/policy/refusal.ts";
import type { AuditVerdict } from "../../../controller/ports/guard.ts";
import type { AuditEntry } from "./audit-entry.ts";
import { bodyLength } from "./body-reader.ts";
import type { Incoming, Outgoing } from "./egress.ts";

/** Why something does not go through, and what is answered. */
export interface Refused {
  rule: string;
  reason: string;
  status: number;
  verdict: Exclude<AuditVerdict, "Allowed">;
  ticket?: string;
  /** Where the rule alone does not tell what the agent can do. */
  remedy?: Remedy;
}

/** Everything else is 403. */
const STATUS: Readonly<Record<string, number>> = {
  "bad-request": 400,
  unauthorized: 407,
  "authority-mismatch": 421,
  "not-configured": 503,
  "audit-unavailable": 503,
  overloaded: 503,
  "resolve-failed": 502,
  "upstream-failed": 502,
};
const FAILURES: ReadonlySet<string> = new Set(["resolve-failed", "upstream-failed"]);
/** Of a body that nobody reads, after its request was answered. */
const DROPPED_BYTES_MAX = 16 * 1024 * 1024;
const DROPPED_MS_MAX = 10_000;
const ANSWER_MS_MAX = 5_000;

export function refused(
  rule: string,
  reason: string,
  more: Pick<Partial<Refused>, "status" | "ticket" | "remedy" | "verdict"> = {},
): Refused {
  const verdict = more.ticket !== undefined ? "ApprovalRequired" : FAILURES.has(rule) ? "Failed" : "Denied";
  return { rule, reason, verdict, ...more, status: more.status ?? STATUS[rule] ?? 403 };
}

/** The one way in which an agent is told no. */
export interface Answer {
  /** False when the head of another answer has gone out: then only `destroy` is left. */
  canSend(): boolean;
  send(status: number, headers: Record<string, string>, body: string): void;
  destroy(): void;
}

/** Answers, and writes the line. */
export function refuse(entry: AuditEntry, answer: Answer, no: Refused): void {
  const { status, ...outcome } = no;
  if (answer.canSend()) answer.send(status, headersOf(no), refusalText(entry, no));
  else answer.destroy();
  entry.end({ ...outcome, status });
}

function headersOf(no: Refused): Record<string, string> {
  const headers = { "content-type": "application/json", "cache-control": "no-store" };
  return no.status === 407 ? { ...headers, "proxy-authenticate": 'Basic realm="bottle"' } : headers;
}

function refusalText(entry: AuditEntry, no: Refused): string {
  const { host, method, path, reason } = entry.told(no.reason);
  const { rule, ticket, remedy } = no;
  const more = { ...(ticket === undefined ? {} : { ticket }), ...(remedy === undefined ? {} : { remedy }) };
  const destination = host === "" || entry.port === null ? {} : { destination: { host, port: entry.port } };
  return JSON.stringify(refusalBody({ rule, ...destination, method, path, reason, ...more }));
}

export function responseAnswer(request: Incoming, response: Outgoing): Answer {
  return {
    canSend: () => !response.headersSent && !response.writableEnded && !gone(response),
    send(status, headers, body) {
      for (const [name, value] of Object.entries(headers)) response.setHeader(name, value);
      response.setHeader("content-length", String(Buffer.byteLength(body)));
      response.statusCode = status;
      const written: Writable = response;
      written.end(request.method === "HEAD" ? undefined : body);
      dropBody(request, response);
    },
    destroy: () => destroyResponse(response),
  };
}

function gone(response: Outgoing): boolean {
  return "stream" in response && response.stream !== undefined ? response.stream.destroyed : response.destroyed;
}

/** So that the client sees a broken answer, never a short one that looks whole. */
function destroyResponse(response: Outgoing): void {
  if ("stream" in response) response.stream?.close(INTERNAL_ERROR);
  else response.destroy();
}
const INTERNAL_ERROR = 2;
const NO_ERROR = 0;

/**
 * For an answer that came before its request was read to the end. A client that sees its connection cut while it still sends would never read
 * why, so its body is read and dropped, up to a bound.
 */
export function dropBody(request: Incoming, response: Outgoing): void {
  if (request.readableEnded || request.destroyed || bodyLength(request) === undefined) return;
  if ("stream" in response) {
    const { stream } = response;
    request.resume();
    response.once("finish", () => stream.close(NO_ERROR));
    return;
  }
  if (request.complete) return void request.resume();
  let dropped = 0;
  const { socket } = request as IncomingMessage;
  const timer = setTimeout(() => socket.destroy(), DROPPED_MS_MAX).unref();
  request.on("data", (chunk: Buffer) => {
    dropped += chunk.length;
    if (dropped > DROPPED_BYTES_MAX) socket.destroy();
  });
  request.once("close", () => clearTimeout(timer));
  request.resume();
}

/** For sockets that Node has handed over: tunnels, upgrades, and connections whose bytes are no request. */
export function socketAnswer(socket: Duplex): Answer {
  let sent = false;
  return {
    canSend: () => !sent && socket.writable,
    send(status, headers, body) {
      sent = true;
      socket.on("error", () => socket.destroy());
      // Without a reader an ended tunnel would keep its socket, so what still arrives is dropped.
      socket.resume();
      const timer = setTimeout(() => socket.destroy(), ANSWER_MS_MAX).unref();
      socket.once("close", () => clearTimeout(timer));
      socket.end(responseHead(status, { ...headers, "content-length": String(Buffer.byteLength(body)) }) + body);
    },
    destroy: () => void socket.destroy(),
  };
}

function responseHead(status: number, headers: Record<string, string>): string {
  const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`);
  return `HTTP/1.1 ${status} ${STATUS_CODES[status] ?? "Unknown"}\r\n${lines.join("")}connection: close\r\n\r\n`;
}
