import type { EgressCounters } from "../../ports/audit.ts";
import type { AuditLine } from "../../ports/guard.ts";

/** Hosts that are counted one by one, the rest (`*`) included. */
const HOSTS_MAX = 256;
const REST = "*";
/** Characters of a host's name; what is longer is no name. */
const HOST_LENGTH_MAX = 253;

export const NO_TRAFFIC: EgressCounters = { allowed: 0, denied: 0, dlpBlocked: 0, hosts: {} };

type HostCounters = EgressCounters["hosts"][string];
const NOTHING: HostCounters = { allowed: 0, denied: 0, bytesUp: 0, bytesDown: 0 };

/** Adds lines to what was counted. A line that failed upstream was neither allowed through nor denied; its bytes count. */
export function countLines(before: EgressCounters, lines: readonly AuditLine[]): EgressCounters {
  let { allowed, denied, dlpBlocked, lastDenied } = before;
  const hosts = new Map(Object.entries(before.hosts));
  for (const line of lines) {
    const isAllowed = line.verdict === "Allowed";
    const isDenied = line.verdict === "Denied" || line.verdict === "ApprovalRequired";
    if (isAllowed) allowed += 1;
    if (isDenied) {
      denied += 1;
      if (line.rule === "dlp") dlpBlocked += 1;
      lastDenied = { time: line.time, host: hostOf(line), port: line.port, rule: line.rule };
    }
    const key = placeFor(hosts, hostOf(line), isAllowed);
    const known = hosts.get(key) ?? NOTHING;
    hosts.set(key, {
      allowed: known.allowed + Number(isAllowed),
      denied: known.denied + Number(isDenied),
      bytesUp: known.bytesUp + line.bytesUp,
      bytesDown: known.bytesDown + line.bytesDown,
    });
  }
  const counted = { allowed, denied, dlpBlocked, hosts: Object.fromEntries(hosts) };
  return lastDenied === undefined ? counted : { ...counted, lastDenied };
}

function hostOf(line: AuditLine): string {
  return line.host.slice(0, HOST_LENGTH_MAX);
}

/**
 * Under which name a host is counted. An agent can ask for as many names as it likes, all refused; a host that was allowed takes the place of
 * one of those, so that they cannot hide it among the rest.
 */
function placeFor(hosts: Map<string, HostCounters>, host: string, isAllowed: boolean): string {
  if (hosts.has(host)) return host;
  const named = hosts.size - Number(hosts.has(REST));
  if (named < HOSTS_MAX - 1) return host;
  const refused = isAllowed ? [...hosts].find(([name, { allowed }]) => name !== REST && allowed === 0) : undefined;
  if (refused === undefined) return REST;
  const [name, counters] = refused;
  const rest = hosts.get(REST) ?? NOTHING;
  hosts.delete(name);
  hosts.set(REST, {
    allowed: rest.allowed,
    denied: rest.denied + counters.denied,
    bytesUp: rest.bytesUp + counters.bytesUp,
    bytesDown: rest.bytesDown + counters.bytesDown,
  });
  return host;
}
