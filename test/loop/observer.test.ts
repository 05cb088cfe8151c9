import { describe, expect, it } from "vitest";
import { createObserver, createTicker } from "../../controller/loop/observer.ts";
import { BackendError, type Observation } from "../../controller/ports/backend.ts";
import { deferred, recordingBackend, settled, type Deferred } from "./tools.ts";

/** A backend whose looks end when the test says so. */
function bench() {
  const ticker = createTicker();
  const looks: Deferred<Observation>[] = [];
  const { backend } = recordingBackend({
    observe: () => {
      const look = deferred<Observation>();
      looks.push(look);
      return look.promise;
    },
  });
  const observer = createObserver(backend, ticker);
  return {
    looks,
    mark: () => ticker.next(),
    ask: (mark: number) => observer.lookSince(mark),
    answer: (index: number) => looks[index]?.resolve(observation(index)),
    fail: (index: number, error: unknown) => looks[index]?.reject(error),
  };
}

/** Tells looks apart: `atMs` is the number of the look. */
function observation(atMs: number): Observation {
  return { atMs, bottles: new Map() };
}

const DOWN = new BackendError("Unavailable", "EngineUnavailable", "the engine does not answer");

describe("an observer", () => {
  it("shows what it saw before those who wait for the look go on, and nothing of a look that failed", async () => {
    const order: string[] = [];
    const answers = [async () => observation(7), () => Promise.reject(DOWN)];
    const { backend } = recordingBackend({ observe: () => answers.shift()?.() ?? Promise.reject(DOWN) });
    const ticker = createTicker();
    const observer = createObserver(backend, ticker, ({ atMs }) => order.push(`seen ${atMs}`));

    await observer.lookSince(ticker.next()).then(() => order.push("asked"));
    await observer.lookSince(ticker.next()).then(() => order.push("asked"));

    expect(order).toEqual(["seen 7", "asked", "asked"]);
  });

  it("makes one look for all who ask while it is under way", async () => {
    const { looks, mark, ask, answer } = bench();
    const marks = [mark(), mark(), mark()];

    const asked = marks.map((one) => ask(one));
    answer(0);

    expect(await Promise.all(asked)).toEqual(asked.map(() => ({ ok: true, observation: observation(0) })));
    expect(looks).toHaveLength(1);
  });

  it("a look that is over serves everything that happened before it began", async () => {
    const { looks, mark, ask, answer } = bench();
    const early = mark();
    const asked = ask(mark());
    answer(0);
    await asked;

    expect(await ask(early)).toEqual({ ok: true, observation: observation(0) });
    expect(looks).toHaveLength(1);
  });

  it("a look that began before the mark is not used: it may have missed what the mark stands for", async () => {
    const { looks, mark, ask, answer } = bench();
    const first = ask(mark());
    answer(0);
    await first;

    const second = ask(mark());
    answer(1);

    expect(await second).toEqual({ ok: true, observation: observation(1) });
    expect(looks).toHaveLength(2);
  });

  it("who comes while a look is under way that began too early shares the one look after it", async () => {
    const { looks, mark, ask, answer } = bench();
    const first = ask(mark());
    const late = [ask(mark()), ask(mark()), ask(mark())];
    await settled();
    expect(looks).toHaveLength(1);

    answer(0);
    await first;
    await settled();
    answer(1);

    expect(await Promise.all(late)).toEqual(late.map(() => ({ ok: true, observation: observation(1) })));
    expect(looks).toHaveLength(2);
  });

  it("a look that waited its turn serves nobody who comes after it", async () => {
    const { looks, mark, ask, answer } = bench();
    const first = ask(mark());
    const queued = ask(mark());
    answer(0);
    await first;
    await settled();
    answer(1);
    await queued;

    const late = ask(mark());
    answer(2);

    expect(await late).toEqual({ ok: true, observation: observation(2) });
    expect(looks).toHaveLength(3);
  });

  it("looks once at a time, also when somebody asks at the very moment at which a look ends", async () => {
    const { looks, mark, ask, answer } = bench();
    const first = ask(mark());
    const queued = ask(mark());

    answer(0);
    const asked: Promise<unknown>[] = [];
    await first;
    for (let turn = 0; turn < 8; turn += 1) {
      asked.push(ask(mark()));
      await Promise.resolve();
    }
    await settled();

    expect(looks).toHaveLength(2);
    answer(1);
    await settled();
    answer(2);
    await Promise.all([queued, ...asked]);
    expect(looks.length).toBeLessThanOrEqual(3);
  });

  it("a failure is an answer that all who wait share", async () => {
    const { looks, mark, ask, fail } = bench();
    const asked = [mark(), mark()].map((one) => ask(one));
    fail(0, DOWN);

    const [first, second] = await Promise.all(asked);

    expect(first).toMatchObject({ ok: false, message: expect.stringContaining("the engine does not answer") });
    expect(second).toEqual(first);
    expect(looks).toHaveLength(1);
  });

  it("a failure does not stick: the next mark brings a new look", async () => {
    const { mark, ask, answer, fail } = bench();
    const first = ask(mark());
    fail(0, DOWN);
    await first;

    const second = ask(mark());
    answer(1);

    expect(await second).toMatchObject({ ok: true });
  });

  it("a bug in a backend is thrown at who asks, and neither kills the process nor sticks", async () => {
    const { mark, ask, answer, fail } = bench();
    const first = ask(mark());
    const queued = ask(mark());
    fail(0, new TypeError("a bug"));
    await expect(first).rejects.toThrow("a bug");
    await settled();

    answer(1);
    expect(await queued).toMatchObject({ ok: true });
    const third = ask(mark());
    answer(2);
    expect(await third).toMatchObject({ ok: true });
  });
});
