import type { TLSSocket } from "node:tls";
import { QUIET_MS_MAX, type Egress } from "./egress.ts";
import { createInnerHttp1, createInnerHttp2, type Inside } from "./inner-http.ts";
import { peekClientHello } from "./tls-peek.ts";
import { createTlsServers, tunnelEntry, type TlsServers } from "./tls-servers.ts";
import { ESTABLISHED, type Tunnel } from "./tunnel.ts";

/** Tunnels whose TLS ends in the guard, so that requests can be read. */
export interface Mitm {
  serve(tunnel: Tunnel): void;
}

/**
 * One TLS server for each authority, and one HTTP server for each version of HTTP, none of which ever listens: sockets are handed on from one
 * to the next. To which authority a request was connected is kept beside its connection, so that a request cannot say so itself.
 */
export function createMitm(egress: Egress): Mitm {
  const connections = new WeakMap<object, Inside>();
  const http1 = createInnerHttp1((socket) => connections.get(socket));
  const http2 = createInnerHttp2((session) => connections.get(session));
  let entering: Inside | undefined;
  http2.on("session", (session) => {
    if (entering === undefined) session.destroy();
    else connections.set(session, entering);
  });
  const servers = createTlsServers(egress, (tls, { destination, token }) => {
    const counts = { requests: 0, running: 0, quietSinceMs: egress.now() };
    const inside: Inside = { egress, destination, protocol: "HTTPS", ...counts };
    connections.set(tls, inside);
    watch(tls, inside, token);
    if (tls.alpnProtocol !== "h2") return void http1.emit("connection", tls);
    // The session is made, and told of, before this returns.
    entering = inside;
    http2.emit("connection", tls);
    entering = undefined;
  });
  return {
    serve(tunnel) {
      tunnel.socket.write(ESTABLISHED);
      handOver(tunnel, servers).catch(() => end(tunnel, "no certificate could be made for this host"));
    },
  };
}

async function handOver(tunnel: Tunnel, servers: TlsServers): Promise<void> {
  const { socket, destination, entry } = tunnel;
  const peek = await peekClientHello(socket, destination);
  if (!peek.ok && peek.closed === true) return end(tunnel, peek.reason);
  if (!peek.ok) {
    entry.end({ verdict: "Denied", rule: "tls-refused", reason: peek.reason });
    socket.destroy();
    return;
  }
  const server = await servers.of(tunnel);
  if (socket.destroyed) return end(tunnel, "the tunnel was closed in its handshake");
  socket.unshift(peek.bytes);
  // TLS takes this over from the socket. A half-open one would wait on when the client is gone in the middle of its handshake.
  socket.allowHalfOpen = false;
  server.emit("connection", socket);
}

function end({ socket, entry }: Tunnel, reason: string): void {
  entry.end({ verdict: "Failed", rule: "tls-refused", reason });
  socket.destroy();
}

/** A connection without a request has a line of its own; otherwise its requests have theirs. */
function watch(tls: TLSSocket, inside: Inside, token: string): void {
  const { egress, destination } = inside;
  const entry = tunnelEntry(egress, destination);
  // Each request in it is decided again by itself; only a tunnel of another token has no place here any longer.
  const recheck = (settings: { token: string } | undefined): void => {
    if (settings?.token !== token) tls.destroy();
  };
  const sweep = (nowMs: number): void => {
    if (inside.running === 0 && nowMs - inside.quietSinceMs > QUIET_MS_MAX) tls.destroy();
  };
  const close = egress.open.add({ recheck, sweep });
  tls.on("error", () => tls.destroy());
  tls.once("close", () => {
    close();
    if (inside.requests > 0) return;
    const reason = "the tunnel was closed before a request came: does the client trust the authority of this bottle?";
    entry.end({ verdict: "Failed", rule: "tls-refused", reason });
  });
  recheck(egress.settings.current());
}
