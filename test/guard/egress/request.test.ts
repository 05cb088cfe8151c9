import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { startRig, type Rig } from "./rig.ts";

describe("a request in a tunnel", () => {
  let rig: Rig;
  beforeAll(async () => {
    rig = await startRig({
      hosts: ["allowed.test", "a.wild.test", "other.test", "private.test"],
      records: {
        "private.test": ["10.0.0.5"],
        "meta.test": ["169.254.169.254"],
        "mixed.test": ["127.0.0.1", "10.0.0.5"],
      },
    });
  });
  afterAll(() => rig[Symbol.asyncDispose]());
  beforeEach(() => {
    rig.lines.length = 0;
    rig.upstream.seen.length = 0;
    rig.dns.queries.length = 0;
    rig.configure();
  });

  for (const version of ["h1", "h2"] as const) {
    it(`goes to the host that its rule names, over ${version}`, async () => {
      const answer = await rig.request({ version, path: "/headers?x=1" });

      expect(answer.status).toBe(200);
      expect(await rig.line()).toMatchObject({
        kind: "request",
        verdict: "Allowed",
        rule: "allowed",
        protocol: "HTTPS",
        host: "allowed.test",
        port: rig.upstream.port,
        method: "GET",
        path: "/headers",
        status: 200,
        address: "127.0.0.1",
        bytesDown: answer.body.length,
      });
      expect(rig.upstream.seen[0]?.url).toBe("/headers?x=1");
    });

    it(`is refused inside TLS, without a name being resolved, where no rule names the host, over ${version}`, async () => {
      const connections = rig.upstream.connections();

      const answer = await rig.request({ version, host: "evil.test", path: "/secret?q=1" });

      expect(answer.status).toBe(403);
      expect(JSON.parse(answer.text)).toMatchObject({
        rule: "default-deny",
        host: "evil.test",
        port: rig.upstream.port,
        method: "GET",
        path: "/secret",
        reason: expect.any(String),
        howToAsk: expect.any(String),
      });
      expect(rig.dns.queries).toEqual([]);
      expect(rig.upstream.connections()).toBe(connections);
      expect(await rig.lineCount(1)).toMatchObject([
        { verdict: "Denied", rule: "default-deny", status: 403, path: "/secret" },
      ]);
    });

    it(`is answered 421 without a credential when its host is not the tunnel's, over ${version}`, async () => {
      rig.configure({
        secrets: { "s/k": "a-secret-that-nobody-sees" },
        policy: {
          rules: [rig.rule({ inject: [{ header: "authorization", valueTemplate: "Bearer {value}", secret: "s/k" }] })],
        },
      });
      const name = version === "h1" ? "host" : ":authority";

      const answer = await rig.request({ version, headers: { [name]: "other.test" } });

      expect(answer).toMatchObject({ status: 421, rule: "authority-mismatch" });
      expect(rig.upstream.seen).toEqual([]);
    });

    it(`needs the method and the path that its rule names, over ${version}`, async () => {
      const paths = [{ type: "Prefix" as const, value: "/api" }];
      rig.configure({ policy: { rules: [rig.rule({ methods: ["GET"], paths })] } });

      expect((await rig.request({ version, path: "/api/x" })).status).toBe(200);
      expect(await rig.request({ version, path: "/api/x", method: "DELETE" })).toMatchObject({
        status: 403,
        rule: "method-refused",
      });
      expect(await rig.request({ version, path: "/other" })).toMatchObject({ status: 403, rule: "path-refused" });
      expect((await rig.request({ version, path: "/api/%2e%2e/x" })).status).toBe(400);
      expect((await rig.request({ version, path: "/api/../x" })).status).toBe(400);
      for (const path of ["/api//x", "/api/x;y", "/api/%2fx"]) {
        expect((await rig.request({ version, path })).status, path).toBe(403);
      }
      expect(rig.upstream.seen).toHaveLength(1);
    });
  }

  it("is sent as it was decided: the normalised path, and an ambiguous one only where no rule has paths", async () => {
    await rig.request({ path: "/%41bc?q=%41" });
    await rig.request({ path: "/@scope%2fname" });

    expect(rig.upstream.seen.map(({ url }) => url)).toEqual(["/Abc?q=%41", "/@scope%2fname"]);
  });

  it("is refused with a ticket where a rule needs an approval, the same one for the same question", async () => {
    rig.configure({ policy: { rules: [rig.rule({ action: "RequireApproval" })] } });

    const [first, second, other] = [
      await rig.request({ path: "/a" }),
      await rig.request({ path: "/a" }),
      await rig.request({ path: "/b" }),
    ];

    expect(first.status).toBe(403);
    expect(ticketOf(first)).toMatch(/\S/);
    expect(ticketOf(second)).toBe(ticketOf(first));
    expect(ticketOf(other)).not.toBe(ticketOf(first));
    const [line] = await rig.lineCount(3);
    expect(line).toMatchObject({ verdict: "ApprovalRequired", rule: "allowed", ticket: ticketOf(first) });
  });

  it("is refused when any address of its host is not public and no rule opens it", async () => {
    const rules = ["private.test", "meta.test", "mixed.test"].map((host) =>
      rig.rule({ name: host.replace(".test", ""), host }),
    );
    rig.configure({ policy: { rules } });

    for (const host of ["private.test", "meta.test", "mixed.test"]) {
      expect(await rig.request({ host }), host).toMatchObject({ status: 403, rule: "address-refused" });
    }
    expect(rig.upstream.seen).toEqual([]);
  });

  it("fails with 502 where the name does not resolve", async () => {
    rig.configure({ policy: { rules: [rig.rule({ host: "nowhere.test" })] } });

    expect(await rig.request({ host: "nowhere.test" })).toMatchObject({ status: 502, rule: "resolve-failed" });
    expect(await rig.line()).toMatchObject({ verdict: "Failed", rule: "resolve-failed" });
  });

  it("fails with 502 where nobody listens", async () => {
    rig.configure({ policy: { rules: [rig.rule({ ports: [9] })] } });

    expect(await rig.request({ port: 9 })).toMatchObject({ status: 502, rule: "upstream-failed" });
  });

  it("is refused for addresses instead of names, unless a rule names the address", async () => {
    for (const host of ["127.0.0.1", "203.0.113.5"]) {
      expect((await rig.request({ host })).rule, host).toBe("default-deny");
    }
    rig.configure({ policy: { rules: [rig.rule({ host: "127.0.0.1" })] } });
    expect((await rig.request({ host: "127.0.0.1" })).rule, "the certificate is for a name").toBe("upstream-failed");
  });

  it("is refused on a port that its rule does not name", async () => {
    for (const port of [22, 25, 6379]) expect((await rig.request({ port })).rule).toBe("default-deny");
    expect(rig.dns.queries).toEqual([]);
  });

  it("reaches exactly one more label by a wildcard", async () => {
    rig.configure({ policy: { rules: [rig.rule({ host: "*.wild.test" })] } });

    expect((await rig.request({ host: "a.wild.test" })).status).toBe(200);
    for (const host of ["wild.test", "b.a.wild.test", "a.wild.test.evil.test", "evilwild.test"]) {
      expect((await rig.request({ host })).rule, host).toBe("default-deny");
    }
  });

  it("loses headers that belong to a connection or claim another origin", async () => {
    const answer = await rig.request({
      path: "/headers",
      headers: {
        connection: "keep-alive, x-secret-hop",
        "x-secret-hop": "1",
        "x-forwarded-for": "1.2.3.4",
        forwarded: "for=1.2.3.4",
        "proxy-authorization": "Basic eA==",
        "proxy-connection": "keep-alive",
        te: "trailers",
        "x-kept": "yes",
      },
    });

    const seen = JSON.parse(answer.text);
    expect(seen).toMatchObject({ "x-kept": "yes", te: "trailers" });
    for (const name of ["x-secret-hop", "x-forwarded-for", "forwarded", "proxy-authorization", "proxy-connection"]) {
      expect(seen).not.toHaveProperty(name);
    }
  });

  it("may not ask for another method in a header where its rule names methods, and loses that header elsewhere", async () => {
    const headers = { "X-HTTP-Method-Override": "DELETE" };
    expect(JSON.parse((await rig.request({ path: "/headers", headers })).text)).not.toHaveProperty(
      "x-http-method-override",
    );

    rig.configure({ policy: { rules: [rig.rule({ methods: ["GET", "POST"] })] } });
    for (const name of ["X-HTTP-Method-Override", "X-Method-Override", "x_http_method"]) {
      expect(await rig.request({ headers: { [name]: "DELETE" } })).toMatchObject({
        status: 403,
        rule: "method-refused",
      });
    }
  });

  it("is not lost over an answer that continues it: the guard says 100 by itself", async () => {
    const answer = await rig.request({
      method: "POST",
      path: "/echo",
      headers: { expect: "100-continue" },
      body: "hello",
    });

    expect(answer).toMatchObject({ status: 200, text: "hello" });
    expect(rig.upstream.seen[0]?.headers).not.toHaveProperty("expect");
    expect((await rig.request({ headers: { expect: "a-miracle" } })).status).toBe(417);
  });

  it("keeps a secret out of the audit, wherever the agent put it", async () => {
    const secret = "correct-horse-battery-staple-42";
    rig.configure({ secrets: { "s/k": secret } });

    await rig.request({ path: `/x?token=${secret}` });
    await rig.request({ path: "/x", headers: { "x-a": secret } });
    await rig.request({ host: "evil.test", path: `/x?token=${secret}` });

    expect(JSON.stringify(await rig.lineCount(3))).not.toContain(secret);
    expect(rig.lines.map(({ rule }) => rule)).toEqual(["dlp", "dlp", "default-deny"]);
  });

  it("has exactly one line, whatever became of it", async () => {
    const hosts = ["allowed.test", "evil.test"];
    const asked = Array.from({ length: 50 }, (_, n) => ({
      host: hosts[(n * 7) % 2] ?? "",
      version: n % 3 === 0 ? ("h2" as const) : ("h1" as const),
      path: `/n${n}`,
    }));
    for (let at = 0; at < asked.length; at += 10) {
      await Promise.all(asked.slice(at, at + 10).map((one) => rig.request(one)));
    }

    const lines = await rig.lineCount(50);
    expect(lines).toHaveLength(50);
    expect(new Set(lines.map(({ path }) => path)).size).toBe(50);
    expect(lines.filter(({ verdict }) => verdict === "Allowed")).toHaveLength(25);
  });

  it("has no line with audit Blocks when it was allowed", async () => {
    rig.configure({ policy: { audit: "Blocks" } });

    await rig.request({ path: "/fine" });
    await rig.request({ host: "evil.test", path: "/no" });

    expect(await rig.lineCount(1)).toMatchObject([{ path: "/no" }]);
  });
});

function ticketOf(answer: { text: string }): string {
  return JSON.parse(answer.text).ticket;
}
