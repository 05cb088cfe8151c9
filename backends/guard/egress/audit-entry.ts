import type { Refusal } from "../../../controller/policy/refusal.ts";
import type { AuditLine, AuditVerdict, EgressProtocol } from "../../../controller/ports/guard.ts";
import type { EgressParts } from "./egress.ts";

const FIELD_LENGTH_MAX = 1_024;

/** What the end of a request or a tunnel is told with. */
export interface Outcome {
  verdict: AuditVerdict;
  rule: string;
  reason: string;
  status?: number;
  ticket?: string;
}

/** The audit line of one request or tunnel while it grows. */
export interface AuditEntry {
  protocol: EgressProtocol;
  host: string;
  port: number | null;
  method: string;
  /** Without a query, which may hold a secret. */
  path: string;
  address: string | undefined;
  bytesUp: number;
  bytesDown: number;
  injected: readonly string[];
  dlp: readonly string[];
  /** Writes the line. Only the first call does: what ends twice (refused, then closed) is told once. */
  end(outcome: Outcome): void;
}

type Subject = Pick<AuditLine, "kind" | "protocol" | "host" | "port" | "method" | "path">;

/**
 * Begins a line. With `audit: Blocks` lines of what was allowed are left out, and so they are not in any counter either: the controller counts
 * lines.
 */
export function createAuditEntry(parts: EgressParts, subject: Subject): AuditEntry {
  const { kind, ...target } = subject;
  const startMs = parts.now();
  let ended = false;
  const entry: AuditEntry = {
    ...target,
    address: undefined,
    bytesUp: 0,
    bytesDown: 0,
    injected: [],
    dlp: [],
    end(outcome) {
      if (ended) return;
      ended = true;
      if (outcome.verdict === "Allowed" && parts.settings.current()?.source.audit === "Blocks") return;
      parts.audit.write(line(entry, { kind, startMs, endMs: parts.now(), outcome }));
    },
  };
  return entry;
}

function line(
  entry: AuditEntry,
  { kind, startMs, endMs, outcome }: { kind: AuditLine["kind"]; startMs: number; endMs: number; outcome: Outcome },
): AuditLine {
  return {
    v: 1,
    time: new Date(startMs).toISOString(),
    kind,
    verdict: outcome.verdict,
    rule: outcome.rule,
    reason: cut(outcome.reason),
    protocol: entry.protocol,
    host: cut(entry.host),
    port: entry.port,
    method: cut(entry.method),
    path: cut(entry.path),
    ...(entry.address === undefined ? {} : { address: entry.address }),
    ...(outcome.status === undefined ? {} : { status: outcome.status }),
    bytesUp: entry.bytesUp,
    bytesDown: entry.bytesDown,
    ms: Math.max(0, Math.round(endMs - startMs)),
    injected: entry.injected,
    dlp: entry.dlp,
    ...(outcome.ticket === undefined ? {} : { ticket: outcome.ticket }),
  };
}

/** Also what an answer says of a request, so that line and answer agree. */
export function refusalTarget(entry: AuditEntry): Pick<Refusal, "host" | "port" | "method" | "path"> {
  return { host: cut(entry.host), port: entry.port, method: cut(entry.method), path: cut(entry.path) };
}

/** Bounded, and without a query, whatever the client sent as its target. */
export function pathOf(target: string): string {
  return cut(target.split(/[?#]/, 1)[0] ?? "");
}

function cut(text: string): string {
  return text.length <= FIELD_LENGTH_MAX ? text : text.slice(0, FIELD_LENGTH_MAX);
}
