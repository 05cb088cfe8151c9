import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import { compileDlp, createScan, scanText, scanTexts, type DlpRules } from "../../../controller/policy/dlp/index.ts";
import { TOKEN_SAMPLES } from "./samples.ts";

const SECRET = 'Tr0ub4dor&3/+"zw\\ö';
const HEX_OF = (value: string) => Buffer.from(value).toString("hex");
const BASE64_OF = (value: string) => Buffer.from(value).toString("base64");

/** How a program may write a secret into a body, each with text around it. */
const WAYS: readonly [name: string, write: (value: string) => string][] = [
  ["as it is", (value) => value],
  ["percent-encoded", (value) => encodeURIComponent(value)],
  ["percent-encoded twice", (value) => encodeURIComponent(encodeURIComponent(value))],
  ["percent-encoded in lower case", (value) => encodeURIComponent(value).replace(/%../g, (x) => x.toLowerCase())],
  ["as a form field", (value) => new URLSearchParams({ x: value }).toString().slice(2)],
  ["in JSON", (value) => JSON.stringify({ key: value })],
  ["percent-encoded byte by byte", (value) => HEX_OF(value).replace(/../g, "%$&")],
  ["percent-encoded here and there", (value) => value.replace(/[\x20-\x7e]/g, everySecondEncoded)],
  ["as a key of JSON", (value) => JSON.stringify({ [value]: 1 })],
  ["in JSON within JSON", (value) => JSON.stringify(JSON.stringify({ key: value }))],
  ["in JSON of ASCII", (value) => JSON.stringify(value).replace(/[^ -~]/g, unicodeEscape)],
  ["in JSON with escaped slashes", (value) => JSON.stringify(value).replaceAll("/", "\\/")],
  ["as a file name of a form", (value) => `Content-Disposition: form-data; name="f"; filename=${value}\r\n`],
  ["in hex", HEX_OF],
  ["in upper-case hex", (value) => HEX_OF(value).toUpperCase()],
  ["in hex in lines of sixty", (value) => lines(HEX_OF(`${value} and more of it`.repeat(3)), 60, "\n")],
  ...["", "a", "ab"].flatMap((before): [string, (value: string) => string][] => [
    [`in base64 after ${before.length} bytes`, (value) => BASE64_OF(`${before}${value}${before} tail`)],
    [`in base64url after ${before.length} bytes`, (value) => Buffer.from(before + value).toString("base64url")],
  ]),
  ...["\n", "\r\n", "\\n", "\\r\\n"].flatMap((newline): [string, (value: string) => string][] =>
    [0, 20, 33, 41, 46, 52].map((before) => [
      `in base64 in lines, parted by ${JSON.stringify(newline)}, after ${before} bytes`,
      (value) => lines(BASE64_OF(`${"-".repeat(before)}${value}${"-".repeat(90)}`), 76, newline),
    ]),
  ),
];

const secretText = fc.oneof(
  fc.string({ minLength: 8, maxLength: 60 }).filter((text) => text.trim().length >= 8),
  fc.string({ unit: "grapheme", minLength: 8, maxLength: 30 }).filter((text) => text.trim().length >= 8),
  fc.base64String({ minLength: 20, maxLength: 80 }),
);

describe("a scan of a body", () => {
  it.each(WAYS)("finds a secret %s", (_, write) => {
    const body = Buffer.from(`{"a": [1, 2]} ${write(SECRET)} and more`);
    expect(run(rulesFor(SECRET), [body]).findings).toEqual(["secret:api/key"]);
  });

  it("finds a secret in any form, wherever the body is cut, and releases nothing from its first byte on", () => {
    fc.assert(
      fc.property(
        secretText,
        fc.constantFrom(...WAYS),
        fc.tuple(fc.nat(3000), fc.nat(3000)),
        fc.array(fc.integer({ min: 1, max: 900 }), { minLength: 1, maxLength: 20 }),
        (secret, [, write], [before, after], sizes) => {
          const planted = Buffer.from(write(secret.trim()));
          const body = Buffer.concat([Buffer.alloc(before, "."), planted, Buffer.alloc(after, ".")]);
          const { findings, released } = run(rulesFor(secret), cut(body, sizes));
          expect(findings).toContain("secret:api/key");
          expect(released.length).toBeLessThanOrEqual(before + planted.length - 6);
          // What is written around the secret may go out; of the secret itself not one byte may, in the forms that show it plainly.
          if (planted.includes(secret.trim())) {
            expect(released.length).toBeLessThanOrEqual(before + planted.indexOf(secret.trim()));
          }
          expect(body.subarray(0, released.length).equals(released)).toBe(true);
        },
      ),
    );
  });

  it("finds the same however the body is cut", () => {
    const pieces = fc.oneof(
      fc.constantFrom(...Object.values(TOKEN_SAMPLES).flat(), SECRET, "\\n", "%41", "x", " "),
      fc.string({ maxLength: 300 }),
    );
    const rules = rulesFor(SECRET);
    fc.assert(
      fc.property(
        fc.array(pieces, { maxLength: 12 }),
        fc.array(fc.integer({ min: 1, max: 700 }), { minLength: 1 }),
        (parts, sizes) => {
          const body = Buffer.from(parts.join(""));
          const [whole, inPieces] = [[body], cut(body, sizes)].map((chunks) => run(rules, chunks, { mode: "Audit" }));
          expect(inPieces?.findings.sort()).toEqual(whole?.findings.sort());
        },
      ),
    );
  });

  it("releases every byte of a body in which nothing is found", () => {
    fc.assert(
      fc.property(
        fc.uint8Array({ maxLength: 5000 }),
        fc.array(fc.integer({ min: 1, max: 2000 }), { minLength: 1 }),
        (bytes, sizes) => {
          const { findings, released } = run(rulesFor(SECRET), cut(Buffer.from(bytes), sizes));
          expect(findings).toEqual([]);
          expect(released.equals(Buffer.from(bytes))).toBe(true);
        },
      ),
    );
  });

  it("holds back little of a long body", () => {
    const scan = createScan(rulesFor(SECRET));
    const sent = 1024 * 1024;
    const { release } = scan.push(Buffer.alloc(sent, "some text "));
    const released = release.reduce((sum, chunk) => sum + chunk.length, 0);
    expect(sent - released).toBeGreaterThanOrEqual(512);
    expect(sent - released).toBeLessThan(2048);
  });

  it("finds every part of a long secret", () => {
    const key = Array.from({ length: 60 }, (_, index) => HEX_OF(`line ${index} of the key`)).join("\n");
    const rules = rulesFor(key);
    for (let at = 0; at + 600 <= key.length; at += 97) {
      expect(run(rules, [Buffer.from(`... ${key.slice(at, at + 600)} ...`)]).findings).toEqual(["secret:api/key"]);
    }
  });

  it("looks for a secret without the white space around it", () => {
    expect(run(rulesFor("  correct horse\n"), [Buffer.from("x=correct horse;")]).findings).toEqual(["secret:api/key"]);
  });

  it("finds a placeholder where the whole of it stands, and not where its beginning does", () => {
    const rules = compileDlp({ secrets: {}, placeholders: { "api/key": "bottle-0f9a8b7c6d5e4f3a2b1c" } });
    expect(run(rules, [Buffer.from("key: bottle-0f9a8b7c6d5e4f3a2b1c")]).findings).toEqual(["placeholder:api/key"]);
    expect(run(rules, [Buffer.from("key: bottle-0f9a8b7c6d5e4f3a2b1 and bottle- and bottle-0f9a")]).findings).toEqual(
      [],
    );
  });

  it("passes a placeholder that the caller ignores, and still stops at a secret", () => {
    const placeholder = "bottle-0f9a8b7c6d5e4f3a2b1c";
    const rules = compileDlp({ secrets: { "api/key": SECRET }, placeholders: { "api/key": placeholder } });
    const options = { ignore: isPlaceholder };
    const clean = Buffer.from(`key: ${placeholder}`);
    expect(run(rules, [clean], options)).toEqual({ findings: [], released: clean });
    expect(run(rules, [clean, Buffer.from(SECRET)], options).findings).toEqual(["secret:api/key"]);
  });

  it("tells a finding once and hands everything on at once when it only audits", () => {
    const scan = createScan(rulesFor(SECRET), { mode: "Audit" });
    const body = Buffer.from(`${SECRET} ${SECRET}`);
    const step = scan.push(body);
    expect(step.release).toEqual([body]);
    expect([...step.findings, ...scan.push(body).findings, ...scan.end().findings]).toEqual(["secret:api/key"]);
  });
});

describe("a scan of a target or a header", () => {
  const rules = compileDlp({ secrets: { "api/key": SECRET, "pin/code": "4711" }, placeholders: {} });

  it.each([
    ["in the path", `/v1/${encodeURIComponent(SECRET)}/x`],
    [
      "in the query, encoded in full",
      `/v1?q=${[...Buffer.from(SECRET)].map((byte) => `%${byte.toString(16).padStart(2, "0")}`).join("")}`,
    ],
    ["encoded twice", `/v1?q=${encodeURIComponent(encodeURIComponent(SECRET))}`],
    ["in Basic", `Basic ${BASE64_OF(`user:${SECRET}`)}`],
    ["in Basic without padding", `basic ${Buffer.from(`u:${SECRET}`).toString("base64url")}`],
    ["in a bearer token", `Bearer ${SECRET}`],
    [
      "split over two parameters",
      `/v1?a=${encodeURIComponent(SECRET.slice(0, 6))}&b=${encodeURIComponent(SECRET.slice(6))}`,
    ],
    [
      "split over three parameters",
      `/?a=${SECRET.slice(0, 4)}&b=${encodeURIComponent(SECRET.slice(4, 9))}&c=${encodeURIComponent(SECRET.slice(9))}`,
    ],
  ])("finds a secret %s", (_, text) => {
    expect(scanText(rules, text)).toEqual(["secret:api/key"]);
  });

  it("does not find a secret whose parts come in another order: the bytes count against the budget and the audit shows them", () => {
    expect(scanText(rules, `/v1?b=${encodeURIComponent(SECRET.slice(6))}&a=${SECRET.slice(0, 6)}`)).toEqual([]);
  });

  it("finds a secret that is split over headers", () => {
    const thirds = [SECRET.slice(0, 5), SECRET.slice(5, 10), SECRET.slice(10)];
    expect(scanTexts(rules, ["*/*", ...thirds, "gzip"])).toEqual(["secret:api/key"]);
    expect(scanTexts(rules, ["*/*", "gzip"])).toEqual([]);
  });

  it("finds a short secret as a whole value only", () => {
    for (const text of [
      "4711",
      "Bearer 4711",
      "token 4711",
      "/v1?pin=4711",
      "/pin/4711",
      "a=1; pin=4711",
      `Basic ${BASE64_OF("u:4711")}`,
    ]) {
      expect(scanText(rules, text), text).toEqual(["secret:pin/code"]);
    }
    for (const text of ["14711", "/v1?n=47110", "it is 4711 or so"]) expect(scanText(rules, text), text).toEqual([]);
  });

  it("never throws, whatever the text", () => {
    const text = fc.oneof(
      fc.string({ unit: "binary" }),
      fc.webUrl({ withQueryParameters: true }),
      fc.stringMatching(/^(%[0-9a-f]?){0,20}$/),
    );
    fc.assert(
      fc.property(text, (value) => {
        for (const id of scanText(rules, value)) expect(id).toMatch(/^[a-z]+:/);
      }),
    );
  });
});

function isPlaceholder(id: string): boolean {
  return id.startsWith("placeholder:");
}

function everySecondEncoded(char: string, at: number): string {
  return at % 2 === 0 || char === "%" ? `%${char.charCodeAt(0).toString(16)}` : char;
}

function unicodeEscape(char: string): string {
  return `\\u${char.charCodeAt(0).toString(16).padStart(4, "0")}`;
}

function rulesFor(secret: string): DlpRules {
  return compileDlp({ secrets: { "api/key": secret }, placeholders: {} });
}

function run(
  rules: DlpRules,
  chunks: readonly Uint8Array[],
  options: Parameters<typeof createScan>[1] = {},
): { findings: string[]; released: Buffer } {
  const scan = createScan(rules, options);
  const steps = [...chunks.map((chunk) => scan.push(chunk)), scan.end()];
  return {
    findings: steps.flatMap((step) => step.findings),
    released: Buffer.concat(steps.flatMap((step) => step.release)),
  };
}

/** Cuts a body into pieces whose sizes repeat. */
function cut(body: Buffer, sizes: readonly number[]): Buffer[] {
  const chunks: Buffer[] = [];
  for (let at = 0, turn = 0; at < body.length; turn += 1) {
    const size = sizes[turn % sizes.length] ?? 1;
    chunks.push(body.subarray(at, at + size));
    at += size;
  }
  return chunks;
}

function lines(text: string, length: number, newline: string): string {
  return (text.match(new RegExp(`.{1,${length}}`, "g")) ?? []).join(newline);
}
