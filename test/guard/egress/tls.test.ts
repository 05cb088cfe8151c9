import { once } from "node:events";
import { createServer, type AddressInfo, type Server, type Socket } from "node:net";
import { connect as connectTls } from "node:tls";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { proxyHeader, startRig, type Rig } from "./rig.ts";

describe("TLS in a tunnel", () => {
  let rig: Rig;
  beforeAll(async () => {
    rig = await startRig({ hosts: ["allowed.test", "pinned.test"] });
  });
  afterAll(() => rig[Symbol.asyncDispose]());
  beforeEach(() => {
    rig.lines.length = 0;
    rig.upstream.seen.length = 0;
    rig.dns.queries.length = 0;
    rig.configure();
  });

  /** All bytes the tunnel answers until it is closed. */
  const say = async (authority: string, bytes: Buffer | string): Promise<Buffer> => {
    const socket = await rig.tunnel(authority);
    const chunks: Buffer[] = [];
    socket.on("data", (chunk: Buffer) => chunks.push(chunk));
    socket.write(bytes);
    await once(socket, "close");
    return Buffer.concat(chunks);
  };

  for (const kind of ["HTTPS", "TLS"] as const) {
    it(`must begin the tunnel where the rule says ${kind}: other bytes are cut off`, async () => {
      rig.configure({ policy: { rules: [rig.rule({ protocol: kind })] } });
      const authority = `allowed.test:${rig.upstream.port}`;
      const others = [
        "SSH-2.0-OpenSSH_9.2\r\n",
        "GET / HTTP/1.1\r\nhost: allowed.test\r\n\r\n",
        Buffer.from([0, 1, 2, 3]),
      ];

      for (const bytes of others) expect(await say(authority, bytes)).toHaveLength(0);

      const lines = await rig.lineCount(others.length);
      expect(lines.map(({ verdict, rule, kind: of }) => [verdict, rule, of])).toEqual(
        others.map(() => ["Denied", "tls-refused", "tunnel"]),
      );
      expect(rig.dns.queries).toEqual([]);
    });

    it(`must name the server of the tunnel where the rule says ${kind}`, async () => {
      rig.configure({ policy: { rules: [rig.rule({ protocol: kind })] } });

      for (const servername of ["evil.test", ""]) {
        const socket = await rig.tunnel();
        const secure = connectTls({ socket, servername, rejectUnauthorized: false });
        await expect(once(secure, "secureConnect"), servername).rejects.toThrow();
      }

      expect(await rig.lineCount(2)).toMatchObject([{ rule: "tls-refused" }, { rule: "tls-refused" }]);
      expect(rig.dns.queries).toEqual([]);
    });
  }

  it("is refused with an encrypted ClientHello", async () => {
    expect(await say(`allowed.test:${rig.upstream.port}`, helloWithEch("allowed.test"))).toHaveLength(0);
    expect(await rig.line()).toMatchObject({ rule: "tls-refused", reason: expect.stringContaining("ECH") });
  });

  it("is understood when its ClientHello comes in pieces", async () => {
    const socket = await rig.tunnel();
    const write = socket.write.bind(socket);
    const secure = connectTls({ socket: inPieces(socket, write), ca: rig.guardCa, servername: "allowed.test" });
    await once(secure, "secureConnect");

    expect(secure.authorized).toBe(true);
    secure.destroy();
  });

  it("is ended with a certificate for exactly the host of the tunnel", async () => {
    const secure = await rig.tls();

    expect(secure.getPeerCertificate().subjectaltname).toBe("DNS:allowed.test");
    secure.destroy();
  });

  it("needs no server name for an address", async () => {
    rig.configure({ policy: { rules: [rig.rule({ host: "127.0.0.1" })] } });
    const secure = await rig.tls({ host: "127.0.0.1" });

    expect(secure.getPeerCertificate().subjectaltname).toBe("IP Address:127.0.0.1");
    secure.destroy();
  });

  it("leaves one line when the tunnel ends before a request", async () => {
    const socket = await rig.tunnel();
    const secure = connectTls({ socket, servername: "allowed.test" });
    await expect(once(secure, "secureConnect"), "the test does not trust the guard here").rejects.toThrow();
    const unused = await rig.tls();
    unused.destroy();
    (await rig.tunnel()).destroy();

    const lines = await rig.lineCount(3);
    expect(
      lines.every(({ kind, verdict, rule }) => kind === "tunnel" && verdict === "Failed" && rule === "tls-refused"),
    ).toBe(true);
  });

  it("passes unread through a TLS rule, to the certificate of the host itself, and is counted", async () => {
    rig.configure({ policy: { rules: [rig.rule({ protocol: "TLS" })] } });
    const socket = await rig.tunnel();
    const secure = connectTls({ socket, ca: rig.testAuthority.certificate, servername: "allowed.test" });
    secure.write("GET /headers HTTP/1.1\r\nhost: anything\r\nconnection: close\r\n\r\n");
    secure.resume();
    await once(secure, "close");

    expect(rig.upstream.seen).toHaveLength(1);
    const line = await rig.line(({ protocol }) => protocol === "TLS");
    expect(line).toMatchObject({
      kind: "tunnel",
      protocol: "TLS",
      verdict: "Allowed",
      rule: "allowed",
      address: "127.0.0.1",
      status: 200,
    });
    expect(Math.min(line.bytesUp, line.bytesDown)).toBeGreaterThan(100);
  });

  it("is refused at CONNECT where the rule for unread bytes denies or asks", async () => {
    const target = `CONNECT allowed.test:${rig.upstream.port} HTTP/1.1\r\nproxy-authorization: ${proxyHeader()}\r\n\r\n`;

    rig.configure({ policy: { rules: [rig.rule({ protocol: "TLS", action: "Deny" })] } });
    expect(await rig.raw(target)).toMatch(/^HTTP\/1.1 403 .*"rule":"allowed"/s);
    rig.configure({ policy: { rules: [rig.rule({ protocol: "TLS", action: "RequireApproval" })] } });
    expect(await rig.raw(target)).toMatch(/^HTTP\/1.1 403 .*"ticket"/s);

    expect(await rig.lineCount(2)).toMatchObject([
      { verdict: "Denied" },
      { verdict: "ApprovalRequired", ticket: expect.any(String) },
    ]);
  });
});

describe("a TCP tunnel", () => {
  let rig: Rig;
  let echo: Server;
  let port: number;
  beforeAll(async () => {
    rig = await startRig({ hosts: ["allowed.test"] });
    echo = createServer(
      { allowHalfOpen: true },
      (socket) => void socket.pipe(socket).on("error", () => socket.destroy()),
    );
    echo.listen(0, "127.0.0.1");
    await once(echo, "listening");
    port = (echo.address() as AddressInfo).port;
  });
  afterAll(async () => {
    echo.close();
    await rig[Symbol.asyncDispose]();
  });
  beforeEach(() => {
    rig.lines.length = 0;
    rig.configure({ policy: { rules: [rig.rule({ protocol: "TCP", ports: [port] })] } });
  });

  it("carries any bytes where a rule says so, and is counted", async () => {
    const socket = await rig.tunnel(`allowed.test:${port}`);
    socket.end("SSH-2.0-x\r\n");
    socket.resume();
    const [answer] = await once(socket, "data");
    await once(socket, "close");

    expect(String(answer)).toBe("SSH-2.0-x\r\n");
    expect(await rig.line()).toMatchObject({
      kind: "tunnel",
      protocol: "TCP",
      verdict: "Allowed",
      bytesUp: 11,
      bytesDown: 11,
    });
  });

  it("is refused with the reason when it cannot be dialled", async () => {
    rig.configure({
      policy: {
        rules: [
          rig.rule({ protocol: "TCP", ports: [9] }),
          rig.rule({ name: "b", host: "gone.test", protocol: "TCP", ports: [9] }),
        ],
      },
    });

    expect(await rig.raw(connectTo("allowed.test", 9))).toMatch(/^HTTP\/1.1 502 .*"rule":"upstream-failed"/s);
    expect(await rig.raw(connectTo("gone.test", 9))).toMatch(/^HTTP\/1.1 502 .*"rule":"resolve-failed"/s);
    expect(await rig.lineCount(2)).toMatchObject([{ verdict: "Failed" }, { verdict: "Failed" }]);
  });

  it("is cut when the budget is spent", async () => {
    const rules = [rig.rule({ protocol: "TCP", ports: [port] })];
    rig.configure({ policy: { rules, budget: { uploadBytes: 1_000_000 } } });
    const socket = await rig.tunnel(`allowed.test:${port}`);
    socket.resume();
    const block = Buffer.alloc(65_536);
    const closed = once(socket, "close");
    const timer = setInterval(() => socket.writable && socket.write(block), 1);
    await closed;
    clearInterval(timer);

    const line = await rig.line();
    expect(line).toMatchObject({ verdict: "Denied", rule: "budget" });
    expect(line.bytesUp).toBeLessThanOrEqual(1_000_000);
  });
});

function connectTo(host: string, port: number): string {
  return `CONNECT ${host}:${port} HTTP/1.1\r\nproxy-authorization: ${proxyHeader()}\r\n\r\n`;
}

function inPieces(socket: Socket, write: Socket["write"]): Socket {
  socket.write = ((chunk: Buffer | string, ...rest: never[]) => {
    const bytes = Buffer.from(chunk as Buffer);
    for (let at = 0; at < bytes.length; at += 7) write(bytes.subarray(at, at + 7), ...rest.slice(0, -1));
    const last = rest.at(-1) as unknown;
    if (typeof last === "function") last();
    return true;
  }) as Socket["write"];
  return socket;
}

/** A ClientHello with a server name and an encrypted one beside it. */
function helloWithEch(name: string): Buffer {
  const sni = Buffer.concat([u16(name.length + 3), Buffer.from([0]), u16(name.length), Buffer.from(name)]);
  const extensions = Buffer.concat([extension(0, sni), extension(0xfe0d, Buffer.alloc(32))]);
  const body = Buffer.concat([
    Buffer.from([3, 3]),
    Buffer.alloc(32),
    Buffer.from([0]),
    u16(2),
    Buffer.from([0x13, 0x01, 1, 0]),
    u16(extensions.length),
    extensions,
  ]);
  const message = Buffer.concat([Buffer.from([1, 0]), u16(body.length), body]);
  return Buffer.concat([Buffer.from([22, 3, 1]), u16(message.length), message]);
}

function extension(type: number, bytes: Buffer): Buffer {
  return Buffer.concat([u16(type), u16(bytes.length), bytes]);
}

function u16(value: number): Buffer {
  return Buffer.from([value >> 8, value & 0xff]);
}
