import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { proxyHeader, startRig, type Rig } from "./rig.ts";

describe("a request without TLS", () => {
  let rig: Rig;
  beforeAll(async () => {
    rig = await startRig({ plain: true, hosts: ["allowed.test", "other.test"] });
  });
  afterAll(() => rig[Symbol.asyncDispose]());
  beforeEach(() => {
    rig.lines.length = 0;
    rig.upstream.seen.length = 0;
    rig.dns.queries.length = 0;
    rig.configure({ policy: { rules: [rig.rule({ protocol: "HTTP" })] } });
  });

  const ask = (
    {
      host = "allowed.test",
      hostHeader,
      path = "/headers",
      more = "",
    }: { host?: string; hostHeader?: string; path?: string; more?: string } = {},
    method = "GET",
  ): Promise<string> => {
    const authority = `${host}:${rig.upstream.port}`;
    return rig.raw(
      `${method} http://${authority}${path} HTTP/1.1\r\nhost: ${hostHeader ?? authority}\r\n` +
        `proxy-authorization: ${proxyHeader()}\r\nconnection: close\r\n${more}\r\n`,
    );
  };

  it("passes where a rule for HTTP says so, without what was meant for the proxy", async () => {
    const answer = await ask();

    expect(answer).toMatch(/^HTTP\/1.1 200 /);
    expect(answer).not.toContain("proxy-authorization");
    expect(await rig.line()).toMatchObject({
      protocol: "HTTP",
      verdict: "Allowed",
      host: "allowed.test",
      path: "/headers",
    });
  });

  it("is refused where the rule is for HTTPS, or none is there, and no name is looked up", async () => {
    expect(await ask({ host: "evil.test" })).toMatch(/^HTTP\/1.1 403 .*"rule":"default-deny"/s);
    rig.configure();
    expect(await ask()).toMatch(/^HTTP\/1.1 403 .*"rule":"default-deny"/s);
    expect(rig.dns.queries).toEqual([]);
    expect(rig.upstream.seen).toEqual([]);
  });

  it("must be for the host of its request line", async () => {
    expect(await ask({ hostHeader: "other.test" })).toMatch(/^HTTP\/1.1 421 .*"rule":"authority-mismatch"/s);
    expect(rig.upstream.seen).toEqual([]);
  });

  it("is policed again after another one on the same connection", async () => {
    const authority = `allowed.test:${rig.upstream.port}`;
    const answers = await rig.raw(
      `GET http://${authority}/one HTTP/1.1\r\nhost: ${authority}\r\nproxy-authorization: ${proxyHeader()}\r\n\r\n` +
        `GET http://evil.test/two HTTP/1.1\r\nhost: evil.test\r\nproxy-authorization: ${proxyHeader()}\r\nconnection: close\r\n\r\n`,
    );

    expect(answers).toMatch(/^HTTP\/1.1 200 .*HTTP\/1.1 403 /s);
    expect(rig.upstream.seen.map(({ url }) => url)).toEqual(["/one"]);
  });

  it("is refused with more than one reading of its host", async () => {
    for (const host of ["user@evil.test", "2130706433", "0x7f.1", "1.1", "[fe80::1%25lo]"]) {
      expect(await ask({ host }), host).toMatch(/^HTTP\/1.1 400 /);
    }
  });
});
