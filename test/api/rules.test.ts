import { describe, expect, it } from "vitest";
import { admit } from "../../controller/api/admit.ts";
import { type Field, fieldOf } from "../../controller/api/fields.ts";
import { RESERVED_RULE_NAMES } from "../../controller/api/egress.ts";
import { isGuardEnv } from "../../controller/api/guard-env.ts";
import { KINDS, type KindName } from "../../controller/api/kinds.ts";
import { agent, bottle, causesOf, CUSTOM, template } from "./objects.ts";

interface Case {
  rule: string;
  kind: KindName;
  /** Stored before, for rules about changes. */
  old?: unknown;
  good: unknown;
  bad: unknown;
  field: string;
  /** Words of the message: the value and the remedy. */
  says: string;
}

const turns = [
  { id: "1", prompt: "a" },
  { id: "2", prompt: "b" },
];
const stored = bottle({ turns, templateRefs: [{ name: "t" }], backend: { type: "Docker" } });
const changed = (spec: Record<string, unknown>) => bottle({ ...(stored.spec as object), ...spec });
const inline = { ...bottle(), spec: { agent: CUSTOM } };
const other = { provider: { type: "Custom", custom: { command: ["false"] } } };

const AUTH = { header: "Authorization", secretRef: { name: "keys", key: "token" } };

const CASES: Case[] = [
  {
    rule: "self.type != 'Custom' || has(self.custom)",
    kind: "Agent",
    good: agent(CUSTOM),
    bad: agent({ provider: { type: "Custom" } }),
    field: "spec.provider.custom",
    says: "write custom.command",
  },
  {
    rule: "has(self.agent) != has(self.agentRef)",
    kind: "Bottle",
    good: bottle(),
    bad: bottle({ agent: CUSTOM }),
    field: "spec",
    says: "exactly one",
  },
  {
    rule: "!has(self.docker) || self.type == 'Docker'",
    kind: "Bottle",
    good: bottle({ backend: { type: "Docker", docker: { runtime: "runsc" } } }),
    bad: bottle({ backend: { type: "Bubblewrap", docker: {} } }),
    field: "spec.backend.docker",
    says: "write type: Docker",
  },
  {
    rule: "self == oldSelf",
    kind: "Bottle",
    old: stored,
    good: changed({ turns: turns.toReversed() }),
    bad: changed({ turns: [{ id: "1", prompt: "edited" }, turns[1]] }),
    field: "spec.turns[0].prompt",
    says: "add a turn with a new id",
  },
  {
    rule: "oldSelf.all(o, self.exists(t, t.id == o.id))",
    kind: "Bottle",
    old: stored,
    good: changed({ turns: [...turns, { id: "3", prompt: "c" }] }),
    bad: changed({ turns: [turns[1]] }),
    field: "spec.turns",
    says: '(removed: "1")',
  },
  {
    rule: "!has(oldSelf.turns) || has(self.turns)",
    kind: "Bottle",
    old: stored,
    good: changed({ label: "x" }),
    bad: changed({ turns: undefined }),
    field: "spec.turns",
    says: '(removed: "1", "2")',
  },
  {
    rule: "has(self.agentRef) == has(oldSelf.agentRef) && (!has(self.agentRef) || self.agentRef == oldSelf.agentRef)",
    kind: "Bottle",
    old: stored,
    good: changed({ label: "x" }),
    bad: changed({ agentRef: { name: "other" } }),
    field: "spec.agentRef",
    says: "create another bottle",
  },
  {
    rule: "has(self.agent) == has(oldSelf.agent) && (!has(self.agent) || self.agent == oldSelf.agent)",
    kind: "Bottle",
    old: inline,
    good: { ...inline, spec: { ...inline.spec, label: "x" } },
    bad: { ...inline, spec: { agent: other } },
    field: "spec.agent",
    says: "create another bottle",
  },
  {
    rule: "has(self.templateRefs) == has(oldSelf.templateRefs) && (!has(self.templateRefs) || self.templateRefs == oldSelf.templateRefs)",
    kind: "Bottle",
    old: stored,
    good: changed({ label: "x" }),
    bad: changed({ templateRefs: undefined }),
    field: "spec.templateRefs",
    says: "create another bottle",
  },
  {
    rule: "has(self.backend) == has(oldSelf.backend) && (!has(self.backend) || self.backend == oldSelf.backend)",
    kind: "Bottle",
    old: stored,
    good: changed({ label: "x" }),
    bad: changed({ backend: { type: "Bubblewrap" } }),
    field: "spec.backend",
    says: "export the bottle",
  },
  {
    rule: "self.matches('[1-9]')",
    kind: "Bottle",
    good: bottle({ resources: { cpu: "0.5", memory: "10Mi" } }),
    bad: bottle({ resources: { cpu: "0.000" } }),
    field: "spec.resources.cpu",
    says: '(got "0.000")',
  },
  {
    rule: "!self.name.upperAscii().matches('(^|_)(TOKEN|KEY|SECRET|PASSWORD)$')",
    kind: "BottleTemplate",
    good: template({
      env: [
        { name: "KEYBOARD", value: "us" },
        { name: "MONKEY", value: "" },
      ],
    }),
    bad: template({ env: [{ name: "github_Token", value: "x" }] }),
    field: "spec.env[0].name",
    says: '(got "github_Token")',
  },
  {
    rule: "!self.name.startsWith('BOT_BOTTLE_')",
    kind: "BottleTemplate",
    good: template({ env: [{ name: "BOTTLE", value: "" }] }),
    bad: template({ env: [{ name: "BOT_BOTTLE_PROMPT", value: "" }] }),
    field: "spec.env[0].name",
    says: "choose another name",
  },
  {
    rule: `!(${isGuardEnv("self.name")})`,
    kind: "BottleTemplate",
    good: template({ env: [{ name: "MY_HTTP_PROXY", value: "" }] }),
    bad: template({ env: [{ name: "https_Proxy", value: "" }] }),
    field: "spec.env[0].name",
    says: "is set by the controller",
  },
  {
    rule: "self.type == 'Regex' || self.value.startsWith('/')",
    kind: "BottleTemplate",
    good: egress({
      paths: [
        { type: "Regex", value: ".*" },
        { type: "Exact", value: "/" },
      ],
    }),
    bad: egress({ paths: [{ type: "Prefix", value: "v1" }] }),
    field: "spec.egress.rules[0].paths[0].value",
    says: "must begin with a slash",
  },
  {
    rule: "!has(self.valueTemplate) || self.valueTemplate.contains('{value}') || self.valueTemplate.contains('{base64:')",
    kind: "BottleTemplate",
    good: egress({ inject: [{ ...AUTH, valueTemplate: "Basic {base64:me:}" }] }),
    bad: egress({ inject: [{ ...AUTH, valueTemplate: "Bearer hunter2" }] }),
    field: "spec.egress.rules[0].inject[0].valueTemplate",
    says: "where the secret goes",
  },
  {
    rule: "!(self.header.lowerAscii() in ['host', 'connection', 'content-length', 'transfer-encoding', 'upgrade', 'te', 'trailer', 'proxy-authorization', 'proxy-connection', 'keep-alive'])",
    kind: "BottleTemplate",
    good: egress({ inject: [{ ...AUTH, header: "X-Host" }] }),
    bad: egress({ inject: [{ ...AUTH, header: "Proxy-Authorization" }] }),
    field: "spec.egress.rules[0].inject[0].header",
    says: '(got "Proxy-Authorization")',
  },
  {
    rule: `!has(self.placeholderEnv) || !(self.placeholderEnv.startsWith('BOT_BOTTLE_') || ${isGuardEnv("self.placeholderEnv")})`,
    kind: "BottleTemplate",
    good: egress({ inject: [{ ...AUTH, placeholderEnv: "API_KEY" }] }),
    bad: egress({ inject: [{ ...AUTH, placeholderEnv: "http_proxy" }] }),
    field: "spec.egress.rules[0].inject[0].placeholderEnv",
    says: '(got "http_proxy")',
  },
  {
    rule: `!(self.name in [${RESERVED_RULE_NAMES.map((name) => `'${name}'`).join(", ")}])`,
    kind: "BottleTemplate",
    good: egress({ name: "no-dlp" }),
    bad: egress({ name: "dlp" }),
    field: "spec.egress.rules[0].name",
    says: "choose another name",
  },
  {
    rule: "!has(self.protocol) || self.protocol != 'TCP' || has(self.ports)",
    kind: "BottleTemplate",
    good: egress({ protocol: "TCP", ports: [22] }),
    bad: egress({ protocol: "TCP" }),
    field: "spec.egress.rules[0].ports",
    says: "are required with protocol TCP",
  },
  {
    rule: "(!has(self.protocol) || self.protocol in ['HTTPS', 'HTTP']) || (!has(self.methods) && !has(self.paths) && !has(self.webSocket) && !has(self.uninspected))",
    kind: "BottleTemplate",
    good: egress({ protocol: "HTTP", methods: ["GET"], webSocket: "Allow" }),
    bad: egress({ protocol: "TLS", webSocket: "Deny" }),
    field: "spec.egress.rules[0].protocol",
    says: "need a protocol whose requests are read",
  },
  {
    rule: "!has(self.inject) || ((!has(self.protocol) || self.protocol == 'HTTPS') && self.action != 'Deny')",
    kind: "BottleTemplate",
    good: egress({ action: "RequireApproval", inject: [AUTH] }),
    bad: egress({ action: "Deny", inject: [AUTH] }),
    field: "spec.egress.rules[0].inject",
    says: "verified TLS only",
  },
  {
    rule: "!has(self.inject) || self.inject.all(a, !self.inject.exists(b, a.header != b.header && a.header.lowerAscii() == b.header.lowerAscii()))",
    kind: "BottleTemplate",
    good: egress({ inject: [AUTH, { ...AUTH, header: "X-Authorization" }] }),
    bad: egress({ inject: [AUTH, { ...AUTH, header: "AUTHORIZATION" }] }),
    field: "spec.egress.rules[0].inject",
    says: "write it once",
  },
];

function egress(rule: object): ReturnType<typeof template> {
  return template({ egress: { rules: [{ name: "r", host: "a.example", action: "Allow", ...rule }] } });
}

function rulesOf(field: Field): string[] {
  const own = (field.facts.rules ?? []).map(({ rule }) => rule);
  if (field.type === "list") return [...own, ...rulesOf(field.item)];
  if (field.type !== "object") return own;
  return [...own, ...[...field.properties.values()].flatMap((property) => rulesOf(property.field))];
}

describe("the rules of the schemas", () => {
  it("each one stands in this table", () => {
    const all = new Set(KINDS.flatMap(({ spec }) => rulesOf(fieldOf(spec))));

    expect([...all].sort()).toEqual(CASES.map(({ rule }) => rule).sort());
  });

  it.each(CASES)("$rule: refuses what it is for, and nothing else", ({ kind, old, good, bad, field, says }) => {
    expect(() => admit(kind, good, old as never)).not.toThrow();
    const causes = causesOf(kind, bad, old);
    expect(causes.map((cause) => cause[0])).toEqual([field]);
    expect(causes[0]?.[1]).toContain(says);
  });

  it.each(["TOKEN", "API_KEY", "client_secret", "DB_PASSWORD"])(
    "an env name that ends like a credential is refused: %s",
    (name) => {
      expect(causesOf("BottleTemplate", template({ env: [{ name, value: "x" }] }))).toHaveLength(1);
    },
  );

  it.each(RESERVED_RULE_NAMES)("a rule of a template cannot pass for one of the guard's own: %s", (name) => {
    expect(causesOf("BottleTemplate", egress({ name }))).toHaveLength(1);
  });

  it("a header that is injected twice under one name is reported once", () => {
    expect(causesOf("BottleTemplate", egress({ inject: [AUTH, AUTH] }))).toHaveLength(1);
  });

  it.each(["0.0.0.0", "255.255.255.255", "192.0.2.10", "fd00::1", "*.a.example", "x_y.example"])(
    "a host of a rule may be %s",
    (host) => {
      expect(() => admit("BottleTemplate", egress({ host }), undefined)).not.toThrow();
    },
  );

  it.each(["999.1.1.1", "256.0.0.1", "1.2.3", "010.0.0.1", "1.2.3.04", "1.2.3.4.5", "1.2.3.4 ", "A.example"])(
    "a host of a rule cannot be %s",
    (host) => {
      expect(causesOf("BottleTemplate", egress({ host })).map(([field]) => field)).toEqual([
        "spec.egress.rules[0].host",
      ]);
    },
  );

  it.each(["0.0.0.0/0", "10.0.0.0/8", "192.0.2.1/32", "::/0", "fd00::/8", "2001:db8::1/128"])(
    "a network of a rule may be %s",
    (network) => {
      expect(() => admit("BottleTemplate", egress({ cidrs: [network] }), undefined)).not.toThrow();
    },
  );

  it.each(["10.0.0.0/33", "10.0.0.0/99", "10.0.0.0/08", "999.0.0.0/8", "fd00::/129", "fd00::/999", "10.0.0.0"])(
    "a network of a rule cannot be %s",
    (network) => {
      expect(causesOf("BottleTemplate", egress({ cidrs: [network] })).map(([field]) => field)).toEqual([
        "spec.egress.rules[0].cidrs[0]",
      ]);
    },
  );

  it("a rule about a change is not asked of a new object", () => {
    expect(() => admit("Bottle", stored, undefined)).not.toThrow();
  });

  it("an added backend is refused, because the bottle may run elsewhere already", () => {
    expect(causesOf("Bottle", bottle({ backend: { type: "Docker" } }), bottle())).toHaveLength(1);
  });
});
