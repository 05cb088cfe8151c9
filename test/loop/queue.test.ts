import * as fc from "fast-check";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { BACKOFF_FIRST_MS, BACKOFF_LAST_MS, Queue, type QueueOptions } from "../../controller/loop/queue.ts";
import { deferred, type Deferred } from "./tools.ts";

type Result = Awaited<ReturnType<QueueOptions["process"]>>;

/** A queue whose passes end when the test says so. */
class Bench {
  readonly started: string[] = [];
  readonly inWork = new Map<string, Deferred<Result>>();
  readonly queue: Queue;
  inWorkMax = 0;

  constructor(options: { workers?: number; random?: () => number } = {}) {
    this.queue = new Queue({
      workers: options.workers ?? 1,
      now: () => Date.now(),
      random: options.random ?? (() => 0),
      process: (key) => this.#begin(key),
    });
  }

  #begin(key: string): Promise<Result> {
    if (this.inWork.has(key)) throw new Error(`"${key}" is in two passes at once`);
    const pass = deferred<Result>();
    this.started.push(key);
    this.inWork.set(key, pass);
    this.inWorkMax = Math.max(this.inWorkMax, this.inWork.size);
    return pass.promise;
  }

  async end(key: string, result?: Result): Promise<void> {
    this.#take(key).resolve(result);
    await vi.advanceTimersByTimeAsync(0);
  }

  async fail(key: string): Promise<void> {
    this.#take(key).reject(new Error("the pass failed"));
    await vi.advanceTimersByTimeAsync(0);
  }

  #take(key: string): Deferred<Result> {
    const pass = this.inWork.get(key);
    if (pass === undefined) throw new Error(`"${key}" is in no pass`);
    this.inWork.delete(key);
    return pass;
  }

  /** How long a failed key waits; the wait is over when the next pass begins. */
  async waitAfterFailure(key: string): Promise<number> {
    const from = Date.now();
    const before = this.started.length;
    await this.fail(key);
    while (this.started.length === before) await vi.advanceTimersToNextTimerAsync();
    return Date.now() - from;
  }
}

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

describe("a queue", () => {
  it("starts a pass at once", () => {
    const bench = new Bench();

    bench.queue.add("a");

    expect(bench.started).toEqual(["a"]);
  });

  it("takes keys in the order in which they came", async () => {
    const bench = new Bench();

    for (const key of ["a", "b", "c"]) bench.queue.add(key);
    await bench.end("a");
    await bench.end("b");
    await bench.end("c");

    expect(bench.started).toEqual(["a", "b", "c"]);
  });

  it("a key that waits in line is not put in line twice", async () => {
    const bench = new Bench();

    for (const key of ["a", "b", "b", "b"]) bench.queue.add(key);

    expect(bench.queue.depth).toBe(1);
    await bench.end("a");
    await bench.end("b");
    expect(bench.started).toEqual(["a", "b"]);
  });

  it("a key that is added during its pass gets one more pass, not two and not one at the same time", async () => {
    const bench = new Bench({ workers: 3 });
    bench.queue.add("a");

    bench.queue.add("a");
    bench.queue.add("a");
    expect(bench.started).toEqual(["a"]);
    await bench.end("a");
    expect(bench.started).toEqual(["a", "a"]);
    await bench.end("a");

    expect(bench.started).toEqual(["a", "a"]);
  });

  it("works on as many keys as it has workers", async () => {
    const bench = new Bench({ workers: 2 });

    for (const key of ["a", "b", "c"]) bench.queue.add(key);

    expect(bench.started).toEqual(["a", "b"]);
    await bench.end("b");
    expect(bench.started).toEqual(["a", "b", "c"]);
  });

  it("brings a key back when the pass asked for it, and not before", async () => {
    const bench = new Bench();
    bench.queue.add("a");
    await bench.end("a", { requeueAfterMs: 5000 });

    await vi.advanceTimersByTimeAsync(4999);
    expect(bench.started).toHaveLength(1);
    await vi.advanceTimersByTimeAsync(1);

    expect(bench.started).toHaveLength(2);
  });

  it("brings keys back by their times, whatever the order in which they asked", async () => {
    const bench = new Bench({ workers: 3 });
    for (const key of ["late", "soon", "middle"]) bench.queue.add(key);
    await bench.end("late", { requeueAfterMs: 9000 });
    await bench.end("soon", { requeueAfterMs: 1000 });
    await bench.end("middle", { requeueAfterMs: 5000 });

    await vi.advanceTimersByTimeAsync(9000);

    expect(bench.started.slice(3)).toEqual(["soon", "middle", "late"]);
  });

  it("a wait longer than a timer of Node can be is waited for all the same", async () => {
    const bench = new Bench();
    const monthMs = 31 * 24 * 3_600_000;
    bench.queue.add("a");
    await bench.end("a", { requeueAfterMs: monthMs });

    await vi.advanceTimersByTimeAsync(monthMs - 1);
    expect(bench.started).toHaveLength(1);
    await vi.advanceTimersByTimeAsync(1);

    expect(bench.started).toHaveLength(2);
  });

  it("a pass that wants the next at once goes to the end of the line: other keys are not starved", async () => {
    const bench = new Bench();
    bench.queue.add("a");
    bench.queue.add("b");

    await bench.end("a", { requeueAfterMs: 0 });

    expect(bench.started).toEqual(["a", "b"]);
    await bench.end("b");
    expect(bench.started).toEqual(["a", "b", "a"]);
  });

  it("an event ends the wait of a key, and the time it waited for does not bring it once more", async () => {
    const bench = new Bench();
    bench.queue.add("a");
    await bench.end("a", { requeueAfterMs: 5000 });

    bench.queue.add("a");
    expect(bench.started).toHaveLength(2);
    await vi.advanceTimersByTimeAsync(6000);
    await bench.end("a");
    await vi.advanceTimersByTimeAsync(60_000);

    expect(bench.started).toHaveLength(2);
  });

  it("works through a line of many thousand keys, each once", async () => {
    const seen = new Map<string, number>();
    const queue = new Queue({
      workers: 8,
      now: () => Date.now(),
      random: () => 0,
      process: async (key) => {
        seen.set(key, (seen.get(key) ?? 0) + 1);
        return undefined;
      },
    });

    for (let index = 0; index < 10_000; index += 1) queue.add(`key-${index}`);
    await queue.idle();

    expect(seen.size).toBe(10_000);
    expect([...new Set(seen.values())]).toEqual([1]);
  });
});

describe("backoff", () => {
  it("doubles from a second to five minutes and no further", async () => {
    const bench = new Bench();
    bench.queue.add("a");

    const waits: number[] = [];
    for (let failure = 0; failure < 12; failure += 1) waits.push(await bench.waitAfterFailure("a"));

    const doubled = Array.from({ length: 12 }, (_, index) => Math.min(BACKOFF_LAST_MS, BACKOFF_FIRST_MS * 2 ** index));
    expect(waits).toEqual(doubled);
  });

  it("is shortened by up to a fifth, so that keys that failed together do not come back together", async () => {
    const waits: number[] = [];
    for (const chance of [0, 0.5, 0.999]) {
      const bench = new Bench({ random: () => chance });
      bench.queue.add("a");
      waits.push(await bench.waitAfterFailure("a"));
    }

    expect(waits[0]).toBe(1000);
    expect(waits[1]).toBe(900);
    expect(waits[2]).toBeGreaterThanOrEqual(800);
    expect(waits[2]).toBeLessThan(810);
  });

  it("begins again after a pass that succeeded", async () => {
    const bench = new Bench();
    bench.queue.add("a");
    await bench.waitAfterFailure("a");
    await bench.waitAfterFailure("a");
    await bench.end("a", { requeueAfterMs: 0 });

    expect(await bench.waitAfterFailure("a")).toBe(BACKOFF_FIRST_MS);
  });

  it("goes on growing when an event comes in between, because the failure is not over", async () => {
    const bench = new Bench();
    bench.queue.add("a");
    await bench.fail("a");
    bench.queue.add("a");

    expect(await bench.waitAfterFailure("a")).toBe(BACKOFF_FIRST_MS * 2);
  });

  it("of one key does not hold up another", async () => {
    const bench = new Bench();
    bench.queue.add("a");
    await bench.fail("a");

    bench.queue.add("b");

    expect(bench.started).toEqual(["a", "b"]);
  });
});

describe("draining", () => {
  it("ends when the passes under way are done, and starts no other", async () => {
    const bench = new Bench({ workers: 2 });
    for (const key of ["a", "b", "c"]) bench.queue.add(key);
    let drained = false;

    void bench.queue.drain().then(() => (drained = true));
    await bench.end("a", { requeueAfterMs: 0 });
    expect(drained).toBe(false);
    await bench.fail("b");

    expect(drained).toBe(true);
    expect(bench.started).toEqual(["a", "b"]);
  });

  it("is over at once when nothing is in work", async () => {
    const bench = new Bench();

    await bench.queue.drain();

    expect(bench.started).toEqual([]);
  });

  it("leaves no timer behind and takes no more keys", async () => {
    const bench = new Bench();
    bench.queue.add("a");
    await bench.end("a", { requeueAfterMs: 5000 });

    await bench.queue.drain();
    bench.queue.add("b");

    expect(vi.getTimerCount()).toBe(0);
    expect(bench.started).toEqual(["a"]);
  });
});

describe("whatever happens in whatever order", () => {
  const keys = ["a", "b", "c", "d"] as const;
  const act = fc.oneof(
    { weight: 4, arbitrary: fc.record({ type: fc.constant("add"), key: fc.constantFrom(...keys) }) },
    {
      weight: 5,
      arbitrary: fc.record({
        type: fc.constant("end"),
        pick: fc.nat({ max: 9 }),
        result: fc.constantFrom<Result | "fails">(
          undefined,
          undefined,
          { requeueAfterMs: 0 },
          { requeueAfterMs: 3000 },
          "fails",
        ),
      }),
    },
    { weight: 2, arbitrary: fc.record({ type: fc.constant("time"), ms: fc.integer({ min: 1, max: 5000 }) }) },
  );

  it("no key is in two passes, no more passes run than workers, and after every event a pass of its key begins", async () => {
    const histories = fc.array(act, { maxLength: 40, size: "max" });
    await fc.assert(
      fc.asyncProperty(fc.integer({ min: 1, max: 3 }), histories, async (workers, history) => {
        const bench = new Bench({ workers });
        const owed = new Set<string>();
        const paid = () => {
          for (const key of bench.started.splice(0)) owed.delete(key);
        };
        for (const one of history) {
          if (one.type === "time") await vi.advanceTimersByTimeAsync(one.ms);
          else if (one.type === "add") {
            owed.add(one.key);
            bench.queue.add(one.key);
          } else {
            const key = [...bench.inWork.keys()][one.pick % Math.max(1, bench.inWork.size)];
            if (key !== undefined && one.result === "fails") await bench.fail(key);
            else if (key !== undefined && one.result !== "fails") await bench.end(key, one.result);
          }
          paid();
        }
        while (bench.inWork.size > 0) {
          for (const key of bench.inWork.keys()) await bench.end(key);
          paid();
        }
        await bench.queue.drain();

        expect(bench.inWorkMax).toBeLessThanOrEqual(workers);
        expect([...owed]).toEqual([]);
      }),
      { numRuns: 200 },
    );
  });
});
