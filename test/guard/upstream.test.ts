import { once } from "node:events";
import { createServer as createHttpServer, type IncomingMessage, type RequestListener, type Server } from "node:http";
import { createServer as createHttpsServer } from "node:https";
import { createServer as createTcpServer, type AddressInfo, type Server as TcpServer } from "node:net";
import { Readable } from "node:stream";
import type { TLSSocket } from "node:tls";
import type { Dispatcher } from "undici";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { createDialer } from "../../backends/guard/egress/dial.ts";
import { createResolver } from "../../backends/guard/egress/resolve.ts";
import { createUpstreams, type UpstreamRequest, type Upstreams } from "../../backends/guard/egress/upstream.ts";
import { parseAuthority, type Destination } from "../../controller/policy/destination.ts";
import { compilePolicy, type CompiledRule } from "../../controller/policy/matcher.ts";
import { startDnsDouble, type DnsDouble } from "../helpers/dns-double.ts";
import { createTestAuthority, type TestAuthority } from "../helpers/test-certificates.ts";

const LOOPBACK = ["127.0.0.0/8", "::1/128"];
const WAIT_MS_MAX = 10_000;

let dns: DnsDouble;
let authority: TestAuthority;
let upstreams: Upstreams;
const servers: (Server | TcpServer)[] = [];

beforeAll(async () => {
  authority = await createTestAuthority();
  dns = await startDnsDouble({
    records: { "a.test": ["127.0.0.1"], "b.test": ["127.0.0.1"], "public.test": ["10.0.0.1"] },
  });
});

afterAll(() => dns.close());

beforeEach(() => {
  upstreams = makeUpstreams();
});

afterEach(async () => {
  await upstreams.close();
  for (const server of servers.splice(0)) {
    if ("closeAllConnections" in server) server.closeAllConnections();
    server.close();
  }
});

describe("upstreams over TLS", () => {
  it("send a request with the server name and the Host of the destination, and its body as it comes", async () => {
    const seen: { name: unknown; host?: string; body: string; alpn: unknown }[] = [];
    const port = await startTls({ hosts: ["a.test"] }, (request, response) => {
      const { servername, alpnProtocol } = request.socket as TLSSocket;
      void bodyOf(request).then((body) => {
        seen.push({ name: servername, host: request.headers.host, body, alpn: alpnProtocol });
        response.writeHead(201, { "x-answer": "yes" }).end("created");
      });
    });
    const body = Readable.from([Buffer.from("one "), Buffer.from("two")]);
    const answer = await ask({ ...to(`a.test:${port}`), method: "POST", body });
    expect(answer).toMatchObject({ status: 201, text: "created" });
    expect(seen).toEqual([{ name: "a.test", host: `a.test:${port}`, body: "one two", alpn: "http/1.1" }]);
  });

  it("know an address by its certificate, and send it no server name", async () => {
    const names: unknown[] = [];
    const port = await startTls({ hosts: ["127.0.0.1"] }, (request, response) => {
      names.push((request.socket as TLSSocket).servername);
      response.end("ok");
    });
    expect((await ask(to(`127.0.0.1:${port}`))).text).toBe("ok");
    expect(names).toEqual([false]);
  });

  it.each([
    ["for another host", { hosts: ["b.test"] }],
    ["that has expired", { hosts: ["a.test"], expired: true }],
    ["that it signed itself", { hosts: ["a.test"], selfSigned: true }],
    ["for an address instead of its name", { hosts: ["127.0.0.1"] }],
  ])("send nothing to a host with a certificate %s", async (_, certificate) => {
    let requests = 0;
    const port = await startTls(certificate, (_request, response) => {
      requests += 1;
      response.end();
    });
    const error = await failureOf(ask({ ...to(`a.test:${port}`), headers: ["authorization", "Bearer canary"] }));
    expect(error).toMatchObject({
      rule: "upstream-failed",
      message: expect.stringContaining("certificate is not valid"),
    });
    expect(error.message).not.toContain("canary");
    expect(requests).toBe(0);
    await expect(upstreams.connectTls(destination(`a.test:${port}`), rule())).rejects.toMatchObject({
      rule: "upstream-failed",
    });
  });

  it("send nothing to a host whose authority they were not told of", async () => {
    const strangers = makeUpstreams([]);
    const port = await startTls({ hosts: ["a.test"] }, (_request, response) => void response.end());
    expect(await failureOf(ask(to(`a.test:${port}`), strangers))).toMatchObject({ rule: "upstream-failed" });
    await strangers.close();
  });

  it("send nothing to a host that speaks only old TLS", async () => {
    const { key, cert } = await authority.issue({ hosts: ["a.test"] });
    const server = createHttpsServer(
      { key, cert, maxVersion: "TLSv1.1", minVersion: "TLSv1", ciphers: "DEFAULT@SECLEVEL=0" },
      (_, response) => void response.end(),
    );
    const port = await listen(server);
    expect(await failureOf(ask(to(`a.test:${port}`)))).toMatchObject({ rule: "upstream-failed" });
  });

  it("hand out a verified connection for other bytes", async () => {
    const port = await startTls({ hosts: ["a.test"] }, (_request, response) => void response.end("over"));
    const socket = await upstreams.connectTls(destination(`a.test:${port}`), rule());
    expect(socket.authorized).toBe(true);
    socket.write("GET / HTTP/1.1\r\nhost: a.test\r\nconnection: close\r\n\r\n");
    expect(await bodyOf(socket)).toContain("over");
  });
});

describe("upstreams", () => {
  it("tell by which rule an address was refused, and why", async () => {
    const error = await failureOf(ask(to("public.test:443")));
    expect(error).toMatchObject({ rule: "address-refused", message: expect.stringContaining("10.0.0.1") });
  });

  it("tell that a name has no address, and that nobody answers there", async () => {
    expect(await failureOf(ask(to("no-such.test:443")))).toMatchObject({ rule: "resolve-failed" });
    const port = await listen(createTcpServer());
    await new Promise((resolve) => void servers.pop()?.close(resolve));
    const error = await failureOf(ask({ ...to(`a.test:${port}`), protocol: "HTTP" }));
    expect(error).toMatchObject({
      rule: "upstream-failed",
      message: `a.test:${port}: no connection could be made (ECONNREFUSED)`,
    });
  });

  it("keep a connection for the next request by the same rule, and tell its address", async () => {
    const sources = new Set<number | undefined>();
    const port = await startPlain((request, response) => {
      sources.add(request.socket.remotePort);
      response.end("ok");
    });
    const target = { ...to(`a.test:${port}`), protocol: "HTTP" as const };
    await ask(target);
    await ask(target);
    expect(sources.size).toBe(1);
    expect(upstreams.address(target)).toBe("127.0.0.1");
    await ask({ ...target, rule: rule({ name: "other" }) });
    expect(sources.size).toBe(2);
    await ask({ ...target, rule: rule({ cidrs: ["127.0.0.1/32"] }) });
    expect(sources.size).toBe(3);
  });

  it("pass on an answer piece by piece, and no faster than it is read", async () => {
    const total = 64 * 1024 * 1024;
    let sent = 0;
    const port = await startPlain((_request, response) => {
      const piece = Buffer.alloc(64 * 1024, "x");
      const more = (): void => {
        while (sent < total) {
          sent += piece.length;
          if (!response.write(piece)) return void response.once("drain", more);
        }
        response.end();
      };
      more();
    });
    let received = 0;
    let controller: Dispatcher.DispatchController | undefined;
    const ended = new Promise<void>((resolve, reject) => {
      upstreams.dispatch(
        { ...to(`a.test:${port}`), protocol: "HTTP" },
        {
          onRequestStart: (given) => void (controller = given),
          onResponseStart() {},
          onResponseData(given, chunk) {
            received += chunk.length;
            given.pause();
          },
          onResponseEnd: () => resolve(),
          onResponseError: (_given, error) => reject(error),
        },
      );
    });
    await until(() => received > 0);
    // While it is paused the server fills the buffers between them and then waits.
    await until(async () => {
      const before = sent;
      await new Promise((resolve) => setTimeout(resolve, 50));
      return sent === before;
    });
    expect(sent).toBeLessThan(total / 2);
    const flow = setInterval(() => controller?.resume(), 0);
    await ended;
    clearInterval(flow);
    expect(received).toBe(total);
  });

  it("end what the host does when the request is broken off", async () => {
    let closed = false;
    const port = await startPlain((_request, response) => {
      response.writeHead(200);
      response.write("first");
      response.on("close", () => (closed = true));
    });
    await new Promise<void>((resolve) => {
      upstreams.dispatch(
        { ...to(`a.test:${port}`), protocol: "HTTP" },
        {
          onRequestStart() {},
          onResponseStart() {},
          onResponseData: (given) => given.abort(new Error("the agent went away")),
          onResponseEnd() {},
          onResponseError: () => resolve(),
        },
      );
    });
    await until(() => closed);
  });

  it("let requests of a rule that is no more end, and make a new connection for what comes next", async () => {
    const waiting: (() => void)[] = [];
    const sources = new Set<number | undefined>();
    const port = await startPlain((request, response) => {
      sources.add(request.socket.remotePort);
      waiting.push(() => response.end("done"));
    });
    const target = { ...to(`a.test:${port}`), protocol: "HTTP" as const };
    const running = ask(target);
    await until(() => waiting.length === 1);
    upstreams.retain([rule({ name: "another" })]);
    waiting.shift()?.();
    expect((await running).text).toBe("done");
    const next = ask(target);
    await until(() => waiting.length === 1);
    upstreams.retain([rule()]);
    waiting.shift()?.();
    await next;
    expect(sources.size).toBe(2);
    const kept = ask(target);
    await until(() => waiting.length === 1);
    waiting.shift()?.();
    await kept;
    expect(sources.size).toBe(2);
  });

  it("break off the requests of a destination that is closed, and of no other", async () => {
    const waiting: (() => void)[] = [];
    const port = await startPlain((_request, response) => void waiting.push(() => response.end("done")));
    const [a, b] = [`a.test:${port}`, `b.test:${port}`].map((text) => ask({ ...to(text), protocol: "HTTP" }));
    const broken = failureOf(a);
    await until(() => waiting.length === 2);
    upstreams.closeWhere(({ destination: { host } }) => host === "a.test");
    expect(await broken).toMatchObject({ rule: "upstream-failed" });
    for (const end of waiting) end();
    expect((await b)?.text).toBe("done");
  });

  it("hand over the connection of a protocol that was changed to", async () => {
    const server = createHttpServer();
    server.on("upgrade", (_request, socket) => {
      socket.write("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n");
      socket.on("data", (chunk) => socket.end(`echo ${chunk}`));
    });
    const port = await listen(server);
    const text = await new Promise<string>((resolve, reject) => {
      upstreams.dispatch(
        { ...to(`a.test:${port}`), protocol: "HTTP", upgrade: "websocket" },
        {
          onRequestStart() {},
          onRequestUpgrade(_controller, status, _headers, socket) {
            expect(status).toBe(101);
            socket.write("frame");
            bodyOf(socket).then(resolve, reject);
          },
          onResponseError: (_controller, error) => reject(error),
        },
      );
    });
    expect(text).toBe("echo frame");
  });

  it("hand out a connection for bytes of any kind", async () => {
    const port = await listen(createTcpServer((socket) => socket.end("any bytes")));
    const socket = await upstreams.connectTcp(destination(`a.test:${port}`), rule());
    expect(await bodyOf(socket)).toBe("any bytes");
  });
});

function makeUpstreams(ca: readonly string[] = [authority.certificate]): Upstreams {
  const resolver = createResolver({ dns: [dns.address] });
  return createUpstreams({ dialer: createDialer({ resolver, hostAddresses: [] }), ca });
}

function to(text: string): UpstreamRequest {
  return {
    destination: destination(text),
    protocol: "HTTPS",
    rule: rule(),
    method: "GET",
    path: "/",
    headers: [],
    body: null,
  };
}

interface Answer {
  status: number;
  text: string;
}

function ask(request: UpstreamRequest, by: Upstreams = upstreams): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const answer: Answer = { status: 0, text: "" };
    by.dispatch(request, {
      onRequestStart() {},
      onResponseStart: (_controller, status) => void (answer.status = status),
      onResponseData: (_controller, chunk) => void (answer.text += chunk.toString()),
      // undici waits for one turn of the event loop before it uses a connection again, so that surplus bytes of an answer are seen.
      onResponseEnd: () => void setImmediate(() => setImmediate(() => setImmediate(resolve, answer))),
      onResponseError: (_controller, error) => reject(error),
    });
  });
}

async function failureOf(answer: Promise<unknown> | undefined): Promise<Error> {
  try {
    await answer;
  } catch (error) {
    if (error instanceof Error) return error;
  }
  throw new Error("it did not fail");
}

async function startTls(
  certificate: Parameters<TestAuthority["issue"]>[0],
  listener: RequestListener,
): Promise<number> {
  const { key, cert } = await authority.issue(certificate);
  return listen(createHttpsServer({ key, cert }, listener));
}

function startPlain(listener: RequestListener): Promise<number> {
  return listen(createHttpServer(listener));
}

async function listen(server: Server | TcpServer): Promise<number> {
  servers.push(server);
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return (server.address() as AddressInfo).port;
}

async function bodyOf(stream: IncomingMessage | Readable | AsyncIterable<Buffer>): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of stream) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks).toString();
}

async function until(holds: () => boolean | Promise<boolean>): Promise<void> {
  const deadline = Date.now() + WAIT_MS_MAX;
  while (!(await holds())) {
    if (Date.now() > deadline) throw new Error("it did not come to pass in time");
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

function rule(part: { name?: string; cidrs?: readonly string[] } = {}): CompiledRule {
  const compiled = compilePolicy({
    rules: [
      {
        name: part.name ?? "any",
        host: "a.test",
        ports: [443],
        protocol: "HTTPS",
        action: "Allow",
        cidrs: part.cidrs ?? LOOPBACK,
        webSocket: false,
        uninspected: "Refuse",
        inject: [],
      },
    ],
    dlp: "Block",
    audit: "Full",
    budget: {},
  });
  const [first] = compiled.ok ? compiled.policy.rules : [];
  if (first === undefined) throw new Error("the rule of the test does not compile");
  return first;
}

function destination(text: string): Destination {
  const parsed = parseAuthority(text);
  if (!parsed.ok) throw new Error(parsed.reason);
  return parsed.destination;
}
