import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { request as httpRequest, type IncomingHttpHeaders, type IncomingMessage } from "node:http";
import { connect as connectHttp2, type ClientHttp2Session, type IncomingHttpHeaders as Http2Headers } from "node:http2";
import { connect, type AddressInfo, type Socket } from "node:net";
import { connect as connectTls, type TLSSocket } from "node:tls";
import { createAuthority } from "../../../backends/guard/authority.ts";
import { createBudget } from "../../../backends/guard/egress/budget.ts";
import { createDialer } from "../../../backends/guard/egress/dial.ts";
import { createResolver } from "../../../backends/guard/egress/resolve.ts";
import { createEgress } from "../../../backends/guard/egress/server.ts";
import { createUpstreams } from "../../../backends/guard/egress/upstream.ts";
import { createSettingsHolder } from "../../../backends/guard/settings.ts";
import type { AuditLine, GuardConfig, GuardHealth, GuardPolicy, GuardRule } from "../../../controller/ports/guard.ts";
import { startDnsDouble, type DnsDouble, type DnsRecords } from "../../helpers/dns-double.ts";
import {
  createTestAuthority,
  type TestAuthority,
  type TestCertificateRequest,
} from "../../helpers/test-certificates.ts";
import { startUpstream, type Upstream, type UpstreamHandler } from "../../helpers/upstreams.ts";

export const TOKEN = "token-of-this-test-bottle";
const WAIT_MS_MAX = 15_000;

export interface RigOptions {
  /** Names that lead to the upstream on 127.0.0.1, and are in its certificate. */
  hosts?: readonly string[];
  records?: DnsRecords;
  handler?: UpstreamHandler;
  certificate?: Partial<TestCertificateRequest>;
  /** The upstream speaks plain HTTP. */
  plain?: boolean;
}

export interface RigRequest {
  host?: string;
  port?: number;
  path?: string;
  method?: string;
  headers?: Record<string, string | string[]>;
  body?: Buffer | string | readonly Buffer[];
  version?: "h1" | "h2";
  token?: string;
}

export interface RigAnswer {
  status: number;
  headers: IncomingHttpHeaders | Http2Headers;
  body: Buffer;
  text: string;
  trailers: Record<string, unknown>;
  /** Of a refusal. */
  rule: string | undefined;
}

export interface Rig {
  upstream: Upstream;
  dns: DnsDouble;
  /** Who signs for upstreams. */
  testAuthority: TestAuthority;
  /** Who signs for the guard. */
  guardCa: string;
  port: number;
  lines: AuditLine[];
  health: { now: GuardHealth };
  rule(part: Partial<GuardRule>): GuardRule;
  configure(part?: Partial<Omit<GuardConfig, "policy">> & { policy?: Partial<GuardPolicy> }): void;
  /** A request through a tunnel of its own. */
  request(request?: RigRequest): Promise<RigAnswer>;
  /** What the door answers to these bytes, until it closes or falls silent behind a whole head. */
  raw(bytes: string | Buffer): Promise<string>;
  /** A tunnel that was granted. */
  tunnel(authority?: string, token?: string): Promise<Socket>;
  tls(options?: { host?: string; port?: number; servername?: string; alpn?: string[] }): Promise<TLSSocket>;
  session(options?: { host?: string; port?: number }): Promise<ClientHttp2Session>;
  line(matches?: (line: AuditLine) => boolean): Promise<AuditLine>;
  lineCount(count: number): Promise<AuditLine[]>;
  [Symbol.asyncDispose](): Promise<void>;
}

/** The egress door with its real parts, a name server and one upstream, all on loopback. */
export async function startRig(options: RigOptions = {}): Promise<Rig> {
  const hosts = options.hosts ?? ["allowed.test"];
  const testAuthority = await createTestAuthority();
  const certificate = await testAuthority.issue({ hosts, ...options.certificate });
  const upstream = await startUpstream({
    ...(options.plain === true ? {} : { tls: certificate }),
    ...(options.handler === undefined ? {} : { handler: options.handler }),
  });
  const records = Object.fromEntries(hosts.map((host) => [host, ["127.0.0.1"]]));
  const dns = await startDnsDouble({ records: { ...records, ...options.records } });
  const settings = createSettingsHolder();
  const lines: AuditLine[] = [];
  const health: { now: GuardHealth } = { now: { ok: true } };
  const resolver = createResolver({ dns: [dns.address] });
  const dialer = createDialer({ resolver, hostAddresses: [] });
  const upstreams = createUpstreams({ dialer, ca: [testAuthority.certificate] });
  const authority = await createAuthority({ now: () => Date.now() });
  const server = createEgress({
    settings,
    audit: { write: (line) => lines.push(line) > 0, health: () => health.now },
    authority,
    upstreams,
    budget: createBudget(),
    now: () => Date.now(),
    randomId: () => randomUUID(),
  });
  const sockets = new Set<Socket>();
  server.on("connection", (socket) => {
    sockets.add(socket);
    socket.once("close", () => sockets.delete(socket));
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  const rig = { upstream, dns, testAuthority, guardCa: authority.certificate, port, lines, health };
  return {
    ...rig,
    rule: (part) => ruleFor(upstream, part),
    configure: (part = {}) => settings.apply(configOf(upstream, part)),
    ...clientOf(rig),
    ...auditOf(lines),
    async [Symbol.asyncDispose]() {
      const closed = once(server, "close");
      server.close();
      for (const socket of sockets) socket.destroy();
      await closed;
      await upstreams.close();
      await upstream[Symbol.asyncDispose]();
      await dns.close();
    },
  };
}

function ruleFor(upstream: Upstream, part: Partial<GuardRule>): GuardRule {
  return {
    name: "allowed",
    host: "allowed.test",
    ports: [upstream.port],
    protocol: "HTTPS",
    action: "Allow",
    cidrs: ["127.0.0.0/8"],
    webSocket: false,
    uninspected: "Refuse",
    inject: [],
    ...part,
  };
}

function configOf(
  upstream: Upstream,
  part: Partial<Omit<GuardConfig, "policy">> & { policy?: Partial<GuardPolicy> },
): GuardConfig {
  const policy: GuardPolicy = {
    rules: [ruleFor(upstream, {})],
    dlp: "Block",
    audit: "Full",
    budget: {},
    ...part.policy,
  };
  const secrets = part.secrets ?? {};
  return {
    digest: randomUUID(),
    token: TOKEN,
    placeholders: {},
    secretRefs: Object.keys(secrets),
    ...part,
    secrets,
    policy,
  };
}

type Base = Pick<Rig, "upstream" | "port" | "guardCa">;

function clientOf(rig: Base): Pick<Rig, "request" | "raw" | "tunnel" | "tls" | "session"> {
  const tunnel = (authority = `allowed.test:${rig.upstream.port}`, token = TOKEN): Promise<Socket> =>
    openTunnel(rig.port, authority, token);
  const tls: Rig["tls"] = async ({ host = "allowed.test", port = rig.upstream.port, servername = host, alpn } = {}) => {
    const name = host.includes(":") ? `[${host}]` : host;
    const socket = await tunnel(`${name}:${port}`);
    const secure = connectTls({
      socket,
      ca: rig.guardCa,
      ...(/^[0-9.]+$|:/.test(servername) ? { host: servername } : { servername }),
      ...(alpn === undefined ? {} : { ALPNProtocols: alpn }),
    });
    await once(secure, "secureConnect");
    return secure;
  };
  const session: Rig["session"] = async (options = {}) => {
    const secure = await tls({ ...options, alpn: ["h2"] });
    const { host = "allowed.test", port = rig.upstream.port } = options;
    const made = connectHttp2(`https://${host}:${port}`, { createConnection: () => secure });
    return made.on("error", () => {});
  };
  return {
    tunnel,
    tls,
    session,
    raw: (bytes) => exchangeBytes(rig.port, bytes),
    async request(request = {}) {
      const { host = "allowed.test", port = rig.upstream.port } = request;
      if (request.version === "h2") return requestHttp2(await session({ host, port }), request);
      return requestHttp1(await tls({ host, port }), { host, port }, request);
    },
  };
}

export function proxyHeader(token = TOKEN): string {
  return `Basic ${Buffer.from(`bottle:${token}`).toString("base64")}`;
}

async function openTunnel(port: number, authority: string, token: string): Promise<Socket> {
  const socket = connect({ port, host: "127.0.0.1" });
  socket.on("error", () => socket.destroy());
  socket.write(
    `CONNECT ${authority} HTTP/1.1\r\nhost: ${authority}\r\nproxy-authorization: ${proxyHeader(token)}\r\n\r\n`,
  );
  let head = "";
  while (!head.includes("\r\n\r\n")) {
    const [chunk] = await Promise.race([once(socket, "data"), once(socket, "close").then(() => [undefined])]);
    if (chunk === undefined) throw new Error(`the tunnel was not granted: ${JSON.stringify(head)}`);
    head += String(chunk);
  }
  if (!head.startsWith("HTTP/1.1 200")) throw new Error(`the tunnel was not granted: ${head}`);
  socket.pause();
  return socket;
}

async function requestHttp1(
  socket: TLSSocket,
  { host, port }: { host: string; port: number },
  request: RigRequest,
): Promise<RigAnswer> {
  const sent = httpRequest({
    createConnection: () => socket,
    host,
    port,
    defaultPort: 443,
    method: request.method ?? "GET",
    path: request.path ?? "/",
    headers: request.headers ?? {},
  });
  writeBody(sent, request.body);
  const [response] = (await once(sent, "response")) as [IncomingMessage];
  const body = await collect(response);
  socket.destroy();
  return answer(response.statusCode ?? 0, { headers: response.headers, body, trailers: response.trailers });
}

async function requestHttp2(session: ClientHttp2Session, request: RigRequest): Promise<RigAnswer> {
  const headers = { ":method": request.method ?? "GET", ":path": request.path ?? "/", ...request.headers };
  const stream = session.request(headers, { endStream: request.body === undefined });
  let trailers: Record<string, unknown> = {};
  stream.on("trailers", (sent) => (trailers = sent));
  writeBody(stream, request.body);
  const [head] = (await once(stream, "response")) as [Http2Headers];
  const body = await collect(stream);
  session.destroy();
  return answer(Number(head[":status"]), { headers: head, body, trailers });
}

function writeBody(to: NodeJS.WritableStream, body: RigRequest["body"]): void {
  to.on("error", () => {});
  if (Array.isArray(body)) for (const chunk of body) to.write(chunk);
  else if (typeof body === "string" || Buffer.isBuffer(body)) to.write(body);
  to.end();
}

async function collect(from: AsyncIterable<Buffer>): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of from) chunks.push(chunk);
  return Buffer.concat(chunks);
}

function answer(
  status: number,
  { headers, body, trailers }: Pick<RigAnswer, "headers" | "body" | "trailers">,
): RigAnswer {
  const text = body.toString();
  const isRefusal = status >= 400 && text.startsWith('{"rule"');
  return { status, headers, body, text, trailers, rule: isRefusal ? String(JSON.parse(text).rule) : undefined };
}

function exchangeBytes(port: number, bytes: string | Buffer): Promise<string> {
  return new Promise((resolve) => {
    const socket = connect({ port, host: "127.0.0.1" });
    let text = "";
    socket.on("data", (chunk) => (text += chunk.toString("latin1")));
    socket.on("error", () => socket.destroy());
    socket.setTimeout(2_000, () => socket.destroy());
    socket.once("close", () => resolve(text));
    socket.write(bytes);
  });
}

function auditOf(lines: AuditLine[]): Pick<Rig, "line" | "lineCount"> {
  const until = async <T>(look: () => T | undefined): Promise<T> => {
    const deadline = performance.now() + WAIT_MS_MAX;
    while (performance.now() < deadline) {
      const found = look();
      if (found !== undefined) return found;
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    throw new Error(`not in the audit:\n${lines.map((line) => JSON.stringify(line)).join("\n")}`);
  };
  return {
    line: (matches = () => true) => until(() => lines.find(matches)),
    lineCount: (count) => until(() => (lines.length >= count ? lines : undefined)),
  };
}
