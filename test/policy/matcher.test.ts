import { describe, expect, it } from "vitest";
import type { GuardRule } from "../../controller/ports/guard.ts";
import { parseAddress, type Address } from "../../controller/policy/address.ts";
import { decideAddress, decideConnect, decideRequest, type RequestFacts } from "../../controller/policy/matcher.ts";
import { compiled, destination } from "./rules.ts";

const READ: Partial<GuardRule> = { methods: ["GET", "HEAD"] };
const V1: Partial<GuardRule> = { paths: [{ type: "Prefix", value: "/v1" }] };

describe("decideRequest", () => {
  it("refuses what no rule names", () => {
    expect(decideRequest(compiled({}), request("evil.test:443"))).toEqual({
      action: "Deny",
      rule: "default-deny",
      reason: "no egress rule allows evil.test:443",
    });
  });

  it("allows what a rule names, and gives the rule", () => {
    const policy = compiled({ name: "api" });

    expect(decideRequest(policy, request("allowed.test:443"))).toEqual({
      action: "Allow",
      rule: "api",
      reason: 'rule "api" allows allowed.test:443',
      matched: policy.rules[0],
    });
  });

  it.each([
    ["*.allowed.test", "a.allowed.test:443", "Allow"],
    ["*.allowed.test", "allowed.test:443", "Deny"],
    ["*.allowed.test", "a.b.allowed.test:443", "Deny"],
    ["*.allowed.test", "evilallowed.test:443", "Deny"],
    ["allowed.test", "a.allowed.test:443", "Deny"],
    ["allowed.test", "allowed.test.evil.test:443", "Deny"],
    ["allowed.test", "ALLOWED.test.:443", "Allow"],
    ["203.0.113.5", "203.0.113.5:443", "Allow"],
    ["203.0.113.5", "[::ffff:203.0.113.5]:443", "Deny"],
    ["*.test", "203.0.113.5:443", "Deny"],
    ["localhost", "localhost:443", "Allow"],
  ])("a rule for %s and %s: %s", (host, authority, action) => {
    expect(decideRequest(compiled({ host }), request(authority)).action).toBe(action);
  });

  it.each([
    ["Prefix", "/v1", "/v1", "Allow"],
    ["Prefix", "/v1", "/v1/x", "Allow"],
    ["Prefix", "/v1", "/v10", "Deny"],
    ["Prefix", "/v1/", "/v1/x", "Allow"],
    ["Prefix", "/v1/", "/v1", "Deny"],
    ["Prefix", "/", "/x", "Allow"],
    ["Exact", "/v1", "/v1", "Allow"],
    ["Exact", "/v1", "/v1/", "Deny"],
    ["Exact", "/v1", "/V1", "Deny"],
    ["Regex", "/v[0-9]", "/v1", "Allow"],
    ["Regex", "/v[0-9]", "/x/v1", "Deny"],
    ["Regex", "/v[0-9]", "/v1/x", "Deny"],
  ] as const)("a rule for the path %s %s and %s: %s", (type, value, path, action) => {
    const policy = compiled({ paths: [{ type, value }] });

    expect(decideRequest(policy, request("allowed.test:443", { path })).action).toBe(action);
  });

  it.each([
    ["the method", READ, { method: "POST" }, "method-refused", 'rule "api" is for the methods GET, HEAD, not POST'],
    ["the path", V1, { path: "/v2" }, "path-refused", 'rule "api" is for the paths "/v1" (Prefix), not this one'],
    [
      "an ambiguous path",
      V1,
      { path: undefined },
      "path-refused",
      'rule "api" is for the paths "/v1" (Prefix), not an ambiguous one',
    ],
    ["a WebSocket", {}, { webSocket: true }, "websocket-refused", 'rule "api" does not say webSocket: Allow'],
    ["the protocol", {}, { protocol: "HTTP" }, "default-deny", 'rule "api" is for protocol HTTPS, not HTTP'],
    ["the port", { ports: [8443] }, {}, "default-deny", 'rule "api" is for allowed.test on port 8443, not 443'],
  ] as [string, Partial<GuardRule>, Partial<RequestFacts>, string, string][])(
    "says that %s is what does not fit",
    (...[, changes, facts, rule, reason]) => {
      const policy = compiled({ name: "api", ...changes });

      expect(decideRequest(policy, request("allowed.test:443", facts))).toEqual({ action: "Deny", rule, reason });
    },
  );

  it("names the rule that fits best when none fits", () => {
    const policy = compiled(
      { name: "method", ...READ },
      { name: "path", methods: ["POST"], ...V1 },
      { name: "port", ports: [1] },
    );

    expect(decideRequest(policy, request("allowed.test:443", { method: "POST", path: "/v2" })).reason).toContain(
      '"path"',
    );
  });

  it.each(["CONNECT", "TRACE", "TRACK", "get", "G T", "", "GET\r\n", "X".repeat(33)])(
    "never allows the method %j, even where a rule names no methods",
    (method) => {
      expect(decideRequest(compiled({}), request("allowed.test:443", { method }))).toMatchObject({
        action: "Deny",
        rule: "method-refused",
        reason: expect.stringMatching(/^[ -~]+$/),
      });
    },
  );

  it.each([
    [["Allow", "RequireApproval", "Deny"], "Deny"],
    [["Allow", "RequireApproval"], "RequireApproval"],
    [["Deny", "Allow"], "Deny"],
  ] as const)("of %j the strongest decides, in whatever order", (actions, strongest) => {
    for (const order of [actions, actions.toReversed()]) {
      const policy = compiled(...order.map((action) => ({ name: action.toLowerCase(), action })));

      const verdict = decideRequest(policy, request("allowed.test:443"));
      expect(verdict).toMatchObject({ action: strongest, rule: strongest.toLowerCase() });
    }
  });

  it("gives the first of equals, also between a name and a wildcard", () => {
    const policy = compiled({ name: "wild", host: "*.allowed.test" }, { name: "exact", host: "a.allowed.test" });

    expect(decideRequest(policy, request("a.allowed.test:443")).rule).toBe("wild");
  });

  it("applies a Deny of some paths to those only", () => {
    const policy = compiled({}, { name: "no-admin", action: "Deny", paths: [{ type: "Prefix", value: "/admin" }] });

    expect(decideRequest(policy, request("allowed.test:443", { path: "/admin/x" })).rule).toBe("no-admin");
    expect(decideRequest(policy, request("allowed.test:443", { path: "/x" })).action).toBe("Allow");
  });

  it("lets an ambiguous path through only where no rule of the host compares paths", () => {
    const facts = request("allowed.test:443", { path: undefined });

    expect(decideRequest(compiled({}), facts).action).toBe("Allow");
    expect(decideRequest(compiled(V1), facts).action).toBe("Deny");
    expect(decideRequest(compiled({}, { action: "Deny", ...V1 }), facts).action).toBe("Deny");
    expect(decideRequest(compiled({}, { action: "RequireApproval", ...V1 }), facts).action).toBe("RequireApproval");
  });

  it("denies a WebSocket by a Deny that does not speak of it", () => {
    const policy = compiled({ webSocket: true }, { name: "no", action: "Deny", ...V1 });

    expect(decideRequest(policy, request("allowed.test:443", { webSocket: true, path: "/v1" })).rule).toBe("no");
    expect(decideRequest(policy, request("allowed.test:443", { webSocket: true, path: "/" })).action).toBe("Allow");
  });

  it.each(["HTTPS", "HTTP", "TLS", "TCP"] as const)(
    "is closed by a Deny of the whole destination in protocol %s",
    (protocol) => {
      const policy = compiled({}, { name: "closed", action: "Deny", protocol });

      expect(decideRequest(policy, request("allowed.test:443")).rule).toBe("closed");
    },
  );

  it("is opened by no rule that does not read requests", () => {
    const policy = compiled({ protocol: "TLS" }, { protocol: "TCP" });

    expect(decideRequest(policy, request("allowed.test:443")).action).toBe("Deny");
  });

  it("tells the agent the reason that the author of a rule gave, as one line", () => {
    const policy = compiled({ action: "Deny", reason: "use the mirror\r\ninstead\u001b[31m" });

    expect(decideRequest(policy, request("allowed.test:443")).reason).toBe("use the mirror instead [31m");
  });
});

describe("decideConnect", () => {
  it.each([
    ["nothing", "HTTPS"],
    ["an HTTPS rule", "HTTPS", { protocol: "HTTPS" }],
    ["an HTTP rule", "HTTPS", { protocol: "HTTP" }],
    ["an HTTPS rule of one path", "HTTPS", V1],
    ["a TLS rule", "TLS", { protocol: "TLS" }],
    ["a TCP rule", "TCP", { protocol: "TCP" }],
    ["an HTTPS and a TLS rule", "HTTPS", { protocol: "TLS" }, { protocol: "HTTPS" }],
    ["a TLS rule and a Deny of a path", "HTTPS", { protocol: "TLS" }, { action: "Deny", ...V1 }],
    ["a TLS and a TCP rule", "TLS", { protocol: "TCP" }, { protocol: "TLS" }],
    ["a TLS rule of another port", "HTTPS", { protocol: "TLS", ports: [8443] }],
    ["a TLS rule of another host", "HTTPS", { protocol: "TLS", host: "other.test" }],
    ["a TLS rule, and an HTTPS rule of another port", "TLS", { protocol: "TLS" }, { ports: [8443] }],
  ] as [string, string, ...Partial<GuardRule>[]][])("under %s a tunnel is %s", (_, protocol, ...rules) => {
    expect(decideConnect(compiled(...rules), destination("allowed.test:443")).protocol).toBe(protocol);
  });

  it.each([
    [["Allow"], "Allow"],
    [["RequireApproval", "Allow"], "RequireApproval"],
    [["Allow", "Deny"], "Deny"],
  ] as const)("decides %j of tunnels as %s", (actions, strongest) => {
    const policy = compiled(
      ...actions.map((action) => ({ name: action.toLowerCase(), action, protocol: "TLS" as const })),
    );

    expect(decideConnect(policy, destination("allowed.test:443"))).toMatchObject({
      verdict: { action: strongest, rule: strongest.toLowerCase() },
    });
  });

  it("refuses a TLS tunnel by a Deny of the host in another protocol", () => {
    const tcp = compiled({ protocol: "TLS" }, { name: "closed", protocol: "TCP", action: "Deny" });
    const https = compiled({ protocol: "TLS" }, { name: "closed", protocol: "HTTPS", action: "Deny" });

    expect(decideConnect(tcp, destination("allowed.test:443"))).toMatchObject({ verdict: { rule: "closed" } });
    expect(decideConnect(https, destination("allowed.test:443"))).toEqual({ protocol: "HTTPS" });
    expect(decideRequest(https, request("allowed.test:443")).rule).toBe("closed");
  });
});

describe("decideAddress", () => {
  it.each([
    ["a public address", "8.8.8.8", [], true],
    ["a private address", "10.0.0.5", [], false],
    ["a private address in a network of the rule", "10.0.0.5", ["10.0.0.0/8"], true],
    ["a private address in no network of the rule", "10.0.0.5", ["192.168.0.0/16"], false],
    ["loopback", "127.0.0.1", [], false],
    ["loopback that is meant", "127.0.0.1", ["127.0.0.1/32"], true],
    ["0.0.0.0, which is loopback for Linux", "0.0.0.0", [], false],
    ["a documentation address", "203.0.113.5", [], false],
    ["metadata", "169.254.169.254", [], false],
    ["metadata inside a network", "169.254.169.254", ["169.254.0.0/16"], false],
    ["metadata inside everything", "fd00:ec2::254", ["::/0"], false],
    ["metadata that is meant", "169.254.169.254", ["169.254.169.254/32"], true],
    ["metadata of Azure, in a public network", "168.63.129.16", [], false],
    ["metadata, mapped", "::ffff:169.254.169.254", ["::ffff:0:0/96"], false],
    ["a private address, mapped", "::ffff:10.0.0.5", ["10.0.0.0/8"], false],
    ["a public address of the machine", "8.8.4.4", [], false],
    ["a public address of the machine that is meant", "8.8.4.4", ["8.8.4.4/32"], true],
    ["an address of the machine by NAT64", "64:ff9b::8.8.4.4", [], false],
  ])("%s: %s with %j", (_, text, cidrs, ok) => {
    const [rule] = compiled({ cidrs }).rules;

    const decision = decideAddress(rule, address(text), [address("8.8.4.4")]);
    expect(decision).toEqual(ok ? { ok } : { ok, reason: expect.stringMatching(/^[ -~]+$/) });
  });

  it("opens nothing that is not public without a rule", () => {
    expect(decideAddress(undefined, address("10.0.0.5"), []).ok).toBe(false);
    expect(decideAddress(undefined, address("8.8.8.8"), []).ok).toBe(true);
  });

  it("says which address, of what class, and what would open it", () => {
    const [rule] = compiled({ name: "api" }).rules;

    expect(decideAddress(rule, address("10.0.0.5"), [])).toEqual({
      ok: false,
      reason: '10.0.0.5 is an address of class Private, and rule "api" has no cidr that opens it',
    });
    expect(decideAddress(rule, address("169.254.169.254"), [])).toMatchObject({
      reason: expect.stringContaining("opens 169.254.169.254/32"),
    });
  });
});

function request(authority: string, facts: Partial<RequestFacts> = {}): RequestFacts {
  return {
    destination: destination(authority),
    protocol: "HTTPS",
    method: "GET",
    path: "/",
    webSocket: false,
    ...facts,
  };
}

function address(text: string): Address {
  const parsed = parseAddress(text);
  if (parsed === undefined) throw new Error(`not an address: ${text}`);
  return parsed;
}
