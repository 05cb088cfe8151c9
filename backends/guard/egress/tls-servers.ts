import { createServer, type Server, type TLSSocket } from "node:tls";
import { authorityOf, type Destination } from "../../../controller/policy/destination.ts";
import { createAuditEntry, type AuditEntry } from "./audit-entry.ts";
import { HANDSHAKE_MS_MAX, type Egress } from "./egress.ts";

/** To which authority a tunnel was given, and to whom. */
export interface Granted {
  destination: Destination;
  token: string;
}

/** Servers that end TLS for an authority and never listen. */
export interface TlsServers {
  of(granted: Granted): Promise<Server>;
}

const SERVERS_MAX = 256;
/** Shorter than any leaf lasts. */
const SERVER_MS_MAX = 24 * 3_600_000;

/** Each with a leaf for its host. They are kept because making one costs more than a handshake. */
export function createTlsServers(egress: Egress, secured: (tls: TLSSocket, granted: Granted) => void): TlsServers {
  /** In order of use. */
  const known = new Map<string, { server: Promise<Server>; madeMs: number }>();
  return {
    of(granted) {
      const key = `${authorityOf(granted.destination)} ${granted.token}`;
      const nowMs = egress.now();
      const found = known.get(key);
      known.delete(key);
      const isFresh = found !== undefined && nowMs - found.madeMs < SERVER_MS_MAX;
      const kept = isFresh ? found : { server: createTls(egress, granted, secured), madeMs: nowMs };
      known.set(key, kept);
      kept.server.catch(() => known.delete(key));
      for (const oldest of known.keys()) {
        if (known.size <= SERVERS_MAX) break;
        known.delete(oldest);
      }
      return kept.server;
    },
  };
}

async function createTls(
  egress: Egress,
  granted: Granted,
  secured: (tls: TLSSocket, granted: Granted) => void,
): Promise<Server> {
  const authority = await egress.authority;
  const server = createServer({
    ...(await authority.leaf(granted.destination.host)),
    // Nobody is asked for a certificate; without this the public authorities would be loaded for it.
    ca: [],
    minVersion: "TLSv1.2",
    ALPNProtocols: ["h2", "http/1.1"],
    handshakeTimeout: HANDSHAKE_MS_MAX,
  });
  server.on("secureConnection", (tls) => secured(tls, granted));
  server.on("tlsClientError", (error, tls) => {
    tls.on("error", () => tls.destroy()).destroy();
    const code = "code" in error ? String(error.code) : "error";
    const reason = `the client broke TLS off (${code}): does it trust the authority of this bottle?`;
    tunnelEntry(egress, granted.destination).end({ verdict: "Failed", rule: "tls-refused", reason });
  });
  return server;
}

export function tunnelEntry(egress: Egress, { host, port }: Destination): AuditEntry {
  return createAuditEntry(egress, { kind: "tunnel", protocol: "HTTPS", host, port, method: "CONNECT", path: "" });
}
