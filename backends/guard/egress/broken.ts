import type { IncomingMessage } from "node:http";
import type { Duplex } from "node:stream";
import { createAuditEntry } from "./audit-entry.ts";
import type { Egress } from "./egress.ts";
import { refuse, refused, socketAnswer } from "./respond.ts";

export interface Broken {
  /** Where its connection leads; absent: it is not known yet. */
  context?: { protocol: "HTTPS" | "HTTP"; destination: { host: string; port: number } };
  error: Error;
  socket: Duplex;
  /** The last request on this connection. */
  last: IncomingMessage | undefined;
}

const STATUS: Readonly<Record<string, number>> = { HPE_HEADER_OVERFLOW: 431, ERR_HTTP_REQUEST_TIMEOUT: 408 };

/** Bytes that Node's parser refused: smuggling, an overlong head, a head that took too long. True if there is a line for them now. */
export function refuseBroken(egress: Egress, { context, error, socket, last }: Broken): boolean {
  const code = "code" in error ? String(error.code) : "";
  // The client is gone, or it is the body of a request that has a line of its own.
  if (code === "ECONNRESET" || !socket.writable || last?.complete === false) {
    socket.end(() => socket.destroy());
    return false;
  }
  const { host, port } = context?.destination ?? { host: "", port: null };
  const protocol = context?.protocol ?? "HTTP";
  const entry = createAuditEntry(egress, { kind: "request", protocol, host, port, method: "", path: "" });
  const status = STATUS[code] ?? 400;
  refuse(
    entry,
    socketAnswer(socket),
    refused("bad-request", `the request cannot be read: ${code || "it is no HTTP"}`, { status }),
  );
  return true;
}
