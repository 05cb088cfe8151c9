import { once } from "node:events";
import { connect } from "node:net";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { WebSocket } from "ws";
import { proxyHeader, startRig, type Rig } from "./rig.ts";

const SECRET = "correct-horse-battery-staple-42";

describe("a WebSocket", () => {
  let rig: Rig;
  beforeAll(async () => {
    rig = await startRig();
  });
  afterAll(() => rig[Symbol.asyncDispose]());
  beforeEach(() => {
    rig.lines.length = 0;
    rig.upstream.seen.length = 0;
    rig.upstream.messages.length = 0;
    allow();
  });

  const allow = (budget: { uploadBytes?: number } = {}): void => {
    const inject = [{ header: "authorization", valueTemplate: "Bearer {value}", secret: "s/k" }];
    rig.configure({ secrets: { "s/k": SECRET }, policy: { rules: [rig.rule({ webSocket: true, inject })], budget } });
  };
  const open = async (path = "/ws"): Promise<WebSocket> => {
    const secure = await rig.tls();
    const socket = new WebSocket(`wss://allowed.test:${rig.upstream.port}${path}`, {
      createConnection: () => secure,
      headers: { authorization: "Bearer mine" },
    });
    return socket;
  };
  /** What it was answered instead of a WebSocket. */
  const refusal = async (path?: string): Promise<{ status: number; rule: string }> => {
    const socket = await open(path);
    socket.on("error", () => {});
    const [, response] = await once(socket, "unexpected-response");
    const chunks: Buffer[] = [];
    for await (const chunk of response) chunks.push(chunk);
    return { status: response.statusCode, rule: JSON.parse(Buffer.concat(chunks).toString()).rule };
  };

  it("passes where its rule says so, with the credential in its handshake, and has one line with its bytes", async () => {
    const socket = await open();
    await once(socket, "open");
    socket.send("hello");
    const [echoed] = await once(socket, "message");
    socket.close();
    await once(socket, "close");

    expect(String(echoed)).toBe("hello");
    expect(rig.upstream.messages).toEqual(["hello"]);
    expect(rig.upstream.seen[0]?.headers.authorization).toBe(`Bearer ${SECRET}`);
    const line = await rig.line();
    expect(line).toMatchObject({
      kind: "request",
      verdict: "Allowed",
      rule: "allowed",
      status: 101,
      path: "/ws",
      injected: ["authorization"],
    });
    expect(Math.min(line.bytesUp, line.bytesDown)).toBeGreaterThan(5);
    expect(rig.lines).toHaveLength(1);
  });

  it("is refused where no rule says so, and for a path that its rule does not name", async () => {
    rig.configure();
    expect(await refusal()).toEqual({ status: 403, rule: "websocket-refused" });
    rig.configure({ policy: { rules: [rig.rule({ webSocket: true, paths: [{ type: "Exact", value: "/other" }] })] } });
    expect(await refusal()).toEqual({ status: 403, rule: "path-refused" });
    expect(rig.upstream.seen).toEqual([]);
    expect(await rig.lineCount(2)).toMatchObject([{ rule: "websocket-refused" }, { rule: "path-refused" }]);
  });

  it("is refused with a secret in its handshake", async () => {
    expect(await refusal(`/ws?k=${SECRET}`)).toEqual({ status: 403, rule: "dlp" });
  });

  it("that the host refuses is answered with the status of the host", async () => {
    expect(await refusal("/nothing-here")).toMatchObject({ rule: "upstream-failed" });
  });

  it("is cut when the budget is spent", async () => {
    allow({ uploadBytes: 500_000 });
    const socket = await open();
    await once(socket, "open");
    const closed = once(socket, "close");
    socket.on("error", () => {});
    for (let n = 0; n < 20; n += 1) socket.send(Buffer.alloc(65_536));
    await closed;

    const line = await rig.line();
    expect(line).toMatchObject({ verdict: "Denied", rule: "budget", status: 101 });
    expect(line.bytesUp).toBeLessThanOrEqual(500_000);
  });

  it("is the only protocol that a request may change to", async () => {
    for (const upgrade of ["h2c", "TLS/1.0", "tcp"]) {
      const secure = await rig.tls();
      secure.write(
        `GET /ws HTTP/1.1\r\nhost: allowed.test:${rig.upstream.port}\r\nconnection: upgrade\r\nupgrade: ${upgrade}\r\n\r\n`,
      );
      expect(String((await once(secure, "data"))[0]), upgrade).toMatch(/^HTTP\/1.1 403 .*"rule":"websocket-refused"/s);
      secure.destroy();
    }
    expect(rig.upstream.seen).toEqual([]);
  });

  it("is none that a CONNECT in a tunnel could be, over HTTP/1.1 and HTTP/2, nor a TRACE", async () => {
    const secure = await rig.tls();
    secure.write("CONNECT evil.test:443 HTTP/1.1\r\nhost: evil.test\r\n\r\n");
    expect(String((await once(secure, "data"))[0])).toMatch(/^HTTP\/1.1 403 .*"rule":"method-refused"/s);
    const session = await rig.session();
    const stream = session.request({ ":method": "CONNECT", ":authority": "evil.test:443" });
    const [head] = await once(stream, "response");
    expect(head[":status"]).toBe(403);
    session.destroy();
    expect(await rig.request({ method: "TRACE" })).toMatchObject({ status: 403, rule: "method-refused" });
    expect(await rig.lineCount(3)).toHaveLength(3);
  });

  it("may also be asked for without TLS, where a rule for HTTP says so", async () => {
    const plain = await startRig({ plain: true });
    plain.configure({ policy: { rules: [plain.rule({ protocol: "HTTP", webSocket: true })] } });
    const authority = `allowed.test:${plain.upstream.port}`;
    const socket = connect({ port: plain.port, host: "127.0.0.1" });
    socket.write(
      `GET http://${authority}/ws HTTP/1.1\r\nhost: ${authority}\r\nproxy-authorization: ${proxyHeader()}\r\n` +
        "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    );

    expect(String((await once(socket, "data"))[0])).toMatch(
      /^HTTP\/1.1 101 .*sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK\+xOo=/is,
    );
    socket.destroy();
    expect(await plain.line()).toMatchObject({ protocol: "HTTP", status: 101 });
    await plain[Symbol.asyncDispose]();
  });
});
