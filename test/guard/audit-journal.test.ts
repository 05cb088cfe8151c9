import * as fc from "fast-check";
import { mkdirSync, mkdtempSync, readdirSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { createAuditJournal, type AuditJournal } from "../../backends/guard/audit-journal.ts";
import type { AuditFiles } from "../../backends/guard/audit-segments.ts";
import type { AuditLine } from "../../controller/ports/guard.ts";

let dir = "";
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), "bb-audit-"));
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

function line(name: string, part: Partial<AuditLine> = {}): AuditLine {
  return {
    v: 1,
    time: "2026-11-20T12:00:00.000Z",
    kind: "request",
    verdict: "Allowed",
    rule: "model",
    reason: "allowed",
    protocol: "HTTPS",
    host: "api.example",
    port: 443,
    method: "GET",
    path: `/${name}`,
    bytesUp: 0,
    bytesDown: 0,
    ms: 1,
    injected: [],
    dlp: [],
    ...part,
  };
}

function names(lines: readonly AuditLine[]): string[] {
  return lines.map(({ path, rule }) => (rule === "audit-unavailable" ? "(lost)" : path.slice(1)));
}

/** A directory in memory that can be told to fail. A write may also take a part of what it is given, as a disk does that becomes full. */
function memoryFiles() {
  const contents = new Map<string, Buffer>();
  const open: string[] = [];
  const disk = { fails: "" as string, takes: Number.POSITIVE_INFINITY, atOnce: Number.POSITIVE_INFINITY, contents };
  const guard = () => {
    if (disk.fails !== "")
      throw Object.assign(new Error("a message that quotes what was written"), { code: disk.fails });
  };
  const of = (file: number) => contents.get(open[file] ?? "") ?? Buffer.from(new ArrayBuffer(0));
  const files: AuditFiles = {
    list: () => [...contents.keys()],
    open(name) {
      guard();
      if (!contents.has(name)) contents.set(name, Buffer.from(new ArrayBuffer(0)));
      return open.push(name) - 1;
    },
    size: (file) => of(file).length,
    write(file, bytes, position) {
      const part = bytes.subarray(0, Math.min(disk.takes, disk.atOnce));
      if (disk.takes <= 0 || disk.fails !== "") guard();
      const before = of(file);
      const end = Math.max(before.length, position + part.length);
      // Room to grow lies behind the view, so that a long file is not copied for each line.
      const space =
        before.byteOffset === 0 && before.buffer.byteLength >= end ? before.buffer : new ArrayBuffer(2 * end);
      const after = Buffer.from(space, 0, end);
      if (space !== before.buffer) before.copy(after);
      after.set(part, position);
      contents.set(open[file] ?? "", after);
      disk.takes -= part.length;
      if (disk.takes <= 0) disk.fails = "ENOSPC";
      return part.length;
    },
    read(file, into, position) {
      return of(file).copy(into, 0, position, position + into.length);
    },
    close: () => {},
    remove: (name) => void contents.delete(name),
  };
  return { files, disk };
}

function journalOf(options: Partial<Parameters<typeof createAuditJournal>[0]> = {}): AuditJournal {
  return createAuditJournal({ dir, now: () => 0, ...options });
}

async function drain(
  journal: AuditJournal,
  cursor = "",
  linesMax = 1_000,
): Promise<{ lines: AuditLine[]; cursor: string }> {
  const lines: AuditLine[] = [];
  for (let at = cursor; ;) {
    const page = await journal.read({ cursor: at, waitMs: 0, linesMax });
    lines.push(...page.lines);
    at = page.cursor;
    if (page.lines.length === 0) return { lines, cursor: at };
  }
}

describe("audit journal", () => {
  it("a line is on disk when write returns", () => {
    const journal = journalOf();

    journal.write(line("a"));

    const [file] = readdirSync(dir);
    expect(statSync(join(dir, file ?? "")).size).toBe(JSON.stringify(line("a")).length + 1);
    expect(statSync(join(dir, file ?? "")).mode & 0o777).toBe(0o600);
    journal.close();
  });

  it("lines come back whole, in order, page by page", async () => {
    const journal = journalOf();
    const written = ["a", "b", "ü€𝄞", "d", "e"].map((name) => line(name));
    for (const one of written) journal.write(one);

    const first = await journal.read({ cursor: "", waitMs: 0, linesMax: 2 });
    const rest = await drain(journal, first.cursor);

    expect([...first.lines, ...rest.lines]).toEqual(written);
    journal.close();
  });

  it("a page asked for again before the next one holds the same lines", async () => {
    const journal = journalOf();
    for (const name of ["a", "b"]) journal.write(line(name));
    const { cursor } = await journal.read({ cursor: "", waitMs: 0, linesMax: 1 });

    const once = await journal.read({ cursor, waitMs: 0, linesMax: 1 });
    const again = await journal.read({ cursor, waitMs: 0, linesMax: 1 });

    expect(again).toEqual(once);
    journal.close();
  });

  it("a reader that waits gets a line when it comes, and nothing when its time is up", async () => {
    const journal = journalOf();
    const { cursor } = await journal.read({ cursor: "", waitMs: 0, linesMax: 10 });

    const waiting = journal.read({ cursor, waitMs: 20_000, linesMax: 10 });
    journal.write(line("a"));
    journal.write(line("b"));
    const page = await waiting;
    const empty = await journal.read({ cursor: page.cursor, waitMs: 5, linesMax: 10 });

    expect(names(page.lines)).toEqual(["a", "b"]);
    expect(empty.lines).toEqual([]);
    expect(empty.cursor).toBe(page.cursor);
    journal.close();
  });

  it("a reader that goes away or outlives the journal does not wait on", async () => {
    const journal = journalOf();
    const { cursor } = await journal.read({ cursor: "", waitMs: 0, linesMax: 10 });
    const gone = new AbortController();

    const aborted = journal.read({ cursor, waitMs: 20_000, linesMax: 10 }, gone.signal);
    gone.abort();
    expect((await aborted).lines).toEqual([]);
    const closed = journal.read({ cursor, waitMs: 20_000, linesMax: 10 });
    journal.close();
    expect((await closed).lines).toEqual([]);
  });

  it("files that were read to their end are removed, and no line is missed across them", async () => {
    const journal = journalOf({ segmentBytesMax: 1_000 });
    for (let n = 0; n < 50; n += 1) journal.write(line(String(n)));
    expect(readdirSync(dir).length).toBeGreaterThan(10);

    const { lines, cursor } = await drain(journal, "", 7);

    expect(names(lines)).toEqual(Array.from({ length: 50 }, (_, n) => String(n)));
    expect(readdirSync(dir).length).toBe(1);
    journal.write(line("after"));
    expect(names((await drain(journal, cursor)).lines)).toEqual(["after"]);
    journal.close();
  });

  it("a cursor of another journal begins at the beginning and forgets nothing", async () => {
    const journal = journalOf({ segmentBytesMax: 300 });
    for (const name of ["a", "b", "c"]) journal.write(line(name));

    for (const cursor of ["0123456789abcdef:999999", "nonsense", ":", "1:2:3"]) {
      const { lines } = await journal.read({ cursor, waitMs: 0, linesMax: 10 });
      expect(names(lines)).toEqual(["a", "b", "c"]);
    }
    journal.close();
  });

  it("a disk that is full makes it unwell by code alone, keeps the lines, and writes them when there is room again", async () => {
    const { files, disk } = memoryFiles();
    let nowMs = 0;
    const journal = journalOf({ files, now: () => nowMs });
    journal.write(line("a"));
    disk.takes = 20;

    expect(journal.write(line("b"))).toBe(true);
    expect(journal.write(line("c"))).toBe(true);
    const sick = journal.health();
    expect(sick).toMatchObject({ ok: false, reason: "AuditUnwritable" });
    expect(JSON.stringify(sick)).toContain("ENOSPC");
    expect(JSON.stringify(sick)).not.toContain("quotes");
    expect(names((await journal.read({ cursor: "", waitMs: 0, linesMax: 10 })).lines)).toEqual(["a"]);

    Object.assign(disk, { fails: "", takes: Number.POSITIVE_INFINITY });
    nowMs += 999;
    expect(journal.health().ok).toBe(false);
    nowMs += 1;
    expect(journal.health()).toEqual({ ok: true });
    expect(names((await drain(journal)).lines)).toEqual(["a", "b", "c"]);
  });

  it("a directory that is not there makes it unwell, not the process; it works when the directory comes", () => {
    let nowMs = 0;
    rmSync(dir, { recursive: true });
    const journal = journalOf({ now: () => nowMs });
    expect(journal.health()).toMatchObject({ ok: false, reason: "AuditUnwritable" });

    mkdirSync(dir);
    expect(journal.health().ok).toBe(false);
    nowMs += 1_000;
    expect(journal.health()).toEqual({ ok: true });
    journal.close();
  });

  it("a reader that waits hears of a change of health at once", async () => {
    const { files, disk } = memoryFiles();
    const journal = journalOf({ files });
    const { cursor } = await journal.read({ cursor: "", waitMs: 0, linesMax: 10 });

    const startMs = performance.now();
    const waiting = journal.read({ cursor, waitMs: 20_000, linesMax: 10 });
    disk.fails = "EIO";
    journal.write(line("a"));

    expect((await waiting).health).toMatchObject({ ok: false, reason: "AuditUnwritable" });
    expect(performance.now() - startMs).toBeLessThan(10_000);
    journal.close();
  });

  it("lines that nobody reads make it unwell until they are read", async () => {
    const { files } = memoryFiles();
    const journal = journalOf({ files, unreadBytesMax: 1_000 });
    for (let n = 0; n < 10; n += 1) expect(journal.write(line(String(n)))).toBe(true);
    expect(journal.health()).toMatchObject({ ok: false, reason: "AuditFull" });

    const { lines } = await drain(journal);

    expect(names(lines)).toEqual(Array.from({ length: 10 }, (_, n) => String(n)));
    expect(journal.health()).toEqual({ ok: true });
  });

  it("what cannot even be kept is counted in a line of its own", async () => {
    const { files, disk } = memoryFiles();
    let nowMs = 0;
    const journal = journalOf({ files, now: () => nowMs });
    disk.fails = "ENOSPC";
    let kept = 0;
    while (journal.write(line("x".repeat(10_000)))) kept += 1;
    for (let n = 0; n < 4; n += 1) expect(journal.write(line("y".repeat(10_000)))).toBe(false);

    disk.fails = "";
    nowMs += 1_000;
    const { lines } = await drain(journal);

    expect(lines.length).toBe(kept + 1);
    expect(lines.at(-1)).toMatchObject({ rule: "audit-unavailable", verdict: "Denied" });
    expect(lines.at(-1)?.reason).toMatch(/^5 requests /);
  });

  it("a guard that starts again in the same directory goes on where the last one stopped", async () => {
    const first = journalOf({ segmentBytesMax: 600 });
    for (const name of ["a", "b", "c", "d"]) first.write(line(name));
    const { cursor } = await first.read({ cursor: "", waitMs: 0, linesMax: 1 });
    first.close();

    const second = journalOf({ segmentBytesMax: 600 });
    second.write(line("e"));

    expect(names((await drain(second, cursor)).lines)).toEqual(["b", "c", "d", "e"]);
    second.close();
  });

  it("part of a line that a crash left behind is no line, and a reader ahead of what is left misses none", async () => {
    const { files, disk } = memoryFiles();
    const first = journalOf({ files });
    for (const name of ["a", "b", "c"]) first.write(line(name));
    const { cursor } = await drain(first);
    // The machine lost the end of what was written; the reader had it already.
    for (const [name, bytes] of disk.contents) disk.contents.set(name, bytes.subarray(0, bytes.indexOf("\n") + 5));

    const second = journalOf({ files });
    for (const name of ["d", "e", "f", "g"]) second.write(line(name));

    expect(names((await drain(second)).lines)).toEqual(["a", "d", "e", "f", "g"]);
    expect(names((await drain(second, cursor)).lines)).toEqual(["d", "e", "f", "g"]);
  });

  it("any history of writes, reads, lost answers, full disks and starts delivers every accepted line once and in order", async () => {
    await fc.assert(fc.asyncProperty(fc.array(STEP, { maxLength: 60 }), playHistory), { numRuns: 300 });
  });
});

const STEP = fc.oneof(
  { weight: 6, arbitrary: fc.record({ do: fc.constant("write" as const), size: fc.integer({ min: 1, max: 400 }) }) },
  {
    weight: 4,
    arbitrary: fc.record({
      do: fc.constant("read" as const),
      most: fc.integer({ min: 1, max: 5 }),
      answered: fc.boolean(),
    }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("fill" as const), takes: fc.integer({ min: 0, max: 700 }) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("bite" as const), atOnce: fc.integer({ min: 1, max: 500 }) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("empty" as const) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("restart" as const) }) },
);
type Step = typeof STEP extends fc.Arbitrary<infer T> ? T : never;

async function playHistory(steps: readonly Step[]): Promise<void> {
  const { files, disk } = memoryFiles();
  const room = { fails: "", takes: Number.POSITIVE_INFINITY };
  const world = { nowMs: 0, cursor: "", count: 0 };
  const accepted: string[] = [];
  const delivered: string[] = [];
  const start = () => journalOf({ files, now: () => world.nowMs, segmentBytesMax: 900 });
  let journal = start();
  for (const step of steps) {
    world.nowMs += 400;
    if (step.do === "write") {
      world.count += 1;
      const name = `${world.count}-${"x".repeat(step.size)}`;
      if (journal.write(line(name))) accepted.push(name);
    } else if (step.do === "read") {
      const page = await journal.read({ cursor: world.cursor, waitMs: 0, linesMax: step.most });
      if (!step.answered) continue;
      delivered.push(...names(page.lines));
      world.cursor = page.cursor;
    } else if (step.do === "fill") {
      disk.takes = step.takes;
    } else if (step.do === "bite") {
      disk.atOnce = step.atOnce;
    } else if (step.do === "empty") {
      Object.assign(disk, room);
    } else if (journal.health().ok) {
      // What a guard that ends could not write is lost with it, and it said so: it was not well.
      journal.close();
      journal = start();
    }
  }
  Object.assign(disk, room);
  world.nowMs += 1_000;
  delivered.push(...names((await drain(journal, world.cursor)).lines));

  expect(delivered).toEqual(accepted);
  expect(journal.health()).toEqual({ ok: true });
  journal.close();
}
