import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import { compilePathRegex } from "../../controller/policy/path-regex.ts";

const literal = fc.constantFrom("a", "b", "/", "0", "-", "_", "\\.", "\\/", "\\*", "\\-", "\\\\");
const members = fc.constantFrom("a", "b", "0-9", "a-b", "+--", "\\d", "\\w", "/", ".", "\\]", "\\-", "^", "[");
const characterClass = fc
  .tuple(
    fc.constantFrom("", "^"),
    fc.constantFrom("a", "0", "-", "\\W"),
    fc.array(members, { maxLength: 3 }),
    fc.constantFrom("", "-"),
  )
  .map(([not, first, more, last]) => `[${not}${first}${more.join("")}${last}]`);
const quantifier = fc.constantFrom("*", "+", "?", "*?", "+?", "??", "{0}", "{2}", "{1,}", "{0,2}", "{1,3}?");
const { pattern } = fc.letrec<{ pattern: string; piece: string; group: string }>((tie) => ({
  pattern: fc
    .array(
      fc.array(tie("piece"), { maxLength: 3 }).map((pieces) => pieces.join("")),
      { minLength: 1, maxLength: 2 },
    )
    .map((options) => options.join("|")),
  piece: fc.oneof(
    { depthSize: "small", withCrossShrink: true },
    fc.oneof(literal, fc.constantFrom(".", "\\d", "\\D", "\\w", "\\W"), characterClass),
    fc.constantFrom("^", "$"),
    fc.tuple(fc.oneof(literal, characterClass, tie("group")), quantifier).map((pair) => pair.join("")),
    tie("group"),
  ),
  group: fc.tuple(fc.constantFrom("(", "(?:"), tie("pattern")).map(([open, inner]) => `${open}${inner})`),
}));
const text = fc.string({ unit: fc.constantFrom(..."ab/0-_.*\\]^[+".split("")), maxLength: 6 });

describe("compilePathRegex", () => {
  it.each([
    ["/v1/.*", "/v1/messages", true],
    ["/v1/.*", "/v10", false],
    ["/v1", "/v1/", false],
    ["/v1", "/x/v1", false],
    ["^/v1$", "/v1", true],
    ["/repos/acme/[^/]+/(issues|pulls)/\\d+", "/repos/acme/web/issues/42", true],
    ["/repos/acme/[^/]+/(issues|pulls)/\\d+", "/repos/acme/a/b/issues/42", false],
    ["/a{2,3}", "/aaa", true],
    ["/a{2,3}", "/aaaa", false],
    ["a|b", "ab", false],
    ["", "", true],
    ["", "a", false],
  ])("%j on %j: %s", (source, path, matches) => {
    expect(matcher(source)(path)).toBe(matches);
  });

  it("agrees with JavaScript's own engine on whatever it accepts", () => {
    fc.assert(
      fc.property(pattern, fc.array(text, { minLength: 1, maxLength: 10 }), (source, paths) => {
        const regex = compilePathRegex(source);

        fc.pre(regex.ok);
        const reference = new RegExp(`^(?:${source})$`, "s");
        expect(paths.map((path) => regex.matches(path))).toEqual(paths.map((path) => reference.test(path)));
      }),
      { numRuns: 2000 },
    );
  });

  it("refuses or agrees, and never throws, on any text", () => {
    const soup = fc.string({ unit: fc.constantFrom(..."ab/0-^$.*+?()[]{}|\\,dwD1:=!<".split("")), maxLength: 12 });

    fc.assert(
      fc.property(soup, fc.array(text, { minLength: 1, maxLength: 5 }), (source, paths) => {
        const regex = compilePathRegex(source);

        fc.pre(regex.ok);
        const reference = new RegExp(`^(?:${source})$`, "s");
        expect(paths.map((path) => regex.matches(path))).toEqual(paths.map((path) => reference.test(path)));
      }),
      { numRuns: 3000 },
    );
  });

  it.each([
    ["a backreference", "(a)\\1"],
    ["a lookahead", "(?=a)a"],
    ["a negative lookahead", "(?!a)b"],
    ["a lookbehind", "(?<=a)b"],
    ["a named group", "(?<x>a)"],
    ["a word boundary", "\\ba"],
    ["a class of spaces", "\\s"],
    ["a property", "\\p{L}"],
    ["an escape by number", "\\x61"],
    ["a group that is not closed", "(a"],
    ["a group that is not opened", "a)"],
    ["a class that is not closed", "[a"],
    ["an empty class", "[]"],
    ["a class of all", "[^]"],
    ["a range the wrong way round", "[b-a]"],
    ["a range with a class", "[\\d-z]"],
    ["a hyphen in the middle of a class", "[a-c-e]"],
    ["a repetition of nothing", "*a"],
    ["a repetition of a repetition", "a**"],
    ["a possessive repetition", "a++"],
    ["a repetition of an anchor", "^*"],
    ["a brace", "a{"],
    ["a brace without a number", "a{,2}"],
    ["a closing brace", "a}"],
    ["a closing bracket", "a]"],
    ["a repetition the wrong way round", "a{3,2}"],
    ["more than 100 repetitions", "a{101}"],
    ["a backslash at the end", "a\\"],
    ["a letter that is not ASCII", "ü"],
    ["a line end", "a\n"],
    ["more than 1024 characters", "a".repeat(1025)],
    ["more than 2000 states", "(a{100}){100}"],
    ["more than 2000 states of nothing", "(((){100}){100}){100}"],
    ["1000 open groups", "(".repeat(1000)],
  ])("refuses %s, and says why", (_, source) => {
    expect(compilePathRegex(source)).toEqual({ ok: false, reason: expect.stringMatching(/^[ -~…]{10,140}$/) });
  });

  it("does work that is bounded by the path and its states, where a backtracking engine would not end", () => {
    const path = `${"a".repeat(8191)}!`;

    for (const source of ["(a+)+$", "(a|a)*b", "(a*)*b", "(a|aa)+$", "(.*)*x", "(a?){50}a{50}", "((a{0,9}){0,9})*b"]) {
      const regex = compilePathRegex(source);
      // At most 8192 * 500 steps; every further path through a pattern doubles the steps of an engine that goes back.
      expect(regex.ok && regex.states).toBeLessThan(500);
      expect(regex.ok && regex.matches(path)).toBe(false);
    }
  });
});

function matcher(source: string): (path: string) => boolean {
  const regex = compilePathRegex(source);
  if (!regex.ok) throw new Error(regex.reason);
  return regex.matches;
}
