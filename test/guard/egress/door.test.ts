import { once } from "node:events";
import { connect as connectTls } from "node:tls";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { proxyHeader, startRig, TOKEN, type Rig } from "./rig.ts";

const AUTH = `proxy-authorization: ${proxyHeader()}\r\n`;

describe("the egress door", () => {
  let rig: Rig;
  beforeAll(async () => {
    rig = await startRig({ hosts: ["allowed.test", "evil.test"] });
  });
  afterAll(() => rig[Symbol.asyncDispose]());
  beforeEach(() => {
    rig.lines.length = 0;
    rig.upstream.seen.length = 0;
    rig.dns.queries.length = 0;
    rig.health.now = { ok: true };
    rig.configure();
  });

  it("says 503 to everything before it has settings", async () => {
    const fresh = await startRig();

    expect(await fresh.raw(connectTo("allowed.test:443"))).toMatch(/^HTTP\/1.1 503 .*"rule":"not-configured"/s);
    expect(
      await fresh.raw(`GET http://allowed.test/ HTTP/1.1\r\nhost: allowed.test\r\nconnection: close\r\n\r\n`),
    ).toMatch(/^HTTP\/1.1 503 /);

    expect(fresh.lines).toMatchObject([{ rule: "not-configured" }, { rule: "not-configured" }]);
    await fresh[Symbol.asyncDispose]();
  });

  it("says 407 to whoever does not know the token of this bottle", async () => {
    for (const auth of [
      "",
      `proxy-authorization: ${proxyHeader("token-of-another-bottle-1")}\r\n`,
      `proxy-authorization: ${proxyHeader("")}\r\n`,
      `proxy-authorization: ${proxyHeader(`${TOKEN}x`)}\r\n`,
      "proxy-authorization: Basic ????\r\n",
      `authorization: ${proxyHeader()}\r\n`,
    ]) {
      const answer = await rig.raw(connectTo("allowed.test:443", auth));
      expect(answer, auth).toMatch(/^HTTP\/1.1 407 .*proxy-authenticate: Basic .*"rule":"unauthorized"/is);
    }
    const plain = await rig.raw("GET http://allowed.test/ HTTP/1.1\r\nhost: allowed.test\r\nconnection: close\r\n\r\n");
    expect(plain).toMatch(/^HTTP\/1.1 407 /);
    expect(await rig.lineCount(7)).toHaveLength(7);
    expect(rig.lines.every(({ rule }) => rule === "unauthorized")).toBe(true);
    // Three send no password to the proxy at all: being asked for it is no refusal, because many clients wait for the question.
    const verdicts = rig.lines.map(({ verdict }) => verdict).toSorted();
    expect(verdicts).toEqual([...Array(4).fill("Denied"), ...Array(3).fill("Failed")]);
  });

  it("takes any user name with the token", async () => {
    const user = Buffer.from(`somebody:${TOKEN}`).toString("base64");

    expect(await rig.raw(connectTo("allowed.test:443", `proxy-authorization: basic ${user}\r\n`))).toMatch(
      /^HTTP\/1.1 200 /,
    );
  });

  it("says 400 at once to targets of CONNECT that have more than one reading, and resolves none", async () => {
    const targets = [
      "allowed.test",
      "allowed.test:0",
      "allowed.test:65536",
      "allowed.test:443:443",
      "user@evil.test:443",
      "2130706433:443",
      "0x7f.1:443",
      "0xcb007105:443",
      "010.0.0.1:443",
      "1.1:443",
      "allowed.test%2eevil.test:443",
      "evil.test%00.allowed.test:443",
      "[fe80::1%25eth0]:443",
      "::1:443",
      "-:443",
    ];
    for (const target of targets) {
      expect(await rig.raw(connectTo(target)), target).toMatch(/^HTTP\/1.1 400 .*"rule":"bad-request"/s);
    }
    for (const target of ["evil.test\x00.allowed.test:443", "evil\ttest:443", "evil test:443", "evil\\test:443"]) {
      expect(await rig.raw(connectTo(target)), JSON.stringify(target)).toMatch(/^HTTP\/1.1 400 /);
    }
    expect(await rig.lineCount(targets.length + 4)).toHaveLength(targets.length + 4);
    expect(rig.lines.every(({ rule }) => rule === "bad-request")).toBe(true);
    expect(rig.dns.queries).toEqual([]);
  });

  it("decides each spelling of a host as one host", async () => {
    const { port } = rig.upstream;
    for (const authority of [`ALLOWED.test:${port}`, `allowed.test.:${port}`]) {
      const secure = connectTls({ socket: await rig.tunnel(authority), ca: rig.guardCa, servername: "allowed.test" });
      secure.write(`GET /seen HTTP/1.1\r\nhost: allowed.test:${port}\r\nconnection: close\r\n\r\n`);
      expect(String((await once(secure, "data"))[0]), authority).toMatch(/^HTTP\/1.1 200 /);
      secure.destroy();
    }
  });

  it("says 400 to requests in origin form and to https:// in absolute form, with advice", async () => {
    expect(await rig.raw(`GET / HTTP/1.1\r\nhost: allowed.test\r\n${AUTH}connection: close\r\n\r\n`)).toMatch(
      /^HTTP\/1.1 400 .*absolute form/s,
    );
    expect(
      await rig.raw(`GET https://allowed.test/ HTTP/1.1\r\nhost: allowed.test\r\n${AUTH}connection: close\r\n\r\n`),
    ).toMatch(/^HTTP\/1.1 400 .*CONNECT/s);
  });

  it("refuses what two servers could read differently", async () => {
    const head = `POST http://allowed.test/ HTTP/1.1\r\nhost: allowed.test\r\n${AUTH}connection: close\r\n`;
    const smuggled = [
      "content-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
      "transfer-encoding: chunked\r\ncontent-length: 3\r\n\r\n0\r\n\r\n",
      "content-length: 3\r\ncontent-length: 4\r\n\r\nabcd",
      "transfer-encoding: xchunked\r\n\r\nabc",
      "transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
      "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
      "x-a: b\r\n folded: yes\r\n\r\n",
      "host: evil.test\r\n\r\n",
    ];
    for (const rest of smuggled) {
      expect(await rig.raw(head + rest), rest).toMatch(/^HTTP\/1.1 400 /);
    }
    expect(rig.lines).toHaveLength(smuggled.length);
    expect(rig.upstream.seen).toEqual([]);
  });

  it("says 431 to a head that is too large", async () => {
    const answer = await rig.raw(`GET http://allowed.test/ HTTP/1.1\r\nx-a: ${"a".repeat(17 * 1024)}\r\n\r\n`);

    expect(answer).toMatch(/^HTTP\/1.1 431 /);
  });

  it("refuses everything while it is closed, inside TLS as well", async () => {
    rig.configure({ closed: { reason: "SecretMissing", message: "the secret model is missing" } });

    const answer = await rig.request();

    expect(answer).toMatchObject({ status: 403, rule: "closed" });
    expect(answer.text).toContain("the secret model is missing");
  });

  it("refuses everything while the audit cannot be written, and goes on by itself", async () => {
    rig.health.now = { ok: false, reason: "AuditUnwritable", message: "no space left" };
    expect(await rig.request()).toMatchObject({ status: 503, rule: "audit-unavailable" });
    expect(rig.upstream.seen).toEqual([]);

    rig.health.now = { ok: true };
    expect((await rig.request()).status).toBe(200);
  });
});

function connectTo(target: string, auth = AUTH): string {
  return `CONNECT ${target} HTTP/1.1\r\nhost: x\r\n${auth}\r\n`;
}
