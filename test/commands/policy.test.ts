import { describe, expect, it } from "vitest";
import { parse } from "yaml";
import { runApply } from "../../controller/commands/apply.ts";
import { EXIT } from "../../controller/commands/exit.ts";
import { guardEnvironment } from "../../controller/commands/guard-environment.ts";
import { runExplain, runShow, type ExplainFlags } from "../../controller/commands/policy.ts";
import { shownEgress } from "../../controller/commands/policy-text.ts";
import { guardPolicyOf } from "../../controller/plan/guard-settings.ts";
import { cliRig, refusal, type CliRig } from "./rig.ts";

const CANARY = "hunter2-canary-7f3a";

const FILE = `
apiVersion: v1
kind: Secret
metadata: { name: keys }
stringData: { token: ${CANARY} }
---
apiVersion: bot-bottle.dev/v1alpha1
kind: BottleTemplate
metadata: { name: net }
spec:
  egress:
    budget: { uploadMiB: 5 }
    rules:
      - name: api
        host: api.example.com
        methods: [GET, POST]
        paths: [{ type: Prefix, value: /v1 }]
        action: Allow
        inject:
          - { header: Authorization, valueTemplate: "Bearer {value}", secretRef: { name: keys, key: token } }
      - { name: no-admin, host: api.example.com, paths: [{ type: Prefix, value: /v1/admin }], action: Deny, reason: ask Jo }
      - { name: live, host: live.example.com, action: Allow, webSocket: Allow }
      - { name: ask, host: "*.example.org", action: RequireApproval }
      - { name: plain, host: plain.example.com, protocol: HTTP, action: Allow }
      - { name: pinned, host: pinned.example.com, protocol: TLS, action: Allow }
      - { name: ssh, host: git.example.com, protocol: TCP, ports: [22], action: Allow }
      - { name: inside, host: 10.1.2.3, action: Allow }
      - { name: opened, host: 10.1.2.4, action: Allow, cidrs: [10.1.2.0/24] }
---
apiVersion: bot-bottle.dev/v1alpha1
kind: Bottle
metadata: { name: b }
spec:
  agent: { provider: { type: Custom, custom: { command: [sh] } } }
  templateRefs: [{ name: net }]
`;

async function withPolicy(rig: CliRig, file = FILE): Promise<void> {
  expect(await runApply(rig.context, { filename: [rig.file("p.yaml", file)] })).toBe(EXIT.ok);
  rig.clear();
}

describe("policy explain", () => {
  it.each<[string, ExplainFlags, string, string]>([
    ["https://api.example.com/v1/x", {}, "Allow", "api"],
    ["api.example.com/v1/x", {}, "Allow", "api"],
    ["HTTPS://API.EXAMPLE.COM:443/v1/x?q=1#part", { method: "post" }, "Allow", "api"],
    ["https://api.example.com/v1/x", { method: "DELETE" }, "Deny", "method-refused"],
    ["https://api.example.com/v10", {}, "Deny", "path-refused"],
    ["https://api.example.com/v1/admin/x", {}, "Deny", "no-admin"],
    ["https://api.example.com/v1/%61dmin", {}, "Deny", "no-admin"],
    ["https://api.example.com/v1/../v1", {}, "Deny", "bad-request"],
    ["https://api.example.com:8443/v1", {}, "Deny", "default-deny"],
    ["https://api.example.com/v1", { websocket: true }, "Deny", "websocket-refused"],
    ["http://api.example.com/v1", {}, "Deny", "default-deny"],
    ["https://live.example.com/", { websocket: true }, "Allow", "live"],
    ["wss://live.example.com", {}, "Allow", "live"],
    ["https://a.example.org/", {}, "RequireApproval", "ask"],
    ["https://a.b.example.org/", {}, "Deny", "default-deny"],
    ["http://plain.example.com", {}, "Allow", "plain"],
    ["https://pinned.example.com/", {}, "Allow", "pinned"],
    ["tls://pinned.example.com", {}, "Allow", "pinned"],
    ["tcp://git.example.com:22", {}, "Allow", "ssh"],
    ["https://10.1.2.3/", {}, "Deny", "address-refused"],
    ["https://10.1.2.4/", {}, "Allow", "opened"],
  ])("%s %j: %s by %s", async (url, flags, action, rule) => {
    await using rig = cliRig();
    await withPolicy(rig);

    const exit = await runExplain(rig.context, { name: "b", url }, { ...flags, output: "json" });

    expect(JSON.parse(rig.out())).toMatchObject({ verdict: { action, rule } });
    expect(exit).toBe(action === "Allow" ? EXIT.ok : EXIT.error);
  });

  it("says the verdict, the rules with their part in it, and which headers are injected, never with what", async () => {
    await using rig = cliRig();
    await withPolicy(rig);

    await runExplain(rig.context, { name: "b", url: "https://api.example.com/v1/%7Ex" }, {});

    const [request, verdict, , injected] = rig.out().split("\n");
    expect(request).toBe("Request:   GET /v1/~x to api.example.com port 443, HTTPS");
    expect(verdict).toBe('Verdict:   allowed by rule "api"');
    expect(injected).toBe("Injected:  authorization");
    expect(rig.out()).toMatch(/\nRULE +OUTCOME +WHY\napi +decides +\S/);
    expect(rig.out()).toMatch(/\nno-admin +no +.*path/);
    expect(rig.out()).not.toContain(CANARY);
    expect(rig.out()).not.toContain("Bearer");
  });

  it.each([
    "ftp://x.example/",
    "tcp://x.example",
    "https://",
    "https://user@x.example/",
    "https://0x7f.1/",
    "https://a b/",
  ])("refuses %s as wrong usage", async (url) => {
    await using rig = cliRig();
    await withPolicy(rig);

    expect((await refusal(runExplain(rig.context, { name: "b", url }, {}))).exitCode).toBe(EXIT.usage);
  });

  it("says that everything is closed while a secret is missing, and works when it is there", async () => {
    await using rig = cliRig();
    await withPolicy(rig, FILE.slice(FILE.indexOf("---")));
    const asked = { name: "b", url: "https://api.example.com/v1" };

    expect(await runExplain(rig.context, asked, {})).toBe(EXIT.error);
    expect(rig.out()).toMatch(/denied by rule "closed"\nReason: +Secret "keys" with key "token"/);
    expect((await refusal(runShow(rig.context, "b", {}))).exitCode).toBe(EXIT.refused);

    await withPolicy(rig);
    expect(await runExplain(rig.context, asked, {})).toBe(EXIT.ok);
  });

  it("of no bottle exits with 3", async () => {
    await using rig = cliRig();

    expect((await refusal(runExplain(rig.context, { name: "x", url: "https://a.example" }, {}))).exitCode).toBe(3);
  });
});

describe("policy show", () => {
  it("prints the merged egress with every default, which applied again means the same", async () => {
    await using rig = cliRig();
    await withPolicy(rig);

    await runShow(rig.context, "b", {});
    const yaml = parse(rig.out()) as { rules: object[] };
    rig.clear();
    await runShow(rig.context, "b", { output: "json" });
    const again = FILE.replaceAll("name: net", "name: again").replace(/ {2}egress:\n[^-]*- name: api[^]*?---/, () => {
      return `  egress: ${JSON.stringify(yaml)}\n---`;
    });

    expect(again).toContain('egress: {"rules":[{"name":"api"');
    expect(JSON.parse(rig.out())).toEqual(yaml);
    expect(yaml).toMatchObject({ dlp: { mode: "Block" }, audit: "Full", budget: { uploadMiB: 5 } });
    expect(yaml.rules[0]).toMatchObject({ ports: [443], protocol: "HTTPS", webSocket: "Deny", uninspected: "Refuse" });
    expect(yaml.rules[5]).toEqual({
      name: "pinned",
      host: "pinned.example.com",
      ports: [443],
      protocol: "TLS",
      action: "Allow",
      cidrs: [],
    });
    expect(rig.out()).not.toContain(CANARY);
    await withPolicy(rig, again.replace("metadata: { name: b }", "metadata: { name: c }"));
    await runShow(rig.context, "c", { output: "json" });
    expect(JSON.parse(rig.out())).toEqual(yaml);
  });

  it("of a bottle without egress has no rule and the defaults", async () => {
    await using rig = cliRig();
    await rig.create();

    await runShow(rig.context, "b", { output: "json" });

    expect(JSON.parse(rig.out())).toEqual({ rules: [], dlp: { mode: "Block" }, audit: "Full" });
    expect(guardPolicyOf({ ...shownEgress(undefined), rules: [] })).toEqual(guardPolicyOf(undefined));
  });
});

describe("the environment of guards", () => {
  it("names servers and authorities, or nothing", () => {
    expect(guardEnvironment({})).toEqual({});
    expect(guardEnvironment({ BOT_BOTTLE_GUARD_DNS: "", BOT_BOTTLE_GUARD_CA: "" })).toEqual({});
    expect(
      guardEnvironment({
        BOT_BOTTLE_GUARD_DNS: "10.0.0.53, 10.0.0.54:5353,fd00::53,[fd00::54]:53",
        BOT_BOTTLE_GUARD_CA: "/etc/ca.pem",
      }),
    ).toEqual({
      guardDns: ["10.0.0.53", "10.0.0.54:5353", "fd00::53", "[fd00::54]:53"],
      guardUpstreamCa: "/etc/ca.pem",
    });
  });

  it.each(["dns.example", "10.0.0", "10.0.0.53:0", "10.0.0.53:70000", "[10.0.0.53]:53", "--dns", "1.1.1.1,".repeat(5)])(
    "refuses %j",
    (servers) => {
      expect(() => guardEnvironment({ BOT_BOTTLE_GUARD_DNS: servers })).toThrow(/^BOT_BOTTLE_GUARD_DNS h/);
    },
  );
});
