import { describe, expect, it } from "vitest";
import { createEventRecorder, EVENT_TTL_MS, expireEvents } from "../../controller/loop/events.ts";
import { handClock, memoryStore, SILENT } from "./fixtures.ts";

const ABOUT = { kind: "Bottle", namespace: "default", name: "b", uid: "u" };
const TOLD = { type: "Normal", reason: "Launched", message: "it runs" } as const;

function recorder() {
  const clock = handClock();
  const { store } = memoryStore(clock.now);
  const events = createEventRecorder({ store, now: clock.now, log: SILENT });
  return { clock, store, events, all: async () => (await store.list("Event")).items };
}

describe("events", () => {
  it("that say the same of the same object are one that counts, with the times of the first and the last", async () => {
    const { clock, events, all } = recorder();

    await events.record(ABOUT, TOLD);
    clock.advance(60_000);
    await events.record(ABOUT, TOLD);
    await events.record(ABOUT, { ...TOLD, message: "something else" });

    const [first] = (await all()).filter((event) => event.message === "it runs");
    expect(await all()).toHaveLength(2);
    expect(first).toMatchObject({ count: 2, involvedObject: ABOUT, type: "Normal", reason: "Launched" });
    expect(Date.parse(first?.lastTimestamp ?? "") - Date.parse(first?.firstTimestamp ?? "")).toBe(60_000);
  });

  it("of one object are cut off after 25 at once and let through again with time, others are not affected", async () => {
    const { clock, events, all } = recorder();
    const flood = async (count: number, tag: string) => {
      for (let n = 0; n < count; n += 1) await events.record(ABOUT, { ...TOLD, message: `${tag} ${n}` });
    };

    await flood(40, "first");
    expect(await all()).toHaveLength(25);
    await events.record({ ...ABOUT, name: "quiet" }, TOLD);
    expect(await all()).toHaveLength(26);
    clock.advance(20_000);
    await flood(40, "second");

    expect(await all()).toHaveLength(28);
  });

  it("that cannot be stored are dropped and break nothing", async () => {
    const { store } = memoryStore();
    const broken = { ...store, create: () => Promise.reject(new Error("disk full")) } as typeof store;
    const warnings: string[] = [];
    const log = { ...SILENT, warn: (_fields: object, message: string) => void warnings.push(message) };

    await createEventRecorder({ store: broken, now: () => 0, log }).record(ABOUT, TOLD);

    expect(warnings).toEqual(["event dropped"]);
  });

  it("lose no count when two processes tell them at once", async () => {
    const { store, events, clock, all } = recorder();
    const other = createEventRecorder({ store, now: clock.now, log: SILENT });

    await Promise.all([events.record(ABOUT, TOLD), other.record(ABOUT, TOLD), events.record(ABOUT, TOLD)]);

    expect((await all()).map((event) => event.count)).toEqual([3]);
  });

  it("expire some time after they were last told", async () => {
    const { clock, store, events, all } = recorder();
    await events.record(ABOUT, TOLD);
    clock.advance(EVENT_TTL_MS);
    await events.record(ABOUT, { ...TOLD, message: "newer" });
    clock.advance(1);

    expect(await expireEvents(store, clock.now)).toBe(1);

    expect((await all()).map((event) => event.message)).toEqual(["newer"]);
  });
});
