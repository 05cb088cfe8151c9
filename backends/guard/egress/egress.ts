import type { IncomingMessage, ServerResponse } from "node:http";
import type { Http2ServerRequest, Http2ServerResponse } from "node:http2";
import type { Destination } from "../../../controller/policy/destination.ts";
import type { AuditJournal } from "../audit-journal.ts";
import type { Authority } from "../authority.ts";
import type { SettingsHolder } from "../settings.ts";
import type { Budget } from "./budget.ts";
import type { Injections } from "./inject.ts";
import type { OpenWork } from "./open-work.ts";
import type { Tickets } from "./tickets.ts";
import type { Upstreams } from "./upstream.ts";

/** What egress is made of. Nothing here is reached in another way, so that tests can join real and small parts. */
export interface EgressParts {
  settings: SettingsHolder;
  audit: Pick<AuditJournal, "write" | "health">;
  /** It may still be in the making. */
  authority: Pick<Authority, "leaf"> | Promise<Pick<Authority, "leaf">>;
  upstreams: Upstreams;
  budget: Budget;
  /** Milliseconds since the Unix epoch. */
  now(): number;
  /** For tickets; never guessable. */
  randomId(): string;
}

/** The parts and what all connections share. */
export interface Egress extends EgressParts {
  open: OpenWork;
  tickets: Tickets;
  injections: Injections;
  /** At this moment: requests that run, and bytes of their bodies that are held for the scan. */
  load: { requests: number; heldBytes: number };
}

/** Where requests of one connection go, and in which form. Of a tunnel it is fixed; of a plain proxy request it is read from its target. */
export interface RequestContext {
  egress: Egress;
  destination: Destination;
  protocol: "HTTPS" | "HTTP";
}

export type Incoming = IncomingMessage | Http2ServerRequest;
export type Outgoing = ServerResponse | Http2ServerResponse;

/** Larger heads are refused on both sides of the guard. */
export const HEAD_BYTES_MAX = 16 * 1024;
export const HEADERS_MS_MAX = 10_000;
export const HANDSHAKE_MS_MAX = 10_000;
/** At one time, over all connections. */
export const REQUESTS_MAX = 1_000;
export const STREAMS_PER_SESSION_MAX = 128;
/** A tunnel in which nothing is asked for so long is closed. A running request is never too long. */
export const QUIET_MS_MAX = 10 * 60_000;
/** As the holder does: an hour without a byte in either direction is a forgotten connection. */
export const SPLICE_IDLE_MS_MAX = 3_600_000;
