import * as fc from "fast-check";
import { expect, test } from "vitest";
import { AUDIT_LINES_MAX, type AuditLog } from "../../controller/ports/audit.ts";
import type { AuditLine } from "../../controller/ports/guard.ts";
import type { Journal } from "../../controller/ports/journal.ts";
import type { OpenStore } from "./store-fixtures.ts";

const ALL = { afterSeq: 0, limit: 2 * AUDIT_LINES_MAX };

interface Parts {
  auditLog: AuditLog;
  journal: Journal;
}

export function auditLine(line: Partial<AuditLine> = {}): AuditLine {
  return {
    v: 1,
    time: "2026-01-01T00:00:00.000Z",
    kind: "request",
    verdict: "Allowed",
    rule: "api",
    reason: "the rule allows it",
    protocol: "HTTPS",
    host: "api.example.com",
    port: 443,
    method: "GET",
    path: "/",
    status: 200,
    bytesUp: 1,
    bytesDown: 10,
    ms: 5,
    injected: [],
    dlp: [],
    ...line,
  };
}

function page(from: string, cursor: string, lines: readonly AuditLine[], guardId = "g") {
  return { guardId, from, cursor, lines };
}

/** The audit of what guards saw; skipped for a driver that keeps none. */
export function auditRules(opened: () => Promise<OpenStore>): void {
  function rule(name: string, check: (parts: Parts) => Promise<void>): void {
    test(name, async (context) => {
      const { auditLog, journal } = await opened();
      if (auditLog === undefined || journal === undefined) return context.skip("this driver keeps no audit");
      await check({ auditLog, journal });
    });
  }
  keepingRules(rule);
  countingRules(rule);
  rule("any history of pages, lost and repeated ones among them, stores each line once and in order", againstModel);
}

type Rule = (name: string, check: (parts: Parts) => Promise<void>) => void;

function keepingRules(rule: Rule): void {
  rule("an unknown bottle has no lines, an empty cursor and nothing counted", async ({ auditLog }) => {
    expect(await auditLog.read("nobody", ALL)).toEqual([]);
    expect(await auditLog.cursor("nobody", "g")).toBe("");
    expect(await auditLog.counters("nobody")).toEqual({ allowed: 0, denied: 0, dlpBlocked: 0, hosts: {} });
  });

  rule("lines are numbered from 1, each bottle its own, and read in pages", async ({ auditLog }) => {
    const [one, two, three] = ["/1", "/2", "/3"].map((path) => auditLine({ path }));
    if (one === undefined || two === undefined || three === undefined) throw new Error("three lines");
    await auditLog.append("a", page("", "c1", [one, two]));
    await auditLog.append("b", page("", "c1", [three]));
    await auditLog.append("a", page("c1", "c2", [three]));

    expect(await auditLog.read("a", { afterSeq: 0, limit: 2 })).toEqual([
      { seq: 1, line: one },
      { seq: 2, line: two },
    ]);
    expect(await auditLog.read("a", { afterSeq: 2, limit: 2 })).toEqual([{ seq: 3, line: three }]);
    expect(await auditLog.read("b", ALL)).toEqual([{ seq: 1, line: three }]);
  });

  rule("a page that another reader brought already is left out", async ({ auditLog }) => {
    await auditLog.append("a", page("", "c1", [auditLine()]));
    await auditLog.append("a", page("", "c1", [auditLine()]));
    await auditLog.append("a", page("c0", "c9", [auditLine()]));

    expect(await auditLog.read("a", ALL)).toHaveLength(1);
    expect((await auditLog.counters("a")).allowed).toBe(1);
    expect(await auditLog.cursor("a", "g")).toBe("c1");
  });

  rule("each guard has a cursor of its own, and an empty page moves it", async ({ auditLog }) => {
    await auditLog.append("a", page("", "c1", [auditLine()], "old"));
    await auditLog.append("a", page("", "c2", [], "new"));

    expect(await auditLog.cursor("a", "old")).toBe("c1");
    expect(await auditLog.cursor("a", "new")).toBe("c2");
    expect(await auditLog.cursor("b", "new")).toBe("");
  });

  rule(
    "the newest lines are kept, at most AUDIT_LINES_MAX, and the dropped ones stay counted",
    async ({ auditLog }) => {
      const batch = Array.from({ length: AUDIT_LINES_MAX - 1 }, () => auditLine());
      await auditLog.append("a", page("", "c1", batch));
      await auditLog.append("a", page("c1", "c2", [auditLine(), auditLine(), auditLine({ path: "/last" })]));

      const kept = await auditLog.read("a", ALL);

      expect(kept).toHaveLength(AUDIT_LINES_MAX);
      expect(kept[0]?.seq).toBe(3);
      expect(kept.at(-1)).toMatchObject({ seq: AUDIT_LINES_MAX + 2, line: { path: "/last" } });
      expect((await auditLog.counters("a")).allowed).toBe(AUDIT_LINES_MAX + 2);
    },
  );

  rule("a line of absurd length is kept with its texts cut", async ({ auditLog }) => {
    await auditLog.append(
      "a",
      page("", "c1", [auditLine({ path: "/".repeat(1_000_000), dlp: ["x".repeat(100_000)] })]),
    );

    const [kept] = await auditLog.read("a", ALL);

    expect(JSON.stringify(kept).length).toBeLessThan(10_000);
    expect(kept?.line).toMatchObject({ host: "api.example.com", bytesDown: 10 });
  });

  rule(
    "forget takes lines, cursors and counters of that bottle alone; the journal's forget does the same",
    async (parts) => {
      const { auditLog, journal } = parts;
      for (const uid of ["a", "b", "c"]) await auditLog.append(uid, page("", "c1", [auditLine()]));

      await auditLog.forget("a");
      await auditLog.forget("a");
      await journal.forget("b");

      for (const uid of ["a", "b"]) {
        expect(await auditLog.read(uid, ALL)).toEqual([]);
        expect(await auditLog.cursor(uid, "g")).toBe("");
        expect(await auditLog.counters(uid)).toEqual({ allowed: 0, denied: 0, dlpBlocked: 0, hosts: {} });
      }
      expect(await auditLog.read("c", ALL)).toHaveLength(1);
    },
  );
}

function countingRules(rule: Rule): void {
  rule("counters tell allowed from denied, and name the newest denial", async ({ auditLog }) => {
    const dlp = auditLine({ verdict: "Denied", rule: "dlp", bytesUp: 0, bytesDown: 0 });
    const asked = auditLine({
      verdict: "ApprovalRequired",
      rule: "ask",
      host: "b.example",
      time: "2026-01-02T00:00:00Z",
    });
    await auditLog.append("a", page("", "c1", [auditLine(), dlp, asked, auditLine({ verdict: "Failed" })]));

    expect(await auditLog.counters("a")).toEqual({
      allowed: 1,
      denied: 2,
      dlpBlocked: 1,
      lastDenied: { time: "2026-01-02T00:00:00Z", host: "b.example", port: 443, rule: "ask" },
      hosts: {
        "api.example.com": { allowed: 1, denied: 1, bytesUp: 2, bytesDown: 20 },
        "b.example": { allowed: 0, denied: 1, bytesUp: 1, bytesDown: 10 },
      },
    });
  });

  rule("hosts have a bound, and refused ones cannot hide one that was allowed", async ({ auditLog }) => {
    const refused = Array.from({ length: 1000 }, (_, n) => auditLine({ verdict: "Denied", host: `x${n}.example` }));
    await auditLog.append("a", page("", "c1", refused));
    await auditLog.append("a", page("c1", "c2", [auditLine({ host: "real.example" })]));

    const { hosts, denied } = await auditLog.counters("a");

    expect(Object.keys(hosts)).toHaveLength(256);
    expect(hosts["real.example"]).toMatchObject({ allowed: 1 });
    expect(denied).toBe(1000);
    expect(Object.values(hosts).reduce((sum, host) => sum + host.denied, 0)).toBe(1000);
  });

  rule("a host may be called as a member of every object is", async ({ auditLog }) => {
    const lines = ["__proto__", "constructor"].map((host) => auditLine({ host }));
    await auditLog.append("a", page("", "c1", lines));
    await auditLog.append("a", page("c1", "c2", lines));

    const { hosts } = await auditLog.counters("a");

    expect(Object.entries(hosts).map(([host, { allowed }]) => [host, allowed])).toEqual([
      ["__proto__", 2],
      ["constructor", 2],
    ]);
  });
}

const step = fc.record({
  act: fc.constantFrom("write", "read", "store", "replace"),
  count: fc.integer({ min: 1, max: 5 }),
});

/** A guard holds lines and is asked for pages; a page may be lost before it is stored, be stored twice, or after another reader's page. */
async function againstModel({ auditLog }: Parts): Promise<void> {
  let number = 0;
  await fc.assert(
    fc.asyncProperty(fc.array(step, { minLength: 5, maxLength: 40, size: "max" }), async (history) => {
      number += 1;
      const uid = `bottle-${number}`;
      const expected = await replay(auditLog, uid, history);

      const kept = await auditLog.read(uid, ALL);
      expect(kept.map(({ line }) => line)).toEqual(expected);
      expect(kept.map(({ seq }) => seq)).toEqual(expected.map((_, n) => n + 1));
      const { allowed, denied } = await auditLog.counters(uid);
      expect(allowed + denied).toBe(expected.length);
    }),
    { numRuns: 30 },
  );
}

/** Plays the history and returns the lines that are to be kept. */
async function replay(auditLog: AuditLog, uid: string, history: readonly { act: string; count: number }[]) {
  const expected: AuditLine[] = [];
  const cursors = new Map<string, string>();
  const pages: ReturnType<typeof page>[] = [];
  let guard: { id: string; lines: AuditLine[] } = { id: "g0", lines: [] };
  for (const [index, { act, count }] of history.entries()) {
    if (act === "write") {
      const verdict = count % 2 === 0 ? "Allowed" : "Denied";
      for (let n = 0; n < count; n += 1) guard.lines.push(auditLine({ path: `/${index}/${n}`, verdict }));
    } else if (act === "replace") guard = { id: `g${index + 1}`, lines: [] };
    else if (act === "read") {
      const from = await auditLog.cursor(uid, guard.id);
      expect(from).toBe(cursors.get(guard.id) ?? "");
      pages.push(page(from, String(guard.lines.length), guard.lines.slice(Number(from)), guard.id));
    } else {
      const one = pages[count % Math.max(pages.length, 1)];
      if (one === undefined) continue;
      await auditLog.append(uid, one);
      if ((cursors.get(one.guardId) ?? "") !== one.from) continue;
      cursors.set(one.guardId, one.cursor);
      expected.push(...one.lines);
    }
  }
  return expected;
}
