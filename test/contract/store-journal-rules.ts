import { expect, test } from "vitest";
import {
  TRANSCRIPT_BYTES_MAX,
  type Journal,
  type JournalEntry,
  type Transcripts,
} from "../../controller/ports/journal.ts";
import type { OpenStore } from "./store-fixtures.ts";

const FROZEN: JournalEntry = { type: "Frozen", timeMs: 1 };
const STARTING: JournalEntry = { type: "TurnStarting", timeMs: 2, turn: "one", attempt: 1 };

interface Parts {
  journal: Journal;
  transcripts: Transcripts;
}

/** The journal and the transcripts; skipped for a driver that keeps neither. */
export function journalRules(opened: () => Promise<OpenStore>): void {
  function rule(name: string, check: (parts: Parts) => Promise<void>): void {
    test(name, async (context) => {
      const { journal, transcripts } = await opened();
      if (journal === undefined || transcripts === undefined) return context.skip("this driver keeps no journal");
      await check({ journal, transcripts });
    });
  }

  rule("an unknown uid has no entries", async ({ journal }) => {
    expect(await journal.read("nobody")).toEqual([]);
  });

  rule("entries are read in order of insertion, each uid its own", async ({ journal }) => {
    await journal.append("a", [FROZEN, STARTING]);
    await journal.append("b", [FROZEN]);
    await journal.append("a", [FROZEN]);

    const read = await journal.read("a");

    expect(read.map(({ entry }) => entry)).toEqual([FROZEN, STARTING, FROZEN]);
    expect((await journal.read("b")).map(({ entry }) => entry)).toEqual([FROZEN]);
  });

  rule("seq grows over all bottles and is never used again", async ({ journal }) => {
    await journal.append("a", [FROZEN]);
    await journal.append("b", [FROZEN]);
    const [a] = await journal.read("a");
    const [b] = await journal.read("b");
    await journal.forget("b");
    await journal.append("b", [FROZEN]);
    const [again] = await journal.read("b");

    expect([a, b, again].map((stored) => stored?.seq)).toEqual(
      [a, b, again].map((stored) => stored?.seq).toSorted((x = 0, y = 0) => x - y),
    );
    expect(new Set([a?.seq, b?.seq, again?.seq]).size).toBe(3);
  });

  rule("read afterSeq gives only what came later", async ({ journal }) => {
    await journal.append("a", [FROZEN, STARTING]);
    const [first, second] = await journal.read("a");

    expect(await journal.read("a", first?.seq)).toEqual([second]);
    expect(await journal.read("a", second?.seq)).toEqual([]);
  });

  rule("forget removes entries and transcripts of that uid only, and absent is success", async (parts) => {
    const { journal, transcripts } = parts;
    const key = { turn: "one", attempt: 1 };
    for (const uid of ["a", "b"]) {
      await journal.append(uid, [FROZEN]);
      await transcripts.save(uid, { ...key, truncated: false, bytes: Uint8Array.of(1) });
    }

    await journal.forget("a");
    await journal.forget("a");

    expect(await journal.read("a")).toEqual([]);
    expect(await transcripts.load("a", key)).toBeUndefined();
    expect(await transcripts.keys("a")).toEqual([]);
    expect(await journal.read("b")).toHaveLength(1);
    expect(await transcripts.keys("b")).toEqual([key]);
  });

  rule("a transcript is loaded as it was saved; saving again replaces it in its place", async ({ transcripts }) => {
    const one = { turn: "one", attempt: 1, truncated: true, bytes: Uint8Array.of(0, 255, 10) };
    const two = { turn: "one", attempt: 2, truncated: false, bytes: Uint8Array.of() };
    const changed = { ...one, truncated: false, bytes: Uint8Array.of(7) };

    await transcripts.save("a", one);
    await transcripts.save("a", two);
    expect(await transcripts.load("a", one)).toEqual(one);
    expect(await transcripts.load("a", two)).toEqual(two);
    await transcripts.save("a", changed);

    expect(await transcripts.load("a", one)).toEqual(changed);
    expect(await transcripts.keys("a")).toEqual([
      { turn: "one", attempt: 1 },
      { turn: "one", attempt: 2 },
    ]);
    expect(await transcripts.load("a", { turn: "two", attempt: 1 })).toBeUndefined();
  });

  rule("of a transcript that is too long the end is kept, and it says so", async ({ transcripts }) => {
    const bytes = new Uint8Array(TRANSCRIPT_BYTES_MAX + 3);
    bytes.set([1, 2, 3, 4], 0);
    bytes[bytes.length - 1] = 9;

    await transcripts.save("a", { turn: "one", attempt: 1, truncated: false, bytes });
    const kept = await transcripts.load("a", { turn: "one", attempt: 1 });

    expect(kept?.truncated).toBe(true);
    expect(kept?.bytes.length).toBe(TRANSCRIPT_BYTES_MAX);
    expect([kept?.bytes[0], kept?.bytes.at(-1)]).toEqual([4, 9]);
  });
}
