import type { EgressCounters } from "../ports/audit.ts";
import type { AuditLine } from "../ports/guard.ts";
import { formatAge } from "./duration.ts";
import { safeCell } from "./safe-output.ts";

const HEADERS = ["TIME", "VERDICT", "RULE", "METHOD", "HOST", "PORT", "PATH", "STATUS", "UP", "DOWN", "MS", "REASON"];
const WIDE_HEADERS = ["DLP", "INJECTED", "ADDRESS"];

export function egressHeaders(isWide: boolean): string[] {
  return isWide ? [...HEADERS, ...WIDE_HEADERS] : HEADERS;
}

/** One line of the audit as cells. Host, method, path and what was found came from the agent, so all of it is made safe. */
export function egressRow(line: AuditLine, isWide: boolean): string[] {
  const cells = [
    line.time.replace(/\.\d+Z$/, "Z"),
    line.verdict,
    line.rule,
    line.method,
    line.host,
    String(line.port ?? ""),
    line.path,
    String(line.status ?? ""),
    formatBytes(line.bytesUp),
    formatBytes(line.bytesDown),
    String(Math.round(line.ms)),
    line.reason,
  ];
  const wide = isWide ? [line.dlp.join(","), line.injected.join(","), line.address ?? ""] : [];
  return [...cells, ...wide].map(safeCell);
}

/** Refused, or held up until a person approves. */
export function isDenied(line: Pick<AuditLine, "verdict">): boolean {
  return line.verdict === "Denied" || line.verdict === "ApprovalRequired";
}

/** `812`, `1.5Ki`, `20Mi`. */
export function formatBytes(bytes: number): string {
  const units = ["", "Ki", "Mi", "Gi", "Ti"];
  let value = bytes;
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  const digits = unit > 0 && value < 10 ? value.toFixed(1) : String(Math.floor(value));
  return `${digits}${units[unit]}`;
}

/** Everything that ever went through the bottle's guards, in one line. */
export function countersLine(counters: EgressCounters, nowMs: number): string {
  const hosts = Object.values(counters.hosts);
  const up = hosts.reduce((sum, host) => sum + host.bytesUp, 0);
  const down = hosts.reduce((sum, host) => sum + host.bytesDown, 0);
  const last = lastDeniedText(counters, nowMs);
  return [
    `allowed ${counters.allowed}, denied ${counters.denied}, of these ${counters.dlpBlocked} by DLP`,
    `up ${formatBytes(up)}, down ${formatBytes(down)}`,
    ...(last === undefined ? [] : [`last denied: ${last}`]),
  ].join("; ");
}

/** `evil.example:443 by rule "default-deny", 5m ago`. */
export function lastDeniedText({ lastDenied }: EgressCounters, nowMs: number): string | undefined {
  if (lastDenied === undefined) return undefined;
  const port = lastDenied.port === null ? "" : `:${lastDenied.port}`;
  return `${safeCell(lastDenied.host)}${port} by rule "${safeCell(lastDenied.rule)}", ${formatAge(lastDenied.time, nowMs)} ago`;
}
