import { randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";
import type { Server } from "node:net";
import { parseAddress, type Address } from "../../controller/policy/address.ts";
import type { AuditJournal } from "./audit-journal.ts";
import { createBudget } from "./egress/budget.ts";
import { createDialer } from "./egress/dial.ts";
import { createResolver } from "./egress/resolve.ts";
import { createEgress } from "./egress/server.ts";
import { createUpstreams } from "./egress/upstream.ts";
import type { RoleParts } from "./roles.ts";

/** Egress as this process runs it: with its names, addresses and authorities. */
export function createEgressDoor(parts: RoleParts): Server {
  const ca = parts.upstreamCa === undefined ? [] : [readFileSync(parts.upstreamCa, "utf8"), ...readExtra(parts)];
  const resolver = createResolver(parts.dns.length === 0 ? {} : { dns: parts.dns });
  const dialer = createDialer({ resolver, hostAddresses: parts.hostAddresses.map(readAddress) });
  return createEgress({
    settings: parts.settings,
    audit: recordOnceConfigured(parts),
    authority: parts.authority,
    upstreams: createUpstreams({ dialer, ca }),
    budget: createBudget(),
    now: parts.now,
    randomId: randomUUID,
  });
}

/** A file that cannot be read is passed over, as Node does with it, and says so. */
function readExtra({ extraCa }: RoleParts): string[] {
  if (extraCa === undefined || extraCa === "") return [];
  try {
    return [readFileSync(extraCa, "utf8")];
  } catch {
    return [];
  }
}

/** Before there are settings there is no agent: only the probe asks, and what it is refused is not the bottle's doing. */
function recordOnceConfigured({ audit, settings }: RoleParts): Pick<AuditJournal, "write" | "health"> {
  return {
    write: (line) => settings.current() === undefined || audit.write(line),
    health: () => audit.health(),
  };
}

function readAddress(text: string): Address {
  const address = parseAddress(text);
  if (address === undefined) throw new Error(`--host-address "${text}" is no IP address: write one such as 192.0.2.1`);
  return address;
}
