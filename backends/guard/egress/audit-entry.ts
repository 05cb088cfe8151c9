import { scanHost, scanTexts, type DlpRules } from "../../../controller/policy/dlp/index.ts";
import type { AuditLine, AuditVerdict, EgressProtocol } from "../../../controller/ports/guard.ts";
import type { EgressParts } from "./egress.ts";

const FIELD_LENGTH_MAX = 1_024;
/** Stands for a field that holds what must not be told. */
const REDACTED = "(redacted)";

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
  /** Host and path were scanned, and nothing was found in them. */
  isClean: boolean;
  /** What may be told of it, in a line or to the agent. */
  told(reason: string): Told;
  /** Writes the line. Only the first call does: what ends twice (refused, then closed) is told once. */
  end(outcome: Outcome): void;
}

export type Told = Pick<AuditLine, "host" | "method" | "path" | "reason">;

type Subject = Pick<AuditLine, "kind" | "protocol" | "host" | "port" | "method" | "path">;

/**
 * Begins a line. With `audit: Blocks` lines of what was allowed are left out, and so they are not in any counter either: the controller counts
 * lines.
 */
export function createAuditEntry(parts: EgressParts, subject: Subject): AuditEntry {
  const { kind, ...target } = subject;
  const startMs = parts.now();
  const first = parts.settings.current();
  let ended = false;
  const entry: AuditEntry = {
    ...target,
    address: undefined,
    bytesUp: 0,
    bytesDown: 0,
    injected: [],
    dlp: [],
    isClean: false,
    told(reason) {
      // A secret that was changed meanwhile is still one.
      const known = new Set([first, parts.settings.current()].flatMap((settings) => settings?.dlp ?? []));
      return tellable(entry, reason, [...known]);
    },
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
  const { host, method, path, reason } = entry.told(outcome.reason);
  return {
    v: 1,
    time: new Date(startMs).toISOString(),
    kind,
    verdict: outcome.verdict,
    rule: outcome.rule,
    reason,
    protocol: entry.protocol,
    host,
    port: entry.port,
    method,
    path,
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

/**
 * What came from the agent is told only where it holds no secret, placeholder or token: a field with one is left out as a whole, and all are if
 * one stands across them. Fields are cut afterwards, lest half a secret be told.
 */
function tellable({ host, method, path, isClean }: AuditEntry, reason: string, known: readonly DlpRules[]): Told {
  const fields = { host, method, path, reason };
  const isFound = (texts: readonly string[]): boolean =>
    known.some((dlp) => scanTexts(dlp, texts).length > 0 || texts.some((text) => scanHost(dlp, text).length > 0));
  if (isClean || !isFound(Object.values(fields))) return eachOf(fields, cut);
  const told = eachOf(fields, (text) => (isFound([text]) ? REDACTED : cut(text)));
  return Object.values(told).includes(REDACTED) ? told : eachOf(fields, () => REDACTED);
}

function eachOf({ host, method, path, reason }: Told, change: (text: string) => string): Told {
  return { host: change(host), method: change(method), path: change(path), reason: change(reason) };
}

/** Without a query, whatever the client sent as its target. */
export function pathOf(target: string): string {
  return target.split(/[?#]/, 1)[0] ?? "";
}

function cut(text: string): string {
  return text.length <= FIELD_LENGTH_MAX ? text : text.slice(0, FIELD_LENGTH_MAX);
}
