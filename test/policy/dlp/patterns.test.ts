import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import { compileDlp, createScan, scanText } from "../../../controller/policy/dlp/index.ts";
import { PATTERN_LENGTH_MAX, TOKEN_PATTERNS } from "../../../controller/policy/dlp/patterns.ts";
import { characters, TOKEN_SAMPLES } from "./samples.ts";

const MIB = 1024 * 1024;
/** Of processor time, for 1 MiB. A quiet machine takes some 20 ms for the worst; the bound leaves room for a machine with much else to do. */
const SCAN_MS_MAX = 400;
const TRIES = 3;
const JWT_IO = ["eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9", "eyJzdWIiOiIxMjM0NTY3ODkwIiwibmFtZSI6IkpvaG4gRG9lIn0"].join(
  ".",
);
const rules = compileDlp({ secrets: {}, placeholders: {} });

describe("token patterns", () => {
  it("has a sample for every pattern and each id once", () => {
    const ids = TOKEN_PATTERNS.map(({ id }) => id);
    expect(new Set(ids).size).toBe(ids.length);
    expect(Object.keys(TOKEN_SAMPLES).sort()).toEqual([...ids].sort());
  });

  it("has literals that the search can use", () => {
    for (const { literals } of TOKEN_PATTERNS) for (const literal of literals) expect(literal).toMatch(/^[ -~]{3,}$/);
  });

  it.each(TOKEN_PATTERNS)("bounds every repetition of $id and nests none", ({ shape, lead }) => {
    const bare = shape.replaceAll(/\\./g, "x").replaceAll(/\[[^\]]*\]/g, "x");
    expect(bare).not.toMatch(/[*+]|\{\d+,\}/);
    expect(bare).not.toMatch(/\)[{?]/);
    const repeated = [...bare.matchAll(/\{(?:\d+,)?(\d+)\}/g)].reduce((sum, [, max]) => sum + Number(max), 0);
    expect(repeated + shape.length + (lead?.max ?? 0)).toBeLessThan(PATTERN_LENGTH_MAX);
  });

  it.each(Object.entries(TOKEN_SAMPLES))("finds %s wherever a token may stand", (id, samples) => {
    for (const sample of samples) {
      const places = [sample, `x=${sample}&y`, `{"text":"first\\n${sample}"}`, `a%3D${sample}`, `Bearer ${sample}`];
      for (const place of places) expect(scanText(rules, place), place).toContain(`pattern:${id}`);
    }
  });

  it("tells the id of a token and never its text", () => {
    const samples = Object.values(TOKEN_SAMPLES).flat();
    const findings = scanText(rules, samples.join(" "));
    for (const sample of samples) expect(findings.join(" ")).not.toContain(sample);
  });

  it.each([
    ["a token of one character, as documentation has it", `ghp_${"x".repeat(36)}`],
    ["an access key of the AWS documentation", `AKIAIOSFODNN7EXAMPLE ${characters("abcABC019", 40)}`],
    ["an access key id without a key beside it", `AKIA${characters("ABCDEFGHIJ", 16)} is the id`],
    ["the middle of a word", `xghp_${characters("abcdefghijklmnop0123", 36)}`],
    ["a word that ends in a prefix", "task-abcdefghijklmnopqrstuvwxyzabcdefghij"],
    ["source code that looks for a key", 'if (pem.startsWith("-----BEGIN PRIVATE KEY-----")) return parse(pem);'],
    ["the URL of an example", "postgres://user:password@localhost:5432/db"],
    ["the URL of a template", "postgres://app:${DB_SECRET_1}@localhost:5432/db"],
    ["the URL of an example with a made-up password", "redis://default:hunter2hunter2@cache:6379"],
    ["the URL of this machine", `postgres://app:${characters("abcXYZ0189-", 16)}@localhost:5432/db`],
    ["the URL of a name for examples", `https://app:${characters("abcXYZ0189-", 16)}@db.example.com/x`],
    ["the webhook of the documentation", `https://hooks.slack.com/services/T00000000/B00000000/${"X".repeat(24)}`],
    ["a token that counts", `sk-${"1234567890abcdef".repeat(3)}`],
    ["a token that says what to put there", `ghp_your_token${characters("abcdefghijklmnop0123", 28)}`],
    ["the token that every page about JWT shows", `${JWT_IO}.${characters("abcdefABCDEF0189-_", 43)}`],
    ["an entry of a cache", `key-${characters("0123456789abcdef", 32)}`],
    ["an id", `SK${characters("0123456789abcdef", 32)}`],
    ["a long name behind a variable", "if (hvs.isSupportedByThisBrowserAtAll) return;"],
    ["a program that reads keys of PuTTY", 'if (text.startsWith("PuTTY-User-Key-File-3: ")) return readPutty(text);'],
    ["an id beside a commit", `AKIA${characters("ABCDEFGHIJ234", 16)} ${characters("0123456789abcdef", 40)}`],
    ["a commit", `commit ${characters("0123456789abcdef", 40)}`],
    ["the hash of a lockfile", `sha512-${characters("abcdefghijklmnopABCDEFGH0123456789+/", 86)}==`],
  ])("does not find %s", (_, text) => {
    expect(scanText(rules, text)).toEqual([]);
  });

  it.each(TOKEN_PATTERNS)("reads 1 MiB of the worst input for $id in linear time", (pattern) => {
    for (const unit of worstUnits(pattern)) {
      const body = Buffer.from(unit.repeat(Math.ceil(MIB / unit.length)).slice(0, MIB));
      const tries = Array.from({ length: TRIES }, () => processorMs(body));
      expect(Math.min(...tries), unit.slice(0, 60)).toBeLessThan(SCAN_MS_MAX);
    }
  });

  it("never throws, whatever the text", () => {
    const fragments = fc.constantFrom(
      ...TOKEN_PATTERNS.flatMap(({ literals }) => literals),
      "\\n",
      "%",
      "@",
      "eyJ",
      ".",
    );
    const text = fc.array(fc.oneof(fragments, fc.string({ unit: "binary", maxLength: 40 })), { maxLength: 30 });
    fc.assert(
      fc.property(text, (parts) => {
        for (const id of scanText(rules, parts.join(""))) expect(id).toMatch(/^pattern:[a-z0-9-]+$/);
      }),
    );
  });
});

function processorMs(body: Buffer): number {
  const scan = createScan(rules, { mode: "Audit" });
  const before = process.cpuUsage();
  scan.push(body);
  scan.end();
  const { user, system } = process.cpuUsage(before);
  return (user + system) / 1000;
}

/** Literals without end, literals before nearly enough characters, and runs that a lead or a last look goes through in vain. */
function worstUnits({ literals: [literal = ""], lead }: (typeof TOKEN_PATTERNS)[number]): string[] {
  return [
    literal,
    ` ${literal}`,
    `\\n${literal}`,
    ` ${literal}${characters("abcdef0123456789", 19)}`,
    ` ${literal}${characters("abcdef0123456789", 200)}`,
    `-${characters("ABCDEFGH", 39)}${literal}`,
    `-----BEGIN ${literal}-----`,
    ...(lead === undefined ? [] : [`${(lead.opening ?? "1").repeat(lead.max)}${literal}`]),
  ];
}
