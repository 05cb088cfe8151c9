import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import { BUILT_IN_RULES } from "../../controller/policy/matcher.ts";
import { refusalBody } from "../../controller/policy/refusal.ts";
import { destination } from "./rules.ts";

const REQUEST = { rule: "default-deny", method: "GET", path: "/v1", reason: "no egress rule allows it" };

describe("refusalBody", () => {
  it("says what was refused, why, and how to ask for it", () => {
    expect(refusalBody({ ...REQUEST, destination: destination("evil.test:443") })).toEqual({
      rule: "default-deny",
      host: "evil.test",
      port: 443,
      method: "GET",
      path: "/v1",
      reason: "no egress rule allows it",
      howToAsk: expect.stringContaining("add an egress rule"),
    });
  });

  it("says that a host could not be read", () => {
    expect(refusalBody({ ...REQUEST, rule: "bad-request" })).toMatchObject({ host: "", port: null });
  });

  it("names the ticket, and how to go on with it", () => {
    expect(refusalBody({ ...REQUEST, rule: "ask", ticket: "t-1" })).toMatchObject({
      ticket: "t-1",
      howToAsk: expect.stringContaining("t-1"),
    });
  });

  it("has something to say for every built-in rule, and for names that every object has", () => {
    for (const rule of [...Object.keys(BUILT_IN_RULES), "constructor", "__proto__"]) {
      expect(refusalBody({ ...REQUEST, rule }).howToAsk).toMatch(/^[ -~]{20,}$/);
    }
  });

  it("speaks of the rule of a template that says no, not of adding one, which could not win", () => {
    expect(refusalBody({ ...REQUEST, rule: "uploads" }).howToAsk).toContain("change the egress rule");
  });

  it("says something else where the situation is another one than the rule alone tells", () => {
    const request = { ...REQUEST, rule: "uninspectable" };

    expect(refusalBody(request).howToAsk).toContain("send the body");
    expect(refusalBody({ ...request, remedy: "AskForReadable" }).howToAsk).toContain("the host compressed its answer");
  });

  it("leaves out the query, which may hold a secret", () => {
    expect(refusalBody({ ...REQUEST, path: "/v1?key=canary" }).path).toBe("/v1");
  });

  it("is one line in every field, of a bounded length", () => {
    const text = fc.oneof(
      fc.string({ unit: "binary" }),
      fc.constantFrom("a\r\nb", "\u202e", "x".repeat(5000), "\u001b[31m"),
    );

    fc.assert(
      fc.property(text, text, text, text, (method, path, reason, ticket) => {
        const body = refusalBody({ ...REQUEST, method, path, reason, ticket });

        for (const field of Object.values(body))
          expect(String(field)).toMatch(/^[^\p{Cc}\p{Zl}\p{Zp}\u202e]{0,1100}$/u);
      }),
    );
  });
});
