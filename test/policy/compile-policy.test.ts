import { describe, expect, it } from "vitest";
import type { GuardRule } from "../../controller/ports/guard.ts";
import { compilePolicy } from "../../controller/policy/matcher.ts";
import { policyOf, rule } from "./rules.ts";

const INJECT = { header: "authorization", valueTemplate: "Bearer {value}", secret: "github/token" };

describe("compilePolicy", () => {
  it.each([
    ["a name", { host: "allowed.test" }],
    ["a wildcard", { host: "*.allowed.test" }],
    ["an IPv4 address", { host: "203.0.113.5" }],
    ["an IPv6 address", { host: "2001:db8::5" }],
    [
      "paths",
      {
        paths: [
          { type: "Prefix", value: "/v1" },
          { type: "Regex", value: "/a/[^/]+" },
        ],
      },
    ],
    ["an injection", { inject: [INJECT] }],
    ["base64", { inject: [{ ...INJECT, valueTemplate: "Basic {base64:bot:}" }] }],
    ["networks", { cidrs: ["10.0.0.0/8", "fd00::/8"] }],
    ["TCP", { protocol: "TCP", ports: [22] }],
  ] as [string, Partial<GuardRule>][])("takes a rule with %s", (_, changes) => {
    expect(compilePolicy(policyOf([rule(changes)]))).toMatchObject({ ok: true });
  });

  it.each([
    [{ host: "ALLOWED.test" }, 'host "ALLOWED.test"', 'write "allowed.test"'],
    [{ host: "allowed.test." }, 'host "allowed.test."', 'write "allowed.test"'],
    [{ host: "*.ALLOWED.test" }, 'host "*.ALLOWED.test"', 'write "*.allowed.test"'],
    [{ host: "2001:db8:0:0::5" }, 'host "2001:db8:0:0::5"', 'write "2001:db8::5"'],
    [{ host: "bücher.test" }, 'host "b', 'write "xn--bcher-kva.test"'],
    [{ host: "010.0.0.1" }, 'host "010.0.0.1"', "write four decimal numbers"],
    [{ host: "999.1.1.1" }, 'host "999.1.1.1"', "write four decimal numbers"],
    [{ host: "*.203.0.113.5" }, 'host "*.203.0.113.5"', "write the address alone"],
    [{ host: "*" }, 'host "*"', "U+002A"],
    [{ host: "a.*.test" }, 'host "a.*.test"', "U+002A"],
    [{ host: "allowed.test:443" }, 'host "allowed.test:443"', "U+003A"],
    [{ host: "" }, 'host ""', "empty"],
    [{ ports: [] }, "ports", "name a port"],
    [{ ports: [0] }, "ports holds 0", "from 1 to 65535"],
    [{ cidrs: ["10.0.0.0/33"] }, 'cidrs holds "10.0.0.0/33"', "such as"],
    [{ cidrs: ["10.0.0.5/8"] }, 'cidrs holds "10.0.0.5/8"', "no bits set behind its length"],
    [{ methods: [] }, "methods", "leave methods out"],
    [{ methods: ["get"] }, 'methods holds "get"', "upper case"],
    [{ methods: ["TRACE"] }, 'methods holds "TRACE"', "such as GET"],
    [{ paths: [] }, "paths", "leave paths out"],
    [{ paths: [{ type: "Regex", value: "(a" }] }, 'paths[0].value "(a"', "write \\( for the character"],
    [{ paths: [{ type: "Exact", value: "v1" }] }, 'paths[0].value "v1"', "must begin with a slash"],
    [{ paths: [{ type: "Prefix", value: "/a/../b" }] }, 'paths[0].value "/a/../b"', "dot segment"],
    [{ paths: [{ type: "Exact", value: "/a?b" }] }, 'paths[0].value "/a?b"', "remove it"],
    [{ paths: [{ type: "Exact", value: "/%41" }] }, 'paths[0].value "/%41"', 'write "/A"'],
    [{ protocol: "TLS", methods: ["GET"] }, "methods needs", "write HTTPS or HTTP"],
    [{ protocol: "TCP", paths: [{ type: "Exact", value: "/" }] }, "paths needs", "write HTTPS or HTTP"],
    [{ protocol: "TLS", webSocket: true }, "webSocket needs", "write HTTPS or HTTP"],
    [{ protocol: "HTTP", inject: [INJECT] }, "inject[0] needs protocol HTTPS", "verified TLS"],
    [{ action: "Deny", inject: [INJECT] }, "inject[0]", "remove it from a Deny"],
    [{ inject: [INJECT, INJECT] }, 'inject[1].header "authorization"', "one value for each header"],
    [{ inject: [{ ...INJECT, header: "Authorization" }] }, 'inject[0].header "Authorization"', "lower case"],
    [{ inject: [{ ...INJECT, valueTemplate: "Bearer value" }] }, "inject[0].valueTemplate", "write {value}"],
    [{ inject: [{ ...INJECT, valueTemplate: "{base64:" }] }, "inject[0].valueTemplate", "write {value}"],
  ] as [Partial<GuardRule>, string, string][])(
    "refuses %j and names rule, field and remedy",
    (changes, field, remedy) => {
      const result = compilePolicy(policyOf([rule({ name: "good" }), rule({ name: "bad", ...changes })]));

      const message = result.ok ? "" : result.message;
      expect(message).toContain('rule "bad"');
      expect(message).toContain(field);
      expect(message).toContain(remedy);
      expect(message).toMatch(/^[ -~…]+$/);
    },
  );

  it("refuses a name that is given twice, because a refusal names one rule", () => {
    expect(compilePolicy(policyOf([rule(), rule()]))).toEqual({
      ok: false,
      message: 'egress rule "rule": name is given twice: give each rule a name of its own',
    });
  });

  it("does not show a template of a credential, which may hold one", () => {
    const inject = [{ ...INJECT, valueTemplate: "Bearer canary" }];

    expect(JSON.stringify(compilePolicy(policyOf([rule({ inject })])))).not.toContain("canary");
  });
});
