import { X509Certificate } from "node:crypto";
import { connect } from "node:http2";
import { describe, expect, it } from "vitest";
import { exchange, rawConnect, rawConnection, rawTls, statusOf } from "../helpers/raw-http.ts";
import { attempt, get, isRefused, REBINDING, useEscapeWorld } from "./attempts.ts";

const { world, expectNothingLeft, at } = useEscapeWorld();

describe("a name without a rule", () => {
  it("is refused inside TLS, leaves one line, and is never looked up", async () => {
    const outcome = await attempt(world(), { authority: at("evil.test") });

    expect(outcome).toMatchObject({ connect: 200, status: 403, rule: "default-deny" });
    expectNothingLeft();
    expect(world().dns.queries).toEqual([]);
    const line = await world().guard.auditLine((one) => one.host === "evil.test" && one.kind === "request");
    expect(line).toMatchObject({ verdict: "Denied", rule: "default-deny", method: "GET", path: "/" });
  });

  it.each(["evilallowed.test", "allowed.test.evil.test", "x.allowed.test", "allowed.tes", "allowed-test"])(
    "that only looks like an allowed one is refused: %s",
    async (host) => {
      expect(isRefused(await attempt(world(), { authority: at(host) }))).toBe(true);
      expectNothingLeft();
      expect(world().dns.queries).toEqual([]);
    },
  );

  it("is refused in absolute form too", async () => {
    const { guard } = world();
    const login = `Proxy-Authorization: Basic ${Buffer.from(`bottle:${guard.token}`).toString("base64")}`;
    const request = get(at("evil.test"), `http://${at("evil.test")}/`, [login]);

    const text = await exchange(await rawConnection(guard.port), request);

    expect(statusOf(text)).toBe(403);
    expectNothingLeft();
    expect(world().dns.queries).toEqual([]);
  });
});

describe("other spellings of an allowed name", () => {
  it.each(["ALLOWED.test", "allowed.test.", "aLLowed.TEST."])("mean the same name: %s", async (host) => {
    const authority = at(host);

    const outcome = await attempt(world(), { authority, serverName: "allowed.test", request: get(at("allowed.test")) });

    expect(outcome).toMatchObject({ connect: 200, status: 200 });
  });

  it.each([
    "allowed.test%2e",
    "allowed%2etest",
    "user@allowed.test",
    "evil.test\\@allowed.test",
    "evil.test\u0000.allowed.test",
    "evil.test\t.allowed.test",
    "evil.test .allowed.test",
    "evil.test#allowed.test",
    "evil.test/allowed.test",
    "[allowed.test]",
    "allowed..test",
    "",
  ])("are refused before anything is dialled: %j", async (host) => {
    const outcome = await attempt(world(), { authority: at(host), serverName: "allowed.test" });

    expect(isRefused(outcome)).toBe(true);
    expectNothingLeft();
  });
});

describe("an address in place of a name", () => {
  it.each(["127.0.0.1", "2130706433", "0x7f.0.0.1", "0177.0.0.1", "127.1", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0"])(
    "is refused: %s",
    async (host) => {
      const outcome = await attempt(world(), { authority: at(host), serverName: "allowed.test" });

      expect(isRefused(outcome)).toBe(true);
      expectNothingLeft();
    },
  );

  it("of the metadata service is refused", async () => {
    expect(isRefused(await attempt(world(), { authority: "169.254.169.254:80", serverName: false }))).toBe(true);
  });
});

describe("another port", () => {
  it.each([22, 25, 443, 6379])("than the rule's is refused: %i", async (port) => {
    const outcome = await attempt(world(), { authority: `allowed.test:${port}` });

    expect(isRefused(outcome)).toBe(true);
    expect(world().dns.queries).toEqual([]);
  });

  it.each([
    "allowed.test",
    "allowed.test:",
    "allowed.test:0",
    "allowed.test:65536",
    "allowed.test:+1",
    "allowed.test:1e3",
  ])("than a number is refused: %s", async (authority) => {
    expect(isRefused(await attempt(world(), { authority, serverName: "allowed.test" }))).toBe(true);
    expectNothingLeft();
  });
});

describe("one name outside and another inside", () => {
  it("a server name other than that of CONNECT ends the connection", async () => {
    const outcome = await attempt(world(), { authority: at("allowed.test"), serverName: "evil.test" });

    expect(isRefused(outcome)).toBe(true);
    expectNothingLeft();
  });

  it.each(["evil.test", "bound.test", "other.test"])(
    "a Host other than that of CONNECT is refused: %s",
    async (host) => {
      const outcome = await attempt(world(), { authority: at("allowed.test"), request: get(at(host)) });

      expect(outcome).toMatchObject({ status: 421, rule: "authority-mismatch" });
      expectNothingLeft();
    },
  );

  it.each([
    ["two", ["Host: evil.test"]],
    ["none", []],
  ])("%s Host headers are refused", async (_what, more) => {
    const { port } = world().upstream;
    const own = more.length === 0 ? [] : [`Host: allowed.test:${port}`];
    const request = ["GET / HTTP/1.1", ...own, ...more, "Connection: close", "", ""].join("\r\n");

    const outcome = await attempt(world(), { authority: at("allowed.test"), request });

    expect(isRefused(outcome)).toBe(true);
    expectNothingLeft();
  });

  it("an absolute target inside a tunnel cannot name another host", async () => {
    const request = get(at("allowed.test"), `https://${at("evil.test")}/`);

    const outcome = await attempt(world(), { authority: at("allowed.test"), request });

    expect(isRefused(outcome)).toBe(true);
    expectNothingLeft();
  });

  it("a CONNECT inside a tunnel is refused", async () => {
    const request = `CONNECT ${at("evil.test")} HTTP/1.1\r\nHost: ${at("evil.test")}\r\n\r\n`;

    const outcome = await attempt(world(), { authority: at("allowed.test"), request });

    expect(isRefused(outcome)).toBe(true);
    expectNothingLeft();
  });
});

describe("an allowed name that leads elsewhere", () => {
  it.each(REBINDING)("is refused: %s", async (host) => {
    const outcome = await attempt(world(), { authority: at(host) });

    expect(isRefused(outcome)).toBe(true);
    expect(outcome.rule).toBe("address-refused");
    expectNothingLeft();
  });

  it("is dialled at the address that was checked", async () => {
    const connections = world().upstream.connections();
    const outcome = await attempt(world(), { authority: at("rebind.test") });

    // The certificate of the sink is not for this name, so the request ends there: what matters is where the connection went.
    expect(world().upstream.connections()).toBe(connections + 1);
    expect(outcome.rule).toBe("upstream-failed");
    expect(world().upstream.seen).toEqual([]);
  });
});

describe("a host whose TLS is passed on unread", () => {
  it("shows its own certificate, and its requests are counted but not read", async () => {
    const { guard, authority } = world();
    const credentials = `bottle:${guard.token}`;
    const { socket } = await rawConnect(guard.port, { authority: at("pinned.test"), credentials });
    const tls = await rawTls(socket, { serverName: "pinned.test" });
    if (tls === undefined) throw new Error("no TLS through the guard");

    const shown = tls.getPeerX509Certificate();
    const answer = await exchange(tls, get(at("pinned.test")));

    expect(shown?.verify(new X509Certificate(authority.certificate).publicKey)).toBe(true);
    expect(statusOf(answer)).toBe(200);
    const line = await guard.auditLine((one) => one.host === "pinned.test" && one.verdict === "Allowed");
    expect(line).toMatchObject({ kind: "tunnel", protocol: "TLS", rule: "pinned" });
    expect(line.bytesUp).toBeGreaterThan(100);
  });

  it.each([
    ["another name", "evil.test"],
    ["a name of another rule", "allowed.test"],
    ["no name", false],
  ] as const)("is not dialled when its client says %s", async (_what, serverName) => {
    const outcome = await attempt(world(), { authority: at("pinned.test"), serverName });

    expect(isRefused(outcome)).toBe(true);
    expectNothingLeft();
    await expect(world().guard.auditLine((one) => one.rule === "tls-refused")).resolves.toBeDefined();
  });
});

describe("what is no TLS", () => {
  it.each([
    ["a banner of SSH", "SSH-2.0-OpenSSH_9.2\r\n"],
    ["a plain request", "GET / HTTP/1.1\r\nHost: allowed.test\r\n\r\n"],
    ["noise", "\u0000\u0001\u0002\u0003\u0004\u0005\u0006\u0007"],
  ])("ends in the guard: %s", async (_what, bytes) => {
    const { guard } = world();
    const credentials = `bottle:${guard.token}`;
    const { status, socket } = await rawConnect(guard.port, { authority: at("allowed.test"), credentials });

    if (status === 200) await exchange(socket, bytes);

    expectNothingLeft();
  });
});

describe("the token of the bottle", () => {
  it.each([
    ["none", ""],
    ["a wrong one", "bottle:not-the-token"],
    ["a part of it", "bottle:token"],
  ])("%s opens nothing", async (_what, credentials) => {
    const outcome = await attempt(world(), { authority: at("allowed.test"), credentials });

    expect(outcome.connect).toBe(407);
    expectNothingLeft();
  });
});

describe("HTTP/2 inside a tunnel", () => {
  it("is offered, and an authority other than that of CONNECT is refused there too", async () => {
    const { guard } = world();
    const credentials = `bottle:${guard.token}`;
    const { socket } = await rawConnect(guard.port, { authority: at("allowed.test"), credentials });
    const tls = await rawTls(socket, { serverName: "allowed.test", alpn: ["h2"] });
    if (tls === undefined) throw new Error("no TLS with HTTP/2");
    const session = connect(`https://${at("allowed.test")}`, { createConnection: () => tls });

    const ask = (authority: string): Promise<number> =>
      new Promise((resolve, reject) => {
        const stream = session.request({ ":path": "/", ":authority": authority });
        stream.on("response", (headers) => resolve(Number(headers[":status"])));
        stream.on("error", reject).resume().end();
      });

    expect(await ask(at("evil.test"))).toBe(421);
    expectNothingLeft();
    expect(await ask(at("allowed.test"))).toBe(200);
    session.destroy();
  });
});
