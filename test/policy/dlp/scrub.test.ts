import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import { compileDlp, createScrubber } from "../../../controller/policy/dlp/index.ts";

const SECRET = "s3cr3t/+token&value";
const rules = compileDlp({ secrets: { "api/key": SECRET }, placeholders: { "api/key": "placeholder-of-the-key" } });

const FORMS: readonly string[] = [
  SECRET,
  encodeURIComponent(SECRET),
  JSON.stringify(SECRET).replaceAll("/", "\\/").slice(1, -1),
  Buffer.from(SECRET).toString("hex"),
  Buffer.from(SECRET).toString("base64").slice(0, 25),
];

describe("a scrubber", () => {
  it("overwrites every form of every secret, wherever the response is cut, and changes nothing else", () => {
    const part = fc.oneof(
      fc.constantFrom(...FORMS).map((text) => ({ text, secret: true })),
      fc.string({ maxLength: 200 }).map((text) => ({ text: `${text} `, secret: false })),
      fc.constantFrom(...FORMS).map((text) => ({ text: `${text.slice(0, 7)} `, secret: false })),
    );
    fc.assert(
      fc.property(fc.array(part), fc.array(fc.integer({ min: 1, max: 60 }), { minLength: 1 }), (parts, sizes) => {
        const body = Buffer.from(parts.map(({ text }) => text).join(""));
        const wanted = parts.map(({ text, secret }) => (secret ? "*".repeat(text.length) : text)).join("");
        expect(scrub(body, sizes).toString()).toBe(wanted);
      }),
    );
  });

  it("leaves no character of base64 that shows a byte of the secret", () => {
    for (const before of ["", "a", "ab"]) {
      const body = Buffer.from(Buffer.from(`${before}${SECRET}`).toString("base64"));
      const seen = Buffer.from(scrub(body, [5]).toString().replaceAll("*", "A"), "base64").toString("latin1");
      expect(seen.slice(before.length + 1, -1)).toBe("\0".repeat(SECRET.length - 2));
      expect(scrub(body, [5]).length).toBe(body.length);
    }
  });

  it("overwrites secrets that overlap", () => {
    const overlapping = compileDlp({ secrets: { a: "abcdefgh-1", b: "efgh-12345" }, placeholders: {} });
    for (const size of [1, 3, 7, 100]) {
      const scrubber = createScrubber(overlapping);
      const chunks = "<abcdefgh-12345>".match(new RegExp(`.{1,${size}}`, "g")) ?? [];
      const out = [...chunks.flatMap((chunk) => scrubber.push(Buffer.from(chunk))), ...scrubber.end()];
      expect(Buffer.concat(out).toString()).toBe("<**************>");
    }
  });

  it("passes on at once what cannot be the beginning of a secret, so that events are not late", () => {
    const scrubber = createScrubber(rules);
    const event = Buffer.from('data: {"delta": "hello"}\n\n');
    expect(Buffer.concat(scrubber.push(event))).toEqual(event);
    expect(Buffer.concat(scrubber.push(Buffer.from("data: s3cr"))).toString()).toBe("data: ");
    expect(Buffer.concat(scrubber.push(Buffer.from("ap\n\n"))).toString()).toBe("s3crap\n\n");
  });

  it("leaves the piece that it was given as it was, and counts places", () => {
    const scrubber = createScrubber(rules);
    const piece = Buffer.from(`${SECRET} ${SECRET}.`);
    const before = Buffer.from(piece);
    scrubber.push(piece);
    scrubber.end();
    expect(piece).toEqual(before);
    expect(scrubber.hits).toBe(2);
  });

  it("hands on the very same pieces when there is no secret", () => {
    const scrubber = createScrubber(compileDlp({ secrets: {}, placeholders: { "api/key": "placeholder-of-the-key" } }));
    const piece = Buffer.from("ghp_ placeholder-of-the-key");
    expect(scrubber.push(piece)[0]).toBe(piece);
    expect(scrubber.end()).toEqual([]);
  });
});

function scrub(body: Buffer, sizes: readonly number[]): Buffer {
  const scrubber = createScrubber(rules);
  const out: Uint8Array[] = [];
  for (let at = 0, turn = 0; at < body.length; turn += 1) {
    const size = sizes[turn % sizes.length] ?? 1;
    out.push(...scrubber.push(body.subarray(at, at + size)));
    at += size;
  }
  return Buffer.concat([...out, ...scrubber.end()]);
}
