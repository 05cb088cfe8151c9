import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { Socket } from "node:net";
import type { Duplex } from "node:stream";
import { parseAbsolute, type Destination } from "../../../controller/policy/destination.ts";
import { CONNECTIONS_MAX } from "../doors.ts";
import { createAuditEntry, pathOf } from "./audit-entry.ts";
import { refuseBroken } from "./broken.ts";
import { handleConnect } from "./connect.ts";
import { HEAD_BYTES_MAX, HEADERS_MS_MAX, type Egress, type EgressParts } from "./egress.ts";
import { authenticate } from "./gate.ts";
import { createInjections } from "./inject.ts";
import { createMitm } from "./mitm.ts";
import { createOpenWork } from "./open-work.ts";
import { serveRequest } from "./request.ts";
import { refuse, refused, responseAnswer, socketAnswer, type Answer, type Refused } from "./respond.ts";
import { createTickets } from "./tickets.ts";
import { serveUpgrade } from "./websocket.ts";

const KEEP_ALIVE_MS = 60_000;

/**
 * The egress door: an HTTP proxy that does not listen yet. CONNECT leads into tunnels; requests in absolute form are plain HTTP, for the hosts
 * whose rules say so. Whoever closes it must destroy its connections: tunnels do not end by themselves.
 */
export function createEgress(parts: EgressParts): Server {
  const egress: Egress = {
    ...parts,
    open: createOpenWork(parts.settings, () => parts.now()),
    tickets: createTickets(() => parts.randomId()),
    injections: createInjections(),
    load: { requests: 0, heldBytes: 0 },
  };
  parts.settings.onChange(() => parts.upstreams.retain(parts.settings.current()?.policy.rules ?? []));
  const mitm = createMitm(egress);
  const server = createServer({
    maxHeaderSize: HEAD_BYTES_MAX,
    headersTimeout: HEADERS_MS_MAX,
    // A body may take as long as it takes: uploads are slow at times, and so are streams.
    requestTimeout: 0,
    connectionsCheckingInterval: HEADERS_MS_MAX / 2,
    keepAliveTimeout: KEEP_ALIVE_MS,
    // A request without one gets its line and its reason as every other.
    requireHostHeader: false,
    noDelay: true,
  });
  server.maxConnections = CONNECTIONS_MAX;
  server.timeout = 0;
  const last = new WeakMap<object, IncomingMessage>();
  const plain = (request: IncomingMessage, response: ServerResponse): void => {
    last.set(request.socket, request);
    servePlain(egress, request, response);
  };
  server.on("request", plain);
  server.on("checkExpectation", plain);
  server.on("connect", (request: IncomingMessage, socket: Duplex, head: Buffer) => {
    handleConnect({ egress, mitm }, { request, socket: socket as Socket, head });
  });
  server.on("upgrade", (request: IncomingMessage, socket: Duplex, head: Buffer) => {
    socket.on("error", () => socket.destroy());
    const target = readTarget(egress, request);
    if (target.ok) return serveUpgrade(target.context, { request, socket, head, target: target.target });
    refusePlain(egress, request, { answer: socketAnswer(socket), no: target.refused });
  });
  server.on("clientError", (error, socket) => {
    // A connection that was opened ahead of its first request and never used.
    if ("bytesRead" in socket && socket.bytesRead === 0) socket.destroy();
    else refuseBroken(egress, { error, socket, last: last.get(socket) });
  });
  return server;
}

function servePlain(egress: Egress, request: IncomingMessage, response: ServerResponse): void {
  const target = readTarget(egress, request);
  if (target.ok) return serveRequest(target.context, request, response, target.target);
  refusePlain(egress, request, { answer: responseAnswer(request, response), no: target.refused });
}

type Target =
  | { ok: true; context: { egress: Egress; destination: Destination; protocol: "HTTP" }; target: string }
  | { ok: false; refused: Refused };

/** Whoever asks must know the token, as for a tunnel, and say in the request line where it is to go. */
function readTarget(egress: Egress, request: IncomingMessage): Target {
  const gate = authenticate(egress, request.headers);
  if (!gate.ok) return gate;
  const url = request.url ?? "";
  if (!URL_FORM.test(url)) {
    return badRequest("this is a proxy: ask for http:// URLs in absolute form, and use CONNECT for https://");
  }
  const parsed = parseAbsolute(url);
  if (!parsed.ok) return badRequest(`the URL is refused: ${parsed.reason}`);
  return { ok: true, context: { egress, destination: parsed.destination, protocol: "HTTP" }, target: parsed.target };
}
const URL_FORM = /^[a-z][a-z0-9+.-]*:\/\//i;

function badRequest(reason: string): Target {
  return { ok: false, refused: refused("bad-request", reason) };
}

function refusePlain(egress: Egress, request: IncomingMessage, { answer, no }: { answer: Answer; no: Refused }): void {
  const url = request.url ?? "";
  const parsed = parseAbsolute(url);
  const { host, port } = parsed.ok ? parsed.destination : { host: "", port: null };
  // Of another form nothing is known, not even where a password would end.
  const target = parsed.ok ? parsed.target : url.startsWith("/") ? url : "";
  const method = request.method ?? "";
  const entry = createAuditEntry(egress, {
    kind: "request",
    protocol: "HTTP",
    host,
    port,
    method,
    path: pathOf(target),
  });
  refuse(entry, answer, no);
}
