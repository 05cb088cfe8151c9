import { describe, expect, it } from "vitest";
import type { Egress } from "../../controller/api/egress.ts";
import { closedSettings, guardPolicyOf, guardSettings, placeholderOf } from "../../controller/plan/guard-settings.ts";
import { mergeEgress } from "../../controller/plan/merge-egress.ts";
import { resolveEgress } from "../../controller/plan/resolve-egress.ts";

type Rule = NonNullable<Egress["rules"]>[number];

const api: Rule = { name: "api", host: "api.example.com", action: "Allow" };
const git: Rule = { name: "git", host: "git.example.com", action: "Allow" };

function injecting(key = "token", more: Partial<NonNullable<Rule["inject"]>[number]> = {}): Rule {
  return { ...api, inject: [{ header: "Authorization", secretRef: { name: "api", key }, ...more }] };
}

function merged(...layers: (Egress | undefined)[]) {
  return layers.reduce(mergeEgress, undefined as ReturnType<typeof mergeEgress>);
}

function resolve(rules: Rule[], secrets: Record<string, string[]> = {}, version = "7") {
  return resolveEgress(
    { rules },
    {
      namespace: "team",
      secret(name) {
        const keys = Object.hasOwn(secrets, name) ? secrets[name] : undefined;
        return keys && { keys: new Set(keys), version };
      },
    },
  );
}

function settings(rules: Rule[], options: { version?: string; uid?: string; token?: string } = {}) {
  const found = resolve(rules, { api: ["token", "other"] }, options.version);
  if (!found.ok) throw new Error(found.message);
  return guardSettings({ uid: options.uid ?? "uid-1", token: options.token ?? "t" }, found.egress);
}

describe("egress of several templates", () => {
  it("is absent where none says anything", () => {
    expect(merged(undefined, undefined)).toBeUndefined();
  });

  it("has each rule once: a later one replaces that of its name as a whole, where that stood", () => {
    const changed: Rule = { name: "api", host: "other.example.com", action: "Deny" };

    expect(merged({ rules: [{ ...api, methods: ["GET"] }, git] }, { rules: [changed] })?.rules).toEqual([changed, git]);
  });

  it("is merged field by field apart from its rules", () => {
    const low: Egress = { dlp: { mode: "Audit" }, audit: "Blocks", budget: { uploadMiB: 1, uploadMiBPerHost: 2 } };

    expect(merged(low, { rules: [api], budget: { uploadMiB: 9 } })).toEqual({
      ...low,
      rules: [api],
      budget: { uploadMiB: 9, uploadMiBPerHost: 2 },
    });
    expect(merged(low, { dlp: { mode: "Off" }, audit: "Full" })).toMatchObject({ dlp: { mode: "Off" }, audit: "Full" });
  });

  it("leaves what it was merged from as it was", () => {
    const base = merged({ rules: [api], budget: { uploadMiB: 1 } });
    const before = structuredClone(base);

    mergeEgress(base, { rules: [git], budget: { uploadMiB: 2 } });

    expect(base).toEqual(before);
  });
});

describe("the policy of a guard", () => {
  it("without egress lets nothing through, scans and notes everything", () => {
    expect(guardPolicyOf(undefined)).toEqual({ rules: [], dlp: "Block", audit: "Full", budget: {} });
  });

  it("spells out what a rule leaves open, to the side of less", () => {
    expect(guardPolicyOf({ rules: [api] }).rules).toEqual([
      {
        name: "api",
        host: "api.example.com",
        ports: [443],
        protocol: "HTTPS",
        action: "Allow",
        cidrs: [],
        webSocket: false,
        uninspected: "Refuse",
        inject: [],
      },
    ]);
  });

  it.each([
    ["HTTPS", 443],
    ["HTTP", 80],
    ["TLS", 443],
  ] as const)("%s has port %i of its own", (protocol, port) => {
    expect(guardPolicyOf({ rules: [{ ...api, protocol }] }).rules[0]?.ports).toEqual([port]);
  });

  it("keeps what a rule says, with headers in lower case and amounts in bytes", () => {
    const rule: Rule = {
      ...api,
      ports: [8443],
      methods: ["GET", "POST"],
      paths: [{ type: "Prefix", value: "/v1" }],
      reason: "ask the team",
      cidrs: ["10.0.0.0/8"],
      webSocket: "Allow",
      uninspected: "Allow",
      inject: [{ header: "X-Api-Key", valueTemplate: "key {value}", secretRef: { name: "api", key: "token" } }],
    };
    const egress = { rules: [rule], dlp: { mode: "Audit" }, audit: "Blocks", budget: { uploadMiB: 2 } } as const;

    expect(guardPolicyOf({ ...egress, rules: [...egress.rules] })).toEqual({
      rules: [
        {
          ...rule,
          protocol: "HTTPS",
          webSocket: true,
          inject: [{ header: "x-api-key", valueTemplate: "key {value}", secret: "api/token" }],
        },
      ],
      dlp: "Audit",
      audit: "Blocks",
      budget: { uploadBytes: 2 * 1024 * 1024 },
    });
  });
});

describe("resolving egress", () => {
  it("finds the version of each secret that a rule injects", () => {
    expect(resolve([injecting()], { api: ["token"] })).toMatchObject({
      ok: true,
      egress: { secrets: { "api/token": "7" }, placeholderEnv: {} },
    });
  });

  it("names the Secret, its key, the rule and the namespace of one that does not exist", () => {
    const found = resolve([injecting()]);

    expect(found).toMatchObject({ ok: false, reason: "SecretNotFound" });
    for (const word of ['"api"', '"token"', '"team"', "create it"])
      expect(found).toHaveProperty("message", expect.stringContaining(word));
  });

  it("tells a missing key from a missing Secret", () => {
    const found = resolve([injecting("missing")], { api: ["token"] });

    expect(found).toMatchObject({ ok: false, reason: "SecretNotFound" });
    expect(found).toHaveProperty("message", expect.stringContaining('Secret "api" has no key "missing"'));
  });

  it("refuses what the guard would refuse, in its words", () => {
    const found = resolve([{ ...api, paths: [{ type: "Regex", value: "(" }] }]);

    expect(found).toMatchObject({ ok: false, reason: "EgressPolicyInvalid" });
    expect(found).toHaveProperty("message", expect.stringContaining('"api"'));
  });

  it("refuses one variable for two secrets, because an agent can hold only one of them", () => {
    const rules = [
      injecting("token", { placeholderEnv: "API_KEY" }),
      { ...injecting("other", { placeholderEnv: "API_KEY" }), name: "second" },
    ];

    expect(resolve(rules, { api: ["token", "other"] })).toMatchObject({ ok: false, reason: "EgressPolicyInvalid" });
  });

  it("one variable may stand in two rules for the same secret", () => {
    const rule = injecting("token", { placeholderEnv: "constructor" });

    expect(resolve([rule, { ...rule, name: "second" }], { api: ["token"] })).toMatchObject({
      ok: true,
      egress: { placeholderEnv: { constructor: "api/token" } },
    });
  });
});

describe("a placeholder", () => {
  it("is the same for one bottle and secret at all times, and another one for every other", () => {
    const all = [placeholderOf("a", "s/k"), placeholderOf("b", "s/k"), placeholderOf("a", "s/other")];

    expect(new Set(all).size).toBe(3);
    expect(placeholderOf("a", "s/k")).toBe(all[0]);
    for (const one of all) expect(one).toMatch(/^bbp_[0-9a-z]{40}$/);
  });
});

describe("the settings of a guard", () => {
  it("name secrets and hold placeholders, never a value", () => {
    const made = settings([injecting("token", { placeholderEnv: "API_KEY" })]);

    expect(made).toEqual({
      digest: expect.stringMatching(/^sha256:[0-9a-f]{64}$/),
      token: "t",
      policy: guardPolicyOf({ rules: [injecting()] }),
      placeholders: { "api/token": placeholderOf("uid-1", "api/token") },
      secretRefs: ["api/token"],
    });
  });

  it.each([
    ["a rule", settings([{ ...injecting(), action: "RequireApproval" }])],
    ["the order of rules", settings([git, injecting()])],
    ["the version of a secret", settings([injecting(), git], { version: "8" })],
    ["the token", settings([injecting(), git], { token: "another" })],
    ["a placeholder", settings([injecting("token", { placeholderEnv: "API_KEY" }), git])],
  ])("have another digest with %s, so that the guard is told", (_what, changed) => {
    expect(changed.digest).not.toBe(settings([injecting(), git]).digest);
  });

  it("have one digest for one state, whoever computes it", () => {
    expect(settings([injecting(), git]).digest).toBe(settings([injecting(), git]).digest);
  });

  it("of a closed guard let nothing through, need no secret, and say why", () => {
    const closed = closedSettings("t", { reason: "SecretNotFound", message: "create it" });

    expect(closed).toMatchObject({
      token: "t",
      policy: { rules: [] },
      secretRefs: [],
      closed: { reason: "SecretNotFound", message: "create it" },
    });
    expect(closed.digest).not.toBe(closedSettings("t", { reason: "SecretNotFound", message: "mend it" }).digest);
    expect(closed.digest).not.toBe(settings([]).digest);
  });
});
