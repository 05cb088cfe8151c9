import type { IncomingMessage } from "node:http";
import type { Socket } from "node:net";
import { parseAuthority } from "../../../controller/policy/destination.ts";
import { decideConnect } from "../../../controller/policy/matcher.ts";
import { createAuditEntry } from "./audit-entry.ts";
import type { Egress } from "./egress.ts";
import { authenticate, whyShut } from "./gate.ts";
import type { Mitm } from "./mitm.ts";
import { refuse, refused, socketAnswer } from "./respond.ts";
import { openTunnel } from "./tunnel.ts";

/**
 * CONNECT. Where requests are read nothing is decided here but who asks: the tunnel is always given, and each request in it is decided and, if
 * need be, refused inside TLS, because agents wait for minutes on a CONNECT that is refused. Where bytes pass unread it is now or never.
 */
export function handleConnect(
  { egress, mitm }: { egress: Egress; mitm: Mitm },
  { request, socket, head }: { request: IncomingMessage; socket: Socket; head: Buffer },
): void {
  socket.on("error", () => socket.destroy());
  socket.setTimeout(0).setNoDelay(true);
  // Bytes that came with the request are read again by whoever takes the tunnel.
  if (head.length > 0) socket.unshift(head);
  const answer = socketAnswer(socket);
  const entry = createAuditEntry(egress, {
    kind: "tunnel",
    protocol: "HTTPS",
    host: "",
    port: null,
    method: "CONNECT",
    path: "",
  });
  const gate = authenticate(egress, request.headers);
  const parsed = parseAuthority(request.url ?? "");
  if (parsed.ok) Object.assign(entry, { host: parsed.destination.host, port: parsed.destination.port });
  if (!gate.ok) return refuse(entry, answer, gate.refused);
  if (!parsed.ok)
    return refuse(entry, answer, refused("bad-request", `the target of CONNECT is refused: ${parsed.reason}`));
  const { destination } = parsed;
  const decision = decideConnect(gate.settings.policy, destination);
  entry.protocol = decision.protocol;
  const tunnel = { egress, destination, entry, answer, socket, token: gate.settings.token };
  if (decision.protocol === "HTTPS") return mitm.serve(tunnel);
  const shut = whyShut(egress, gate.settings);
  if (shut !== undefined) return refuse(entry, answer, shut);
  openTunnel(tunnel, decision).catch(() => socket.destroy());
}
