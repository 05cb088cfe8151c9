import { lstatSync, unlinkSync } from "node:fs";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { join } from "node:path";
import type { Duplex } from "node:stream";
import { CONNECTIONS_MAX, DOORS, type Door } from "./doors.ts";
import { notEnabled, refusal, refusedTarget } from "./refusal.ts";

const HEADER_BYTES_MAX = 16 * 1024;
const HEADERS_MS_MAX = 10_000;
const REQUEST_MS_MAX = 30_000;
const IDLE_MS_MAX = 60_000;

/** The bottle's guard. It refuses everything: it resolves no name and opens no connection. */
export async function startGuard(options: { sockets: string }): Promise<Server[]> {
  // Set before the first socket exists: a socket made with a wider mode and narrowed later is open in between.
  process.umask(0o177);
  return Promise.all(DOORS.map((door) => listen(door, join(options.sockets, door.socket))));
}

async function listen(door: Door, path: string): Promise<Server> {
  const server = createServer({
    maxHeaderSize: HEADER_BYTES_MAX,
    headersTimeout: HEADERS_MS_MAX,
    requestTimeout: REQUEST_MS_MAX,
    keepAliveTimeout: 5_000,
    connectionsCheckingInterval: 5_000,
  });
  server.maxConnections = CONNECTIONS_MAX;
  server.timeout = IDLE_MS_MAX;
  server.on("request", (request: IncomingMessage, response: ServerResponse) => answer(door, request, response));
  server.on("connect", (request: IncomingMessage, socket: Duplex) => refuseTunnel(door, request, socket));
  server.on("clientError", (_error, socket) => socket.destroy());
  removeStale(path);
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(path, resolve);
  });
  return server;
}

function answer(door: Door, request: IncomingMessage, response: ServerResponse): void {
  // The body is dropped unread; a client that sees its connection cut while it still sends would never read why.
  request.resume();
  const { status, body } = reply(door, request);
  response.writeHead(status, { "content-type": "application/json", "content-length": Buffer.byteLength(body) });
  response.end(body);
}

function refuseTunnel(door: Door, request: IncomingMessage, socket: Duplex): void {
  const { status, body } = reply(door, request);
  const reason = status === 403 ? "Forbidden" : "Not Implemented";
  socket.on("error", () => socket.destroy());
  // Without a reader an ended tunnel would keep its socket, so what still arrives is dropped until the client closes or time is up.
  socket.resume();
  socket.end(
    `HTTP/1.1 ${status} ${reason}\r\ncontent-type: application/json\r\n` +
      `content-length: ${Buffer.byteLength(body)}\r\nconnection: close\r\n\r\n${body}`,
    () => socket.destroy(),
  );
}

function reply(door: Door, request: IncomingMessage): { status: number; body: string } {
  if (door.name !== "egress") return { status: 501, body: JSON.stringify(notEnabled(door.name)) };
  return { status: 403, body: JSON.stringify(refusal(refusedTarget(request))) };
}

/** A guard that was killed leaves its sockets behind, and a path that exists cannot be listened on. */
function removeStale(path: string): void {
  const found = lstatSync(path, { throwIfNoEntry: false });
  if (found === undefined) return;
  if (!found.isSocket()) throw new Error(`cannot listen on "${path}": it exists and is not a socket; remove it`);
  unlinkSync(path);
}
