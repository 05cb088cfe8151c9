import { createServer, type IncomingMessage, type RequestListener, type ServerResponse } from "node:http";
import type { Server } from "node:net";
import type { Duplex } from "node:stream";
import { CONNECTIONS_MAX, type Door } from "./doors.ts";
import { notConfigured, notEnabled, unauthorized, type DoorRefusal } from "./refusal.ts";
import type { SettingsHolder } from "./settings.ts";
import { carriesToken } from "./token.ts";

const HEADER_BYTES_MAX = 16 * 1024;
const HEADERS_MS_MAX = 10_000;
const REQUEST_MS_MAX = 30_000;
const IDLE_MS_MAX = 60_000;
const REASONS = { 401: "Unauthorized", 501: "Not Implemented", 503: "Service Unavailable" } as const;

/** The server behind a door that offers nothing: it tells those who have the token so, and the others nothing. */
export function createClosedDoor(door: Door, settings: SettingsHolder): Server {
  const server = createServer({
    maxHeaderSize: HEADER_BYTES_MAX,
    headersTimeout: HEADERS_MS_MAX,
    requestTimeout: REQUEST_MS_MAX,
    keepAliveTimeout: 5_000,
    connectionsCheckingInterval: 5_000,
  });
  server.maxConnections = CONNECTIONS_MAX;
  server.timeout = IDLE_MS_MAX;
  server.on(
    "request",
    answerWith((request) => reply(door, settings, request)),
  );
  server.on("connect", (request: IncomingMessage, socket: Duplex) =>
    refuseTunnel(reply(door, settings, request), socket),
  );
  server.on("clientError", (_error, socket) => socket.destroy());
  return server;
}

function reply(door: Door, settings: SettingsHolder, request: IncomingMessage): DoorRefusal {
  const token = settings.current()?.token;
  if (token === undefined) return notConfigured(door.name);
  const { authorization } = request.headers;
  if (!carriesToken(authorization ?? request.headers["proxy-authorization"], token)) return unauthorized(door.name);
  return notEnabled(door.name);
}

function answerWith(refusalOf: (request: IncomingMessage) => DoorRefusal): RequestListener {
  return (request: IncomingMessage, response: ServerResponse) => {
    // The body is dropped unread; a client that sees its connection cut while it still sends would never read why.
    request.resume();
    const { status, body } = refusalOf(request);
    const text = JSON.stringify(body);
    response.writeHead(status, {
      ...challenge(status),
      "content-type": "application/json",
      "content-length": Buffer.byteLength(text),
    });
    response.end(text);
  };
}

function challenge(status: number): Record<string, string> {
  return status === 401 ? { "www-authenticate": 'Bearer realm="bottle"' } : {};
}

function refuseTunnel({ status, body }: DoorRefusal, socket: Duplex): void {
  const text = JSON.stringify(body);
  socket.on("error", () => socket.destroy());
  // Without a reader an ended tunnel would keep its socket, so what still arrives is dropped until the client closes or time is up.
  socket.resume();
  socket.end(
    `HTTP/1.1 ${status} ${REASONS[status]}\r\ncontent-type: application/json\r\n` +
      `content-length: ${Buffer.byteLength(text)}\r\nconnection: close\r\n\r\n${text}`,
    () => socket.destroy(),
  );
}
