import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import { egress } from "../../controller/api/egress.ts";
import {
  authorityOf,
  canonicalHost,
  parseAbsolute,
  parseAuthority,
  parseHost,
  sameAuthority,
  type Parsed,
} from "../../controller/policy/destination.ts";

const CONTROL = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/u;

/** Hosts that almost are names, addresses or tricks. */
const piece = fc.oneof(
  fc.constantFrom(
    "allowed",
    "test",
    "xn--bcher-kva",
    "xn--a",
    "127",
    "0x7f",
    "010",
    "1",
    "2130706433",
    "-",
    "_",
    "",
    "a_b",
  ),
  fc.constantFrom("ALLOWED", "bücher", "ｅｖｉｌ", "１２７", "ß", "\u00ad", "\u3002", "K", "\ud800", "аllowed"),
  fc.string({ unit: "binary", maxLength: 4 }),
  fc.string({ unit: "binary-ascii", maxLength: 4 }),
);
const host = fc.oneof(
  fc.array(piece, { minLength: 1, maxLength: 5 }).map((pieces) => pieces.join(".")),
  fc.domain(),
  fc.ipV4(),
  fc.ipV4Extended(),
  fc.ipV6().map((text) => `[${text}]`),
  fc.string({ unit: "binary" }),
);
const port = fc.oneof(
  fc.integer({ min: -1, max: 70_000 }).map(String),
  fc.constantFrom("", "0443", "+1", " 80", "1e3"),
);
const authority = fc.oneof(
  fc.tuple(host, port).map(([name, number]) => `${name}:${number}`),
  fc.tuple(host, host, port).map(([user, name, number]) => `${user}@${name}:${number}`),
  host,
);

describe("parseAuthority", () => {
  it.each([
    ["allowed.test:443", "allowed.test", 443],
    ["ALLOWED.Test:443", "allowed.test", 443],
    ["allowed.test.:443", "allowed.test", 443],
    ["evilallowed.test:443", "evilallowed.test", 443],
    ["allowed.test.evil.test:443", "allowed.test.evil.test", 443],
    ["bücher.test:443", "xn--bcher-kva.test", 443],
    ["аllowed.test:443", "xn--llowed-2nf.test", 443],
    ["xn--bcher-kva.test:443", "xn--bcher-kva.test", 443],
    ["allowed\u3002test:443", "allowed.test", 443],
    ["a_b.allowed.test:1", "a_b.allowed.test", 1],
    ["localhost:65535", "localhost", 65_535],
    ["203.0.113.5:443", "203.0.113.5", 443],
    ["[2001:DB8:0::5]:443", "2001:db8::5", 443],
    ["[::ffff:1.2.3.4]:443", "::ffff:102:304", 443],
  ])("reads %s", (text, name, number) => {
    expect(parseAuthority(text)).toMatchObject({ ok: true, destination: { host: name, port: number } });
  });

  it.each([
    ["a NUL in the host", "evil.test\0.allowed.test:443"],
    ["a tab", "evil.test\t.allowed.test:443"],
    ["a line end", "allowed.test\r\n:443"],
    ["a line end behind the port", "allowed.test:443\n"],
    ["a space", "evil.test .allowed.test:443"],
    ["a leading space", " allowed.test:443"],
    ["a backslash", "evil.test\\.allowed.test:443"],
    ["a percent sign", "allowed%2etest:443"],
    ["a slash", "evil.test/.allowed.test:443"],
    ["a query", "evil.test?.allowed.test:443"],
    ["a fragment", "evil.test#.allowed.test:443"],
    ["a user name", "user@evil.test:443"],
    ["a user name with a colon", "allowed.test:443@evil.test:443"],
    ["an empty host", ":443"],
    ["a dot", ".:443"],
    ["an empty label", "a..test:443"],
    ["two trailing dots", "allowed.test..:443"],
    ["a leading dot", ".allowed.test:443"],
    ["a label of 64", `${"a".repeat(64)}.test:443`],
    ["a name of 255", `${"a.".repeat(127)}a:443`],
    ["a label that begins with -", "-a.test:443"],
    ["a label that ends with -", "a-.test:443"],
    ["a last label with _", "allowed.te_st:443"],
    ["punycode of nothing", "xn--.test:443"],
    ["punycode that is not canonical", "xn--a.test:443"],
    ["a decimal address", "2130706433:443"],
    ["a hexadecimal address", "0x7f000001:443"],
    ["a short hexadecimal address", "0x7f.1:443"],
    ["a short address", "1.1:443"],
    ["an octal address", "010.0.0.1:443"],
    ["an address of five numbers", "1.2.3.4.5:443"],
    ["an address with a trailing dot", "127.0.0.1.:443"],
    ["an address in wide digits", "１２７.0.0.1:443"],
    ["an address with wide dots", "127。0。0。1:443"],
    ["a last label of digits", "allowed.123:443"],
    ["a last label in hexadecimal", "allowed.0x7f:443"],
    ["an IPv6 zone", "[fe80::1%eth0]:443"],
    ["an encoded IPv6 zone", "[fe80::1%25eth0]:443"],
    ["IPv6 without brackets", "::1:443"],
    ["an open bracket", "[::1:443"],
    ["IPv4 in brackets", "[127.0.0.1]:443"],
    ["a name in brackets", "[allowed.test]:443"],
    ["text behind the bracket", "[::1]evil:443"],
    ["no port", "allowed.test"],
    ["an empty port", "allowed.test:"],
    ["port 0", "allowed.test:0"],
    ["port 65536", "allowed.test:65536"],
    ["a leading zero", "allowed.test:0443"],
    ["a sign", "allowed.test:+443"],
    ["a space before the port", "allowed.test: 443"],
    ["two ports", "allowed.test:443:443"],
    ["a port in wide digits", "allowed.test:４４３"],
    ["a path", "allowed.test:443/x"],
    ["a soft hyphen", "al\u00adlowed.test:443"],
    ["a zero-width joiner", "al\u200dlowed.test:443"],
    ["a variation selector", "allowed\ufe0f.test:443"],
    ["a no-break space", "allowed.test\u00a0:443"],
    ["half of a character", "allowed\ud800.test:443"],
    ["a megabyte", "a".repeat(1_000_000)],
  ])("refuses %s", (_, text) => {
    expect(parseAuthority(text)).toEqual({ ok: false, reason: expect.stringMatching(/^[ -~]{5,120}$/) });
  });

  it.each([
    ["user@evil.test:443", "user name"],
    ["evil.test\0.allowed.test:443", "U+0000"],
    ["allowed.0x7f:443", "ends in a number"],
    ["allowed.test", "port is missing"],
  ])("says what is wrong with %j", (text, reason) => {
    expect(parseAuthority(text)).toEqual({ ok: false, reason: expect.stringContaining(reason) });
  });

  it("never throws, and says why in one line without what was sent", () => {
    fc.assert(
      fc.property(authority, (text) => {
        const parsed = parseAuthority(text);

        expect(parsed.ok || !CONTROL.test(parsed.reason)).toBe(true);
      }),
      { numRuns: 2000 },
    );
  });

  it("reads its own spelling as the same destination, so that what is decided is what is dialled", () => {
    fc.assert(
      fc.property(authority, (text) => {
        const parsed = parseAuthority(text);

        fc.pre(parsed.ok);
        expect(parseAuthority(printed(parsed))).toEqual(parsed);
        expect(parseHost(printed(parsed), 1)).toEqual(parsed);
      }),
      { numRuns: 2000 },
    );
  });

  it("accepts nothing that a URL would lead elsewhere", () => {
    fc.assert(
      fc.property(authority, (text) => {
        const parsed = parseAuthority(text);

        fc.pre(parsed.ok);
        const [asked, dialled] = [new URL(`http://${text}/`), new URL(`http://${printed(parsed)}/`)];
        expect(dialled.hostname).toBe(asked.hostname.replace(/\.$/, ""));
        expect(dialled.port).toBe(asked.port);
        expect(asked.username).toBe("");
        expect(parsed.destination.address !== undefined).toBe(/^\[|^[0-9.]+$/.test(asked.hostname));
      }),
      { numRuns: 2000 },
    );
  });
});

describe("parseHost", () => {
  it("takes the port it is given where none is written", () => {
    expect(parseHost("allowed.test", 443)).toEqual({ ok: true, destination: { host: "allowed.test", port: 443 } });
    expect(parseHost("allowed.test:8443", 443)).toMatchObject({ destination: { port: 8443 } });
    expect(parseHost("[::1]", 443)).toMatchObject({ destination: { host: "::1", port: 443 } });
  });

  it("refuses an empty port, because it could mean any", () => {
    expect(parseHost("allowed.test:", 443).ok).toBe(false);
  });
});

describe("parseAbsolute", () => {
  it.each([
    ["http://evil.test/", "evil.test", 80, "/"],
    ["http://evil.test", "evil.test", 80, "/"],
    ["HTTP://EVIL.test:8080/a?b", "evil.test", 8080, "/a?b"],
    ["http://evil.test?b", "evil.test", 80, "/?b"],
    ["http://[::1]:81/a", "::1", 81, "/a"],
    ["http://evil.test/@allowed.test", "evil.test", 80, "/@allowed.test"],
  ])("reads %s", (text, name, number, target) => {
    expect(parseAbsolute(text)).toMatchObject({ ok: true, destination: { host: name, port: number }, target });
  });

  it.each([
    "https://evil.test/",
    "ftp://evil.test/",
    "//evil.test/",
    "/path",
    "*",
    "http:/evil.test",
    "http:///evil.test",
    "http://user@evil.test/",
    "http://allowed.test:80@evil.test/",
    "http://evil.test\\@allowed.test/",
    "http://evil.test\0.allowed.test/",
    " http://evil.test/",
  ])("refuses %j", (text) => {
    expect(parseAbsolute(text).ok).toBe(false);
  });
});

describe("sameAuthority", () => {
  it("compares host and port, however they were written", () => {
    expect(same("ALLOWED.test.:443", "allowed.test:443")).toBe(true);
    expect(same("allowed.test:443", "allowed.test:444")).toBe(false);
    expect(same("allowed.test:443", "evil.test:443")).toBe(false);
  });
});

describe("the host of a rule", () => {
  it("is accepted by the API exactly if it is a canonical name", () => {
    const name = fc
      .array(
        fc.oneof(
          fc.string({ unit: fc.constantFrom(..."ab1-_".split("")), maxLength: 5 }),
          fc.constantFrom("a".repeat(63), "a".repeat(64), "123", "0x7f", "A"),
        ),
        { minLength: 1, maxLength: 4 },
      )
      .map((labels) => labels.join("."))
      // Four numbers are an address: what the API accepts there is looser, and compilePolicy has the last word.
      .filter((text) => !/^[0-9.]+$/.test(text) && !text.includes("xn--"));

    fc.assert(
      fc.property(name, (text) => {
        const parsed = canonicalHost(text);

        const admitted = egress.safeParse({ rules: [{ name: "a", host: text, action: "Allow" }] }).success;
        expect(admitted).toBe(parsed.ok && parsed.host === text);
      }),
      { numRuns: 2000 },
    );
  });
});

function same(a: string, b: string): boolean | undefined {
  const [left, right] = [parseAuthority(a), parseAuthority(b)];
  return left.ok && right.ok ? sameAuthority(left.destination, right.destination) : undefined;
}

function printed(parsed: Extract<Parsed, { ok: true }>): string {
  return authorityOf(parsed.destination);
}
