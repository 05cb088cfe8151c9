import { once } from "node:events";
import {
  createServer as createHttpServer,
  type IncomingHttpHeaders,
  type IncomingMessage,
  type ServerResponse,
} from "node:http";
import { createServer as createHttpsServer } from "node:https";
import type { AddressInfo, Socket } from "node:net";
import { WebSocketServer } from "ws";
import type { TestCertificate } from "./test-certificates.ts";
import { answerRoute } from "./upstream-routes.ts";

/** Of a body so much is kept to be looked at; all of it is counted. */
const BODY_BYTES_KEPT_MAX = 1024 * 1024;

/** A request that reached the upstream: the proof that something left, or did not. */
export interface SeenRequest {
  method: string;
  /** With its query. */
  url: string;
  headers: IncomingHttpHeaders;
  /** Names and values as they came, in order. */
  rawHeaders: readonly string[];
  /** The server name of the TLS connection. */
  serverName?: string;
  /** The first BODY_BYTES_KEPT_MAX bytes that came so far. */
  body(): Buffer;
  bytes: number;
  state: "open" | "complete" | "aborted";
}

/** Answers a request and says so; `false` leaves it to the routes that every upstream has. */
export type UpstreamHandler = (request: IncomingMessage, response: ServerResponse) => boolean;

/** A server somewhere outside, on loopback. */
export interface Upstream {
  port: number;
  /** Every request, from its headers on. */
  seen: SeenRequest[];
  /** Connections so far, those that never sent a request included. */
  connections(): number;
  /** Texts that came through WebSockets. */
  messages: string[];
  [Symbol.asyncDispose](): Promise<void>;
}

/**
 * An HTTP server that records what reaches it, over TLS with a certificate. It answers the routes of `answerRoute`, echoes WebSocket
 * messages at /ws, and answers `ok` to everything else.
 */
export async function startUpstream(
  options: { tls?: TestCertificate; handler?: UpstreamHandler } = {},
): Promise<Upstream> {
  const seen: SeenRequest[] = [];
  const messages: string[] = [];
  const sockets = new Set<Socket>();
  let connections = 0;
  const listener = (request: IncomingMessage, response: ServerResponse): void => {
    seen.push(recorded(request));
    if (options.handler?.(request, response) === true) return;
    answerRoute(request, response);
  };
  const server = options.tls === undefined ? createHttpServer(listener) : createHttpsServer(options.tls, listener);
  server.keepAliveTimeout = 60_000;
  server.on("connection", (socket: Socket) => {
    connections += 1;
    sockets.add(socket);
    socket.on("error", () => socket.destroy()).on("close", () => sockets.delete(socket));
  });
  const webSockets = new WebSocketServer({ server, path: "/ws" });
  webSockets.on("connection", (socket, request) => {
    seen.push(recorded(request));
    socket.on("error", () => socket.terminate());
    socket.on("message", (data, isBinary) => {
      if (!isBinary) messages.push(String(data));
      socket.send(data, { binary: isBinary });
    });
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return {
    port: (server.address() as AddressInfo).port,
    seen,
    connections: () => connections,
    messages,
    async [Symbol.asyncDispose]() {
      const closed = once(server, "close");
      server.close();
      for (const socket of sockets) socket.destroy();
      await closed;
    },
  };
}

function recorded(request: IncomingMessage): SeenRequest {
  const chunks: Buffer[] = [];
  const serverName = "servername" in request.socket ? request.socket.servername : undefined;
  const one: SeenRequest = {
    method: request.method ?? "",
    url: request.url ?? "",
    headers: request.headers,
    rawHeaders: request.rawHeaders,
    ...(typeof serverName === "string" ? { serverName } : {}),
    body: () => Buffer.concat(chunks),
    bytes: 0,
    state: "open",
  };
  request.on("data", (chunk: Buffer) => {
    if (one.bytes < BODY_BYTES_KEPT_MAX) chunks.push(chunk);
    one.bytes += chunk.length;
  });
  request.on("end", () => (one.state = "complete"));
  request.on("close", () => {
    if (one.state === "open") one.state = "aborted";
  });
  return one;
}
