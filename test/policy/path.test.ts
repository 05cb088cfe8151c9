import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import { normalizePath } from "../../controller/policy/path.ts";

/** Targets made of what is dangerous in one. */
const target = fc
  .array(
    fc.oneof(
      {
        weight: 4,
        arbitrary: fc.constantFrom("/", ".", "..", "a", "B", "%41", "%7e", "%2D", "%c3%bc", "%25", "~", ":@"),
      },
      {
        weight: 2,
        arbitrary: fc.constantFrom(
          "%2e",
          "%2E",
          "%2f",
          "%5C",
          "%00",
          "%25",
          "2f",
          "2e",
          "%",
          "%3b",
          ";",
          "?",
          "\\",
          "//",
        ),
      },
      { weight: 1, arbitrary: fc.string({ unit: "binary", maxLength: 2 }) },
    ),
    { maxLength: 8 },
  )
  .map((pieces) => `/${pieces.join("")}`);

describe("normalizePath", () => {
  it.each([
    ["/", "/", ""],
    ["/v1/messages?beta=true", "/v1/messages", "?beta=true"],
    ["/a/", "/a/", ""],
    ["/%41%7e%2D%5f", "/A~-_", ""],
    ["/%c3%bc", "/%C3%BC", ""],
    ["/a%20b", "/a%20b", ""],
    ["/a%3fb", "/a%3Fb", ""],
    ["/.well-known/...", "/.well-known/...", ""],
    ["/a:@!$&'()*+,=b", "/a:@!$&'()*+,=b", ""],
    ["/%252e%252e", "/%252e%252e", ""],
    ["/a?b=../c;%2f//", "/a", "?b=../c;%2f//"],
  ])("brings %s into one spelling", (text, path, query) => {
    expect(normalizePath(text)).toEqual({ ok: true, path, query });
  });

  it.each([
    ["an encoded slash", "/@scope%2fname"],
    ["an encoded backslash", "/a%5Cb"],
    ["an encoded dot", "/a%2etxt"],
    ["an empty segment", "/a//b"],
    ["an empty segment at the beginning", "//evil.test/"],
    ["a parameter", "/a;x/b"],
    ["an overlong slash", "/a%c0%afb"],
    ["bytes that are not UTF-8", "/%fc"],
  ])("finds %s ambiguous", (_, text) => {
    expect(normalizePath(text)).toEqual({ ok: false, ambiguous: true, reason: expect.stringMatching(/^[ -~]+$/) });
  });

  it.each([
    ["a dot segment", "/repos/x/issues/1/../../y"],
    ["a dot segment at the end", "/a/.."],
    ["a single dot", "/./a"],
    ["an encoded dot segment", "/api/%2e%2e/x"],
    ["a half encoded dot segment", "/api/.%2E/x"],
    ["a dot segment behind an encoded slash", "/a%2f..%2fb"],
    ["a dot segment behind an encoded backslash", "/a%5c.."],
    ["a dot segment with a parameter", "/a/..;x=1/b"],
    ["a dot segment with an encoded parameter", "/a/..%3bx/b"],
    ["a backslash", "/a\\..\\b"],
    ["a NUL", "/a\0"],
    ["an encoded NUL", "/a%00"],
    ["an encoded line end", "/a%0d%0aHost:evil.test"],
    ["an encoded delete", "/a%7f"],
    ["a space", "/a b"],
    ["a line end in the query", "/a?b\r\n"],
    ["a letter that is not ASCII", "/ü"],
    ["a bare percent sign", "/100%"],
    ["a percent sign with one digit", "/%4"],
    ["a fragment", "/a#b"],
    ["the asterisk form", "*"],
    ["the absolute form", "http://evil.test/"],
    ["nothing", ""],
    ["more than 8 KiB", `/${"a".repeat(8192)}`],
  ])("refuses %s", (_, text) => {
    expect(normalizePath(text)).toEqual({ ok: false, ambiguous: false, reason: expect.stringMatching(/^[ -~]+$/) });
  });

  it("changes nothing the second time, and never yields a dot segment or a hidden separator", () => {
    fc.assert(
      fc.property(target, (text) => {
        const normal = normalizePath(text);

        fc.pre(normal.ok);
        expect(normalizePath(normal.path + normal.query)).toEqual(normal);
        expect(normal.path).toMatch(/^\/[!-~]*$/);
        expect(normal.path.split("/")).not.toContain(".");
        expect(normal.path.split("/")).not.toContain("..");
        expect(normal.path).not.toMatch(/%2f|%5c|%2e|%00|\\|;|\/\/|[?#]/i);
      }),
      { numRuns: 3000 },
    );
  });

  it("means the path that a URL means", () => {
    fc.assert(
      fc.property(target, (text) => {
        const normal = normalizePath(text);

        fc.pre(normal.ok);
        const { pathname } = new URL(`http://allowed.test${normal.path}`);
        expect(decodeURIComponent(pathname)).toBe(decodeURIComponent(normal.path));
        expect(decodeURIComponent(normal.path)).toBe(decodeURIComponent(text.split("?", 1)[0] ?? ""));
      }),
      { numRuns: 1000 },
    );
  });
});
