import { Agent, request, type IncomingHttpHeaders, type IncomingMessage } from "node:http";
import { connect as connectTcp, type Socket } from "node:net";
import { connect as connectTls, type TLSSocket } from "node:tls";

const TUNNEL_MS_MAX = 15_000;

export interface TunnelOptions {
  /** The proxy's port on loopback or its Unix socket. */
  proxy: { port: number } | { path: string };
  /** `user:password` for the proxy. */
  credentials?: string;
  /** `host:port` as it stands in CONNECT. */
  authority: string;
  /** Absent: the certificate is not looked at. */
  ca?: string;
  /** Absent: the host of `authority`. */
  serverName?: string;
}

/** What a request over a tunnel was answered; `body` is the whole of it. */
export interface Answer {
  status: number;
  headers: IncomingHttpHeaders;
  body: string;
}

/** A tunnel through a proxy, with TLS inside, on which one request after the other can be sent. */
export interface Tunnel {
  socket: TLSSocket;
  /** The headers of the answer; its body is to be read by the caller. */
  send(options: {
    method?: string;
    path: string;
    headers?: Record<string, string>;
    body?: Buffer | string;
  }): Promise<IncomingMessage>;
  ask(options: {
    method?: string;
    path: string;
    headers?: Record<string, string>;
    body?: Buffer | string;
  }): Promise<Answer>;
  close(): void;
}

/** Sends CONNECT and starts TLS. A proxy that refuses CONNECT, or a certificate that is not of `ca`, is an error. */
export async function openTunnel(options: TunnelOptions): Promise<Tunnel> {
  const socket = await startTls(await connectThrough(options), options);
  const agent = new Agent({ keepAlive: true, maxSockets: 1 });
  agent.createConnection = () => socket;
  const tunnel: Tunnel = {
    socket,
    send: ({ method = "GET", path, headers = {}, body }) =>
      new Promise((resolve, reject) => {
        const sent = request({ agent, method, path, headers: { host: options.authority, ...headers } });
        sent.on("response", resolve).on("error", reject).end(body);
      }),
    async ask(sent) {
      const response = await tunnel.send(sent);
      const chunks: Buffer[] = [];
      for await (const chunk of response as AsyncIterable<Buffer>) chunks.push(chunk);
      return { status: response.statusCode ?? 0, headers: response.headers, body: Buffer.concat(chunks).toString() };
    },
    close() {
      agent.destroy();
      socket.destroy();
    },
  };
  return tunnel;
}

function connectThrough({ proxy, credentials, authority }: TunnelOptions): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket =
      "path" in proxy ? connectTcp({ path: proxy.path }) : connectTcp({ port: proxy.port, host: "127.0.0.1" });
    const fail = (why: string): void => {
      socket.destroy();
      reject(new Error(`no tunnel to "${authority}": ${why}`));
    };
    const timeout = setTimeout(() => fail(`no answer within ${TUNNEL_MS_MAX} ms`), TUNNEL_MS_MAX);
    let head = "";
    const read = (chunk: Buffer): void => {
      head += chunk.toString("latin1");
      if (!head.includes("\r\n\r\n")) return;
      clearTimeout(timeout);
      socket.off("data", read).pause();
      if (!/^HTTP\/1\.[01] 200 /.test(head)) return fail(head.slice(0, 300).replaceAll("\r\n", " | "));
      resolve(socket);
    };
    socket.setNoDelay(true);
    socket.on("data", read);
    socket.once("error", (error) => fail(error.message));
    socket.once("close", () => fail("closed"));
    const login =
      credentials === undefined ? "" : `proxy-authorization: Basic ${Buffer.from(credentials).toString("base64")}\r\n`;
    socket.write(`CONNECT ${authority} HTTP/1.1\r\nhost: ${authority}\r\n${login}\r\n`);
  });
}

function startTls(socket: Socket, { authority, ca, serverName }: TunnelOptions): Promise<TLSSocket> {
  const name = serverName ?? authority.slice(0, authority.lastIndexOf(":"));
  const trust = ca === undefined ? { rejectUnauthorized: false } : { ca };
  return new Promise((resolve, reject) => {
    const secured = connectTls({ socket, servername: name, ALPNProtocols: ["http/1.1"], ...trust });
    const timeout = setTimeout(() => secured.destroy(new Error(`no TLS with "${name}" in time`)), TUNNEL_MS_MAX);
    secured.once("secureConnect", () => {
      clearTimeout(timeout);
      secured.setTimeout(0);
      resolve(secured);
    });
    secured.once("error", reject);
    secured.on("error", () => secured.destroy());
    secured.once("close", () => {
      clearTimeout(timeout);
      reject(new Error(`the tunnel to "${name}" was closed`));
    });
  });
}
