import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { GuardRule } from "../../controller/ports/guard.ts";
import {
  BUILT_IN_RULES,
  decideConnect,
  decideRequest,
  explain,
  type ConnectDecision,
  type RequestFacts,
  type Verdict,
} from "../../controller/policy/matcher.ts";
import { compiled, destination } from "./rules.ts";

const RANK = { Allow: 0, RequireApproval: 1, Deny: 2 };

/** A few hosts, ports and paths, so that rules meet each other. */
const rulePath = fc.constantFrom(
  { type: "Prefix", value: "/a" } as const,
  { type: "Exact", value: "/a/b" } as const,
  { type: "Regex", value: "/a/.*|/c" } as const,
);
const shared = {
  host: fc.constantFrom("a.test", "*.test", "b.a.test", "*.a.test", "203.0.113.5"),
  ports: fc.constantFrom([443], [80, 443], [80]),
  action: fc.constantFrom<GuardRule["action"]>("Allow", "RequireApproval", "Deny"),
};
const reading = fc.record(
  {
    ...shared,
    protocol: fc.constantFrom<GuardRule["protocol"]>("HTTPS", "HTTP"),
    methods: fc.constantFrom(["GET"], ["GET", "POST"]),
    paths: fc.array(rulePath, { minLength: 1, maxLength: 2 }),
    webSocket: fc.boolean(),
  },
  { requiredKeys: ["host", "ports", "action", "protocol"] },
);
const passing = fc.record({ ...shared, protocol: fc.constantFrom<GuardRule["protocol"]>("TLS", "TCP") });
const anyRule: fc.Arbitrary<Partial<GuardRule>> = fc.oneof(
  { weight: 3, arbitrary: reading },
  { weight: 1, arbitrary: passing },
);
const anyRules = fc
  .array(anyRule, { maxLength: 8 })
  .map((rules) => rules.map((changes, index) => ({ name: `r${index}`, ...changes })));
const anyDestination = fc.constantFrom(
  ...["a.test:443", "b.a.test:443", "c.b.a.test:443", "x.test:80", "203.0.113.5:443", "a.test:22"].map(destination),
);
const anyRequest: fc.Arbitrary<RequestFacts> = fc.record({
  destination: anyDestination,
  protocol: fc.constantFrom("HTTPS", "HTTP"),
  method: fc.constantFrom("GET", "POST", "TRACE"),
  path: fc.constantFrom("/", "/a", "/a/b", "/c", undefined),
  webSocket: fc.boolean(),
});

describe("decisions", () => {
  it("are never widened by one more Deny", () => {
    fc.assert(
      fc.property(anyRules, anyRule, anyRequest, (rules, more, request) => {
        const before = compiled(...rules);
        const after = compiled(...rules, { name: "more", ...more, action: "Deny" });

        expect(RANK[decideRequest(after, request).action]).toBeGreaterThanOrEqual(
          RANK[decideRequest(before, request).action],
        );
        expect(rankOf(decideConnect(after, request.destination))).toBeGreaterThanOrEqual(
          rankOf(decideConnect(before, request.destination)),
        );
      }),
      { numRuns: 1000 },
    );
  });

  it("are never narrowed for a request by one more Allow", () => {
    fc.assert(
      fc.property(anyRules, anyRule, anyRequest, (rules, more, request) => {
        const before = decideRequest(compiled(...rules), request);
        const after = decideRequest(compiled(...rules, { name: "more", ...more, action: "Allow" }), request);

        if (before.matched === undefined) expect([before.action, "Allow"]).toContain(after.action);
        else expect(after).toMatchObject({ action: before.action, rule: before.rule });
      }),
      { numRuns: 1000 },
    );
  });

  it("do not depend on the order of the rules, apart from the name among equals", () => {
    const shuffled = anyRules.chain((rules) =>
      fc.tuple(fc.constant(rules), fc.shuffledSubarray(rules, { minLength: rules.length })),
    );

    fc.assert(
      fc.property(shuffled, anyRequest, ([rules, other], request) => {
        const [one, two] = [compiled(...rules), compiled(...other)];

        expect(outcome(decideRequest(two, request))).toEqual(outcome(decideRequest(one, request)));
        const [first, second] = [decideConnect(one, request.destination), decideConnect(two, request.destination)];
        expect(second.protocol).toBe(first.protocol);
        expect(rankOf(second)).toBe(rankOf(first));
      }),
      { numRuns: 1000 },
    );
  });

  it("agree with reading every rule one after the other", () => {
    fc.assert(
      fc.property(anyRules, anyRequest, (rules, request) => {
        fc.pre(request.method !== "TRACE");
        const policy = compiled(...rules);

        const matching = policy.rules
          .filter(({ rule }) => plainlyMatches(rule, request))
          .map(({ rule }) => rule.action);
        const strongest = (["Deny", "RequireApproval", "Allow"] as const).find((action) => matching.includes(action));
        expect(decideRequest(policy, request).action).toBe(strongest ?? "Deny");
      }),
      { numRuns: 2000 },
    );
  });

  it("are explained as they are made, with exactly the deciding rule marked", () => {
    fc.assert(
      fc.property(anyRules, anyRequest, (rules, request) => {
        const policy = compiled(...rules);
        const tunnel = request.protocol === "HTTPS" ? decideConnect(policy, request.destination) : undefined;
        const decided =
          tunnel === undefined || tunnel.protocol === "HTTPS" ? decideRequest(policy, request) : tunnel.verdict;

        const { verdict, steps } = explain(policy, request);
        expect(verdict).toEqual(decided);
        expect(steps.map(({ rule }) => rule)).toEqual(rules.map(({ name }) => name));
        const deciding = steps.filter(({ outcome: part }) => part === "decides").map(({ rule }) => rule);
        expect(deciding).toEqual(verdict.matched === undefined ? [] : [verdict.rule]);
        for (const { why } of steps) expect(why).toMatch(/^[ -~]+$/);
      }),
      { numRuns: 1000 },
    );
  });
});

describe("explain", () => {
  const policy = compiled(
    { name: "other", host: "other.test" },
    { name: "api", paths: [{ type: "Prefix", value: "/v1" }] },
    { name: "no-admin", action: "Deny", paths: [{ type: "Prefix", value: "/v1/admin" }] },
    { name: "pinned", host: "pinned.test", protocol: "TLS" },
  );
  const facts = { method: "GET", path: "/v1/admin", webSocket: false };

  it("says what each rule had to do with a request", () => {
    expect(
      explain(policy, { ...facts, destination: destination("allowed.test:443"), protocol: "HTTPS" }),
    ).toMatchObject({
      verdict: { action: "Deny", rule: "no-admin" },
      steps: [
        { rule: "other", outcome: "no", why: 'rule "other" is for host other.test' },
        { rule: "api", outcome: "matches", why: 'Allow, but "no-admin" decides: Deny' },
        { rule: "no-admin", outcome: "decides", why: 'rule "no-admin" denies allowed.test:443' },
        { rule: "pinned", outcome: "no" },
      ],
    });
  });

  it("says that a tunnel passes unread, whatever the request in it", () => {
    expect(explain(policy, { ...facts, destination: destination("pinned.test:443"), protocol: "HTTPS" })).toMatchObject(
      {
        verdict: { action: "Allow", rule: "pinned" },
      },
    );
  });

  it("says that other bytes than TLS are cut off where TLS is looked into", () => {
    for (const authority of ["pinned.test:443", "allowed.test:443"]) {
      const path = "/v1";
      const told = explain(policy, { ...facts, path, destination: destination(authority), protocol: "TCP" });
      expect(told.verdict).toMatchObject({ action: "Deny", rule: "tls-refused" });
    }
  });
});

/** How little passes a tunnel unread: nothing, where it is refused or its requests are read; else what waits for an approval, and TLS, are less. */
function rankOf(decision: ConnectDecision): number {
  if (decision.protocol === "HTTPS" || decision.verdict.action === "Deny") return RANK.Deny * 10;
  return RANK[decision.verdict.action] * 10 + (decision.protocol === "TLS" ? 1 : 0);
}

function outcome({ action, rule }: Verdict): unknown {
  return Object.hasOwn(BUILT_IN_RULES, rule) ? { action, rule } : { action };
}

/** The rules of matching once more, written as plainly as they can be. */
function plainlyMatches(rule: GuardRule, request: RequestFacts): boolean {
  const { host, port } = request.destination;
  const labels = host.split(".");
  const named =
    rule.host === host ||
    (rule.host.startsWith("*.") && !/^[0-9.]+$/.test(host) && rule.host === ["*", ...labels.slice(1)].join("."));
  if (!named || !rule.ports.includes(port)) return false;
  if (rule.action === "Deny" && rule.methods === undefined && rule.paths === undefined) return true;
  if (rule.protocol !== request.protocol || rule.methods?.includes(request.method) === false) return false;
  if (request.webSocket && !rule.webSocket && rule.action !== "Deny") return false;
  if (rule.paths === undefined) return true;
  const { path: asked } = request;
  if (asked === undefined) return rule.action !== "Allow";
  return rule.paths.some(({ type, value }) => {
    if (type === "Exact") return asked === value;
    if (type === "Prefix") return asked === value || asked.startsWith(`${value}/`);
    return new RegExp(`^(?:${value})$`, "s").test(asked);
  });
}
