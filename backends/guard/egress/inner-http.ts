import {
  createServer as createHttpServer,
  type Server as HttpServer,
  type IncomingMessage,
  type ServerResponse,
} from "node:http";
import {
  createServer as createHttp2Server,
  type Http2Server,
  type Http2ServerRequest,
  type Http2ServerResponse,
  type ServerHttp2Session,
} from "node:http2";
import type { Duplex } from "node:stream";
import { refuseBroken } from "./broken.ts";
import { HEAD_BYTES_MAX, STREAMS_PER_SESSION_MAX, type RequestContext } from "./egress.ts";
import { serveRequest } from "./request.ts";
import { serveUpgrade } from "./websocket.ts";

/** A TLS connection as its requests see it. */
export interface Inside extends RequestContext {
  requests: number;
  running: number;
  quietSinceMs: number;
}

/** Clients open connections ahead of their first request. */
const FIRST_HEADERS_MS_MAX = 60_000;

function counted(inside: Inside, ended: { once(event: "close", listener: () => void): unknown }): void {
  inside.requests += 1;
  inside.running += 1;
  ended.once("close", () => {
    inside.running -= 1;
    inside.quietSinceMs = inside.egress.now();
  });
}

/** Serves HTTP/1.1 on connections that are handed to it. It never listens. */
export function createInnerHttp1(insideOf: (socket: object) => Inside | undefined): HttpServer {
  const server = createHttpServer({
    maxHeaderSize: HEAD_BYTES_MAX,
    headersTimeout: FIRST_HEADERS_MS_MAX,
    requestTimeout: 0,
    connectionsCheckingInterval: FIRST_HEADERS_MS_MAX / 6,
    keepAliveTimeout: 0,
    requireHostHeader: false,
    noDelay: false,
  });
  server.timeout = 0;
  const last = new WeakMap<object, IncomingMessage>();
  const serve = (request: IncomingMessage, response: ServerResponse): void => {
    const inside = insideOf(request.socket);
    if (inside === undefined) return void request.socket.destroy();
    last.set(request.socket, request);
    counted(inside, response);
    serveRequest(inside, request, response);
  };
  server.on("request", serve);
  server.on("checkExpectation", serve);
  const upgrade = (request: IncomingMessage, socket: Duplex, head: Buffer): void => {
    const inside = insideOf(socket);
    if (inside === undefined) return void socket.destroy();
    counted(inside, socket);
    serveUpgrade(inside, { request, socket, head });
  };
  server.on("upgrade", upgrade);
  // A CONNECT in a tunnel: refused as a request of its own.
  server.on("connect", upgrade);
  server.on("clientError", (error, socket) => {
    const inside = insideOf(socket);
    // Without any request the tunnel itself has the line.
    const isUnused = inside?.requests === 0 && "code" in error && error.code === "ERR_HTTP_REQUEST_TIMEOUT";
    if (inside === undefined || isUnused) return void socket.destroy();
    if (refuseBroken(inside.egress, { context: inside, error, socket, last: last.get(socket) })) inside.requests += 1;
  });
  // Node looks for connections that send their headers too slowly only on servers that listen.
  server.emit("listening");
  return server;
}

/** The same for HTTP/2. */
export function createInnerHttp2(insideOf: (session: object) => Inside | undefined): Http2Server {
  const server = createHttp2Server({
    settings: { maxConcurrentStreams: STREAMS_PER_SESSION_MAX, maxHeaderListSize: HEAD_BYTES_MAX },
  });
  const serve = (request: Http2ServerRequest, response: Http2ServerResponse): void => {
    const inside = insideOf(sessionOf(request));
    if (inside === undefined) return void request.stream.destroy();
    counted(inside, response);
    serveRequest(inside, request, response);
  };
  server.on("request", serve);
  server.on("connect", serve);
  server.on("checkExpectation", serve);
  server.on("sessionError", (_error, session: ServerHttp2Session) => session.destroy());
  return server;
}

function sessionOf(request: Http2ServerRequest): object {
  return request.stream.session ?? request.stream;
}
