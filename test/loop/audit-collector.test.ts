import * as fc from "fast-check";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { createAuditCollector, type AuditCollector } from "../../controller/loop/audit-collector.ts";
import { BackendError, type Backend } from "../../controller/ports/backend.ts";
import type { AuditLine, AuditPage, AuditRequest, GuardHealth } from "../../controller/ports/guard.ts";
import type { Log } from "../../controller/ports/log.ts";
import { openDatabase } from "../../controller/stores/sqlite/open-database.ts";
import { auditLine } from "../contract/store-audit-rules.ts";

const SICK: GuardHealth = { ok: false, reason: "AuditUnwritable", message: "the disk is full" };

/** Guards whose lines and health a test sets; each read can be made to fail. A read without lines waits, as a real one does. */
function guards() {
  const known = new Map<string, { lines: AuditLine[]; health: GuardHealth; digest: string }>();
  const requests: (AuditRequest & { guardId: string; atMs: number })[] = [];
  const waiting = new Set<() => void>();
  const state = { fail: (): Error | undefined => undefined, inFlight: 0, inFlightMost: 0 };
  const wake = () => {
    for (const done of waiting) done();
  };
  const wait = (ms: number, signal?: AbortSignal) =>
    new Promise<void>((resolve) => {
      const done = () => {
        clearTimeout(timer);
        waiting.delete(done);
        resolve();
      };
      const timer = setTimeout(done, ms);
      waiting.add(done);
      signal?.addEventListener("abort", done);
    });
  const readAudit: Backend["readAudit"] = async ({ guardId }, request, signal): Promise<AuditPage> => {
    requests.push({ ...request, guardId, atMs: Date.now() });
    state.inFlight += 1;
    state.inFlightMost = Math.max(state.inFlightMost, state.inFlight);
    try {
      const error = state.fail();
      if (error !== undefined) throw error;
      const from = Number(request.cursor);
      const before = JSON.stringify(known.get(guardId)?.health);
      const isQuiet = () =>
        known.get(guardId)?.lines.length === from && JSON.stringify(known.get(guardId)?.health) === before;
      if (request.waitMs > 0 && isQuiet()) await wait(request.waitMs, signal);
      const guard = known.get(guardId);
      if (guard === undefined) throw new BackendError("NotFound", "GuardNotFound", "it is gone");
      const lines = guard.lines.slice(from, from + request.linesMax);
      return { lines, cursor: String(from + lines.length), health: guard.health, digest: guard.digest };
    } finally {
      state.inFlight -= 1;
    }
  };
  return {
    backend: { readAudit } as Backend,
    requests,
    state,
    make(id: string, lines: readonly AuditLine[] = []) {
      known.set(id, { lines: [...lines], health: { ok: true }, digest: "d1" });
      return { uid: id.replace("guard-", "uid-"), guardId: id, backend: this.backend };
    },
    remove(id: string) {
      known.delete(id);
      wake();
    },
    write(id: string, ...lines: AuditLine[]) {
      known.get(id)?.lines.push(...lines);
      wake();
    },
    set(id: string, change: { health?: GuardHealth; digest?: string }) {
      const guard = known.get(id);
      if (guard !== undefined) Object.assign(guard, change);
      wake();
    },
  };
}

function rig() {
  const database = openDatabase({ file: ":memory:", admission: (_kind, object) => object, now: Date.now });
  const warnings: object[] = [];
  const log: Log = { debug() {}, info() {}, warn: (fields) => void warnings.push(fields), error() {} };
  const told: { uid: string; atMs: number }[] = [];
  const changed = (uid: string) => void told.push({ uid, atMs: Date.now() });
  const { auditLog } = database;
  const collector = createAuditCollector({ auditLog, log, now: Date.now, changed });
  const stop = new AbortController();
  const running = collector.run(stop.signal);
  return {
    collector,
    auditLog,
    told,
    warnings,
    guards: guards(),
    kept: async (uid: string) =>
      (await auditLog.read(uid, { afterSeq: 0, limit: 20_000 })).map(({ line }) => line.path),
    async [Symbol.asyncDispose]() {
      stop.abort();
      await running;
      database.close();
    },
  };
}

const paths = (...names: string[]) => names.map((path) => auditLine({ path }));

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

describe("the audit collector", () => {
  it("brings lines into the log as they are written, and keeps the counters current", async () => {
    await using test = rig();
    test.collector.follow([test.guards.make("guard-1", paths("/1"))]);
    await vi.advanceTimersByTimeAsync(1000);
    test.guards.write("guard-1", ...paths("/2", "/3"));
    await vi.advanceTimersByTimeAsync(1000);

    expect(await test.kept("uid-1")).toEqual(["/1", "/2", "/3"]);
    expect(test.collector.counters("uid-1")).toMatchObject({ allowed: 3 });
    expect(test.collector.heard("uid-1")).toEqual({ guardId: "guard-1", health: { ok: true }, digest: "d1" });
  });

  it("asks 100 quiet guards fewer than ten times a second in all", async () => {
    await using test = rig();
    test.collector.follow(Array.from({ length: 100 }, (_, n) => test.guards.make(`guard-${n}`)));
    await vi.advanceTimersByTimeAsync(5000);
    const before = test.guards.requests.length;

    await vi.advanceTimersByTimeAsync(60_000);

    expect(test.guards.requests.length - before).toBeLessThan(600);
    expect(test.guards.requests.length - before).toBeGreaterThan(100);
  });

  it("asks 100 guards that never stop writing at most 100 times a second in all", async () => {
    await using test = rig();
    const all = Array.from({ length: 100 }, (_, n) => test.guards.make(`guard-${n}`));
    test.collector.follow(all);
    const busy = setInterval(() => all.forEach(({ guardId }) => test.guards.write(guardId, auditLine())), 100);
    await vi.advanceTimersByTimeAsync(5000);
    const before = test.guards.requests.length;
    await vi.advanceTimersByTimeAsync(10_000);
    clearInterval(busy);

    expect(test.guards.requests.length - before).toBeLessThan(1000);
    expect((await test.kept("uid-7")).length).toBeGreaterThan(50);
  });

  it("never holds more reads than its bound, and still comes round to every guard", async () => {
    await using test = rig();
    test.collector.follow(Array.from({ length: 300 }, (_, n) => test.guards.make(`guard-${n}`, paths("/1"))));
    await vi.advanceTimersByTimeAsync(20_000);

    expect(test.guards.state.inFlightMost).toBeLessThanOrEqual(128);
    for (let n = 0; n < 300; n += 1) expect(test.collector.heard(`uid-${n}`)).toBeDefined();
  });

  it("backs off to 30 s while a guard cannot be read, and goes on where it was", async () => {
    await using test = rig();
    test.collector.follow([test.guards.make("guard-1", paths("/1"))]);
    test.guards.state.fail = () => new BackendError("Transient", "EngineBusy", "busy");
    await vi.advanceTimersByTimeAsync(10 * 60_000);
    const count = test.guards.requests.length;
    test.guards.state.fail = () => undefined;
    await vi.advanceTimersByTimeAsync(30_000);

    expect(count).toBeLessThan(30);
    expect(test.warnings[0]).toMatchObject({ uid: "uid-1", guard: "guard-1", failures: 1, error: "busy" });
    expect(await test.kept("uid-1")).toEqual(["/1"]);
  });

  it("lets go of a guard that is gone until it is not asked for any more", async () => {
    await using test = rig();
    const guard = test.guards.make("guard-1");
    test.collector.follow([guard]);
    await vi.advanceTimersByTimeAsync(1000);
    test.guards.remove("guard-1");
    await vi.advanceTimersByTimeAsync(1000);
    const count = test.guards.requests.length;
    test.collector.follow([guard]);
    await vi.advanceTimersByTimeAsync(120_000);
    expect(test.guards.requests).toHaveLength(count);

    test.collector.follow([test.guards.make("guard-1b", paths("/1"))].map((next) => ({ ...next, uid: "uid-1" })));
    await vi.advanceTimersByTimeAsync(1000);
    expect(await test.kept("uid-1")).toEqual(["/1"]);
  });

  it("stops reading what it does not follow, and what it heard of it does not count any more", async () => {
    await using test = rig();
    test.collector.follow([test.guards.make("guard-1", paths("/1"))]);
    await vi.advanceTimersByTimeAsync(1000);
    test.collector.follow([]);
    test.guards.write("guard-1", ...paths("/2"));
    await vi.advanceTimersByTimeAsync(60_000);

    expect(await test.kept("uid-1")).toEqual(["/1"]);
    expect(test.collector.heard("uid-1")).toBeUndefined();
    expect(test.collector.counters("uid-1")).toMatchObject({ allowed: 1 });
    test.collector.keepOnly(new Set());
    expect(test.collector.counters("uid-1")).toBeUndefined();
    expect(await test.collector.load("uid-1")).toMatchObject({ allowed: 1 });
  });

  it("tells a change of health and of settings at once, traffic at most once in two seconds", async () => {
    await using test = rig();
    test.collector.follow([test.guards.make("guard-1")]);
    await vi.advanceTimersByTimeAsync(10_000);
    expect(test.told).toHaveLength(1);
    const busy = setInterval(() => test.guards.write("guard-1", auditLine()), 50);
    await vi.advanceTimersByTimeAsync(20_000);
    clearInterval(busy);
    const traffic = test.told.length;
    await vi.advanceTimersByTimeAsync(10_000);
    const settled = test.told.length;
    expect(traffic).toBeGreaterThan(8);
    expect(settled).toBeLessThanOrEqual(13);

    test.guards.set("guard-1", { health: SICK });
    const sickMs = Date.now();
    await vi.advanceTimersByTimeAsync(500);
    expect(test.told.at(-1)).toEqual({ uid: "uid-1", atMs: sickMs });
    expect(test.collector.heard("uid-1")?.health).toEqual(SICK);
    test.guards.set("guard-1", { digest: "d2" });
    await vi.advanceTimersByTimeAsync(2500);
    expect(test.collector.heard("uid-1")?.digest).toBe("d2");
    expect(test.told).toHaveLength(settled + 2);
  });

  it("drains what is left, also without being followed and past a failure", async () => {
    await using test = rig();
    const lines = Array.from({ length: 2500 }, (_, n) => auditLine({ path: `/${n}` }));
    const guard = test.guards.make("guard-1", lines);
    const failures = [new BackendError("Transient", "EngineBusy", "busy")];
    test.guards.state.fail = () => failures.pop();
    const drained = test.collector.drain(guard, new AbortController().signal);
    await vi.advanceTimersByTimeAsync(1000);
    await drained;

    expect((await test.kept("uid-1")).length).toBe(2500);
    expect(test.guards.requests.every(({ waitMs }) => waitMs === 0)).toBe(true);
    expect(test.warnings).toEqual([]);
  });

  it("drains nothing from a guard that is gone, and gives up with a word on one that never answers", async () => {
    await using test = rig();
    const guard = test.guards.make("guard-1");
    test.guards.remove("guard-1");
    await test.collector.drain(guard, new AbortController().signal);
    expect(test.warnings).toEqual([]);

    test.guards.state.fail = () => new BackendError("Transient", "EngineBusy", "busy");
    const given = new AbortController();
    const drained = test.collector.drain(guard, given.signal);
    await vi.advanceTimersByTimeAsync(1000);
    given.abort();
    await drained;
    expect(test.warnings).toEqual([{ uid: "uid-1", guard: "guard-1", problem: "busy" }]);
  });
});

type Action = "write" | "fail" | "drain" | "unfollow" | "wait";

it("stores each line once and in order, whatever fails and whoever reads along", async () => {
  const history = fc.array(fc.constantFrom<Action>("write", "fail", "drain", "unfollow", "wait"), {
    minLength: 10,
    maxLength: 30,
  });
  await fc.assert(
    fc.asyncProperty(history, async (actions) => {
      await using test = rig();
      const guard = test.guards.make("guard-1");
      const drains: Promise<void>[] = [];
      let written = 0;
      test.collector.follow([guard]);
      for (const action of actions) await take(action, test.collector);
      test.guards.state.fail = () => undefined;
      test.collector.follow([guard]);
      await vi.advanceTimersByTimeAsync(40_000);
      await Promise.all(drains);

      expect(await test.kept("uid-1")).toEqual(Array.from({ length: written }, (_, n) => `/${n + 1}`));

      async function take(action: Action, collector: AuditCollector): Promise<void> {
        let left = 3;
        switch (action) {
          case "write":
            return test.guards.write("guard-1", ...paths(`/${(written += 1)}`, `/${(written += 1)}`));
          case "fail":
            test.guards.state.fail = () => (left-- > 0 ? new BackendError("Transient", "Busy", "busy") : undefined);
            return;
          case "drain":
            return void drains.push(collector.drain(guard, new AbortController().signal));
          case "unfollow":
            return collector.follow([]);
          case "wait":
            collector.follow([guard]);
            await vi.advanceTimersByTimeAsync(300);
        }
      }
    }),
    { numRuns: 40 },
  );
});
