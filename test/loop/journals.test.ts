import { describe, expect, it } from "vitest";
import { createJournals } from "../../controller/loop/journals.ts";
import type { Journal, JournalEntry } from "../../controller/ports/journal.ts";
import { memoryDatabase } from "./tools.ts";

const FROZEN: JournalEntry = { type: "Frozen", timeMs: 7 };
const STARTING: JournalEntry = { type: "TurnStarting", timeMs: 5, turn: "1", attempt: 1 };

function bench() {
  const { journal } = memoryDatabase();
  const reads: (number | undefined)[] = [];
  const counted: Journal = {
    ...journal,
    read: (uid, afterSeq) => {
      reads.push(afterSeq);
      return journal.read(uid, afterSeq);
    },
  };
  return { journal, reads, journals: createJournals(counted) };
}

describe("the folded journals", () => {
  it("what was appended is known at once and stored", async () => {
    const { journal, journals } = bench();
    await journals.stateOf({ uid: "a", resourceVersion: "1" });

    await journals.append("a", [STARTING, FROZEN]);

    const state = await journals.stateOf({ uid: "a", resourceVersion: "1" });
    expect(state.frozenMs).toBe(7);
    expect(state.turns.get("1")?.starting).toBe(1);
    expect((await journal.read("a")).map(({ entry }) => entry)).toEqual([STARTING, FROZEN]);
  });

  it("an unchanged bottle costs no read", async () => {
    const { reads, journals } = bench();
    await journals.stateOf({ uid: "a", resourceVersion: "1" });
    const before = reads.length;

    await journals.stateOf({ uid: "a", resourceVersion: "1" });

    expect(reads).toHaveLength(before);
  });

  it("entries of another process are read when the bottle has changed, and only those", async () => {
    const { journal, reads, journals } = bench();
    await journals.append("a", [STARTING]);
    await journals.stateOf({ uid: "a", resourceVersion: "1" });
    await journal.append("a", [FROZEN]);

    const state = await journals.stateOf({ uid: "a", resourceVersion: "2" });

    expect(state.frozenMs).toBe(7);
    expect(state.turns.get("1")?.starting).toBe(1);
    expect(reads.at(-1)).toBe(1);
  });

  it("journals of bottles are apart", async () => {
    const { journals } = bench();

    await journals.append("a", [FROZEN]);

    expect((await journals.stateOf({ uid: "b", resourceVersion: "1" })).frozenMs).toBeUndefined();
  });

  it("a forgotten journal is gone, here and in the store", async () => {
    const { journal, journals } = bench();
    await journals.append("a", [FROZEN]);

    await journals.forget("a");

    expect((await journals.stateOf({ uid: "a", resourceVersion: "1" })).frozenMs).toBeUndefined();
    expect(await journal.read("a")).toEqual([]);
  });

  it("drops what it knows of bottles that are gone, and of no other", async () => {
    const { reads, journals } = bench();
    for (const uid of ["gone", "kept"]) await journals.stateOf({ uid, resourceVersion: "1" });

    journals.keepOnly(new Set(["kept"]));

    const before = reads.length;
    await journals.stateOf({ uid: "kept", resourceVersion: "1" });
    expect(reads).toHaveLength(before);
    await journals.stateOf({ uid: "gone", resourceVersion: "1" });
    expect(reads).toHaveLength(before + 1);
  });

  it("what could not be stored is not believed", async () => {
    const { journal } = memoryDatabase();
    const journals = createJournals({ ...journal, append: () => Promise.reject(new Error("the disk is full")) });

    await expect(journals.append("a", [FROZEN])).rejects.toThrow("the disk is full");

    expect((await journals.stateOf({ uid: "a", resourceVersion: "1" })).frozenMs).toBeUndefined();
  });
});
