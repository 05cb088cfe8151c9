import { describe, expect, it } from "vitest";
import { runDescribe } from "../../controller/commands/describe.ts";
import { runEgress } from "../../controller/commands/egress.ts";
import { formatBytes } from "../../controller/commands/egress-text.ts";
import { EXIT } from "../../controller/commands/exit.ts";
import { safeCell, safeJson } from "../../controller/commands/safe-output.ts";
import type { AuditLine } from "../../controller/ports/guard.ts";
import { auditLine } from "../contract/store-audit-rules.ts";
import { cliRig, refusal, type CliRig } from "./rig.ts";

/** What a terminal obeys or hides, in one text. */
const EVIL = "\u001b[2J\u001b]0;x\u0007\u009b31m\u202egnp.exe\u200b\r\nfake line\u2028\u007f";
const UNSAFE = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/u;

async function report(rig: CliRig, ...lines: Partial<AuditLine>[]): Promise<void> {
  const { uid } = (await rig.bottle()).metadata;
  const from = await rig.context.auditLog.cursor(uid, "g");
  const cursor = String(Number(from) + lines.length);
  await rig.context.auditLog.append(uid, { guardId: "g", from, cursor, lines: lines.map(auditLine) });
}

const ago = (rig: CliRig, ms: number) => new Date(rig.context.now() - ms).toISOString();

/** Resolves when the text is there; the test's own time limit is the deadline. */
async function until(check: () => boolean): Promise<void> {
  while (!check()) await new Promise((done) => setTimeout(done, 10));
}

describe("egress", () => {
  it("prints a row for each line and the counters to stderr", async () => {
    await using rig = cliRig();
    await rig.create();
    const denied = {
      verdict: "Denied",
      rule: "default-deny",
      host: "evil.example",
      status: 403,
      bytesDown: 0,
    } as const;
    await report(rig, { bytesDown: 2048 }, { ...denied, time: ago(rig, 300_000), reason: "no rule", bytesUp: 0 });

    const exit = await runEgress(rig.context, "b", {});
    const [headers, first, second] = rig.out().split("\n");

    expect(exit).toBe(EXIT.ok);
    expect(headers?.split(/ {2,}/).join(" ")).toBe("TIME VERDICT RULE METHOD HOST PORT PATH STATUS UP DOWN MS REASON");
    expect(first).toMatch(
      /^2026-01-01T00:00:00Z +Allowed +api +GET +api\.example\.com +443 +\/ +200 +1 +2\.0Ki +5 +the rule allows it$/,
    );
    expect(second).toMatch(/Denied +default-deny +GET +evil\.example +443 +\/ +403 +0 +0 +5 +no rule$/);
    expect(rig.err()).toBe(
      'allowed 1, denied 1, of these 0 by DLP; up 1, down 2.0Ki; last denied: evil.example:443 by rule "default-deny", 5m ago\n',
    );
  });

  it("wide adds findings, injected headers and the address", async () => {
    await using rig = cliRig();
    await rig.create();
    await report(rig, { dlp: ["pattern:x", "secret:a/b"], injected: ["authorization"], address: "192.0.2.1" });

    await runEgress(rig.context, "b", { output: "wide" });

    expect(rig.out()).toMatch(/REASON +DLP +INJECTED +ADDRESS\n/);
    expect(rig.out()).toMatch(/pattern:x,secret:a\/b +authorization +192\.0\.2\.1\n$/);
  });

  it("json prints each line with its number, and nothing else", async () => {
    await using rig = cliRig();
    await rig.create();
    await report(rig, {}, { path: "/2" });

    await runEgress(rig.context, "b", { output: "json" });

    const lines = rig.out().trimEnd().split("\n");
    expect(lines.map((line) => JSON.parse(line) as unknown)).toEqual([
      { seq: 1, ...auditLine() },
      { seq: 2, ...auditLine({ path: "/2" }) },
    ]);
    expect(rig.err()).toBe("");
  });

  it("shows only what was refused, what is young, and the newest", async () => {
    await using rig = cliRig();
    await rig.create();
    await report(
      rig,
      { path: "/old", verdict: "Denied", time: ago(rig, 3_600_000) },
      { path: "/ask", verdict: "ApprovalRequired", time: ago(rig, 60_000) },
      { path: "/ok", time: ago(rig, 50_000) },
      { path: "/no", verdict: "Denied", time: ago(rig, 40_000) },
      { path: "/failed", verdict: "Failed", time: ago(rig, 30_000) },
    );
    const shown = async (flags: Parameters<typeof runEgress>[2]) => {
      rig.clear();
      await runEgress(rig.context, "b", { ...flags, output: "json" });
      return (
        rig
          .out()
          .match(/"path":"[^"]*"/g)
          ?.map((path) => path.slice(8, -1)) ?? []
      );
    };

    expect(await shown({ denied: true })).toEqual(["/old", "/ask", "/no"]);
    expect(await shown({ since: 600_000 })).toEqual(["/ask", "/ok", "/no", "/failed"]);
    expect(await shown({ limit: 2 })).toEqual(["/no", "/failed"]);
    expect(await shown({ denied: true, since: 600_000, limit: 1 })).toEqual(["/no"]);
    expect(await shown({ since: 1 })).toEqual([]);
  });

  it("reads past one page and says how many lines are gone", async () => {
    await using rig = cliRig();
    await rig.create();
    await report(rig, ...Array.from({ length: 10_007 }, (_, n) => ({ path: `/${n + 1}` })));

    await runEgress(rig.context, "b", { limit: 100_000 });

    expect(rig.out().trimEnd().split("\n")).toHaveLength(10_001);
    expect(rig.out()).toMatch(/ \/10007 /);
    expect(rig.err()).toContain("note: 7 older lines are no longer kept");
    expect(rig.err()).toContain("allowed 10007, denied 0");
  });

  it("lets nothing through that a terminal obeys or hides", async () => {
    await using rig = cliRig();
    await rig.create();
    const evil = { host: EVIL, path: EVIL, method: EVIL, reason: EVIL, rule: EVIL, address: EVIL, time: EVIL };
    await report(rig, { ...evil, verdict: "Denied", dlp: [EVIL], injected: [EVIL] });

    await runEgress(rig.context, "b", { output: "wide" });
    await runEgress(rig.context, "b", { output: "json" });
    await runDescribe(rig.context, ["bottle", "b"]);

    for (const line of (rig.out() + rig.err()).split("\n")) expect(line).not.toMatch(UNSAFE);
    const json = rig
      .out()
      .split("\n")
      .find((line) => line.startsWith("{"));
    expect(JSON.parse(json ?? "")).toMatchObject({ host: EVIL });
  });

  it("of a bottle that asked for nothing says so, and of none exits with 3", async () => {
    await using rig = cliRig();
    await rig.create();

    expect(await runEgress(rig.context, "b", {})).toBe(EXIT.ok);
    expect(rig.out()).toBe("");
    expect(rig.err()).toMatch(/^nothing has left bottle "b" so far\nallowed 0, denied 0/);
    expect((await refusal(runEgress(rig.context, "none", {}))).exitCode).toBe(EXIT.notFound);
  });

  it("with -f shows what comes until Ctrl-C", async () => {
    await using rig = cliRig();
    await rig.create();
    await report(rig, { path: "/first" });
    const running = runEgress(rig.context, "b", { follow: true });
    await until(() => rig.out().includes("/first"));
    await report(rig, { path: "/second", host: "a-much-longer-host-name.example.com" });
    await until(() => rig.out().includes("/second"));
    await report(rig, { path: "/third" });
    await until(() => rig.out().includes("/third"));
    rig.interrupt();

    expect(await running).toBe(EXIT.interrupted);
    const rows = rig.out().trimEnd().split("\n");
    expect(rows).toHaveLength(4);
    expect(rows[3]?.indexOf("/third")).toBe(rows[2]?.indexOf("/second"));
    expect(rig.err()).toContain("allowed 3");
  });

  it("with -f ends when the bottle is gone", async () => {
    await using rig = cliRig();
    await rig.create();
    const running = runEgress(rig.context, "b", { follow: true });
    await rig.context.store.delete("Bottle", { namespace: "default", name: "b" });

    expect(await running).toBe(EXIT.ok);
    expect(rig.err()).toContain('bottle "b" is gone');
  });
});

describe("describe of a bottle", () => {
  it("has the egress counters and the number of rules", async () => {
    await using rig = cliRig();
    await rig.create();
    const time = ago(rig, 120_000);
    await report(rig, {}, { verdict: "Denied", rule: "dlp", host: "x.example", port: null, time });

    await runDescribe(rig.context, ["bottle", "b"]);

    expect(rig.out()).toMatch(
      /Egress:\n {2}Rules: +0\n {2}Allowed: +1\n {2}Denied: +1\n {2}DLP blocked: +1\n {2}Last denied: +x\.example by rule "dlp", 2m ago\n/,
    );
  });

  it("says why all egress is closed", async () => {
    await using rig = cliRig();
    await rig.create({ templateRefs: [{ name: "none" }] });

    await runDescribe(rig.context, ["bottle", "b"]);

    expect(rig.out()).toMatch(/Rules: +closed: BottleTemplate "none" does not exist/);
  });
});

it("bytes are said shortly", () => {
  expect([0, 1023, 1024, 1536, 10 * 1024, 5 * 1024 ** 3, 2 ** 60].map(formatBytes)).toEqual([
    "0",
    "1023",
    "1.0Ki",
    "1.5Ki",
    "10Ki",
    "5.0Gi",
    "1048576Ti",
  ]);
});

it("safe JSON is the same value, a safe cell is one line with a bound", () => {
  expect(JSON.parse(safeJson({ a: EVIL, "\u{e0001}": "💙" }))).toEqual({ a: EVIL, "\u{e0001}": "💙" });
  expect(safeJson("\u{e0001}💙")).toBe('"\\udb40\\udc01💙"');
  expect(safeCell("x".repeat(1000))).toHaveLength(160);
});
