import type { Server } from "node:net";
import type { AuditJournal } from "./audit-journal.ts";
import type { Authority } from "./authority.ts";
import { createClosedDoor } from "./closed-door.ts";
import type { Door } from "./doors.ts";
import type { SettingsHolder } from "./settings.ts";

/** What all roles of a guard share. */
export interface RoleParts {
  settings: SettingsHolder;
  audit: AuditJournal;
  authority: Promise<Authority>;
  now: () => number;
  /** Addresses of the host, which are never dialled. */
  hostAddresses: readonly string[];
  /** Name servers, `ADDRESS` or `ADDRESS:PORT`. Empty: those of the system. */
  dns: readonly string[];
  /** A PEM file of authorities that are trusted beside the public ones. */
  upstreamCa?: string | undefined;
  /** What NODE_EXTRA_CA_CERTS names: Node reads it only where nothing else is said about authorities. */
  extraCa?: string | undefined;
}

/** The server behind a door. It does not listen yet. What a role is made of is loaded by the guards that have it. */
export async function createRole(door: Door, parts: RoleParts): Promise<Server> {
  if (door.name !== "egress") return createClosedDoor(door, parts.settings);
  const { createEgressDoor } = await import("./egress-door.ts");
  return createEgressDoor(parts);
}
