import { describe, expect, it } from "vitest";
import { EMPTY_JOURNAL, foldEntry, foldJournal, historyOf } from "../../controller/plan/journal-state.ts";
import type { JournalEntry } from "../../controller/ports/journal.ts";
import { journalEntry } from "./case-notation.ts";

const NOW = 1_800_000_000_000;

function folded(...lines: string[]) {
  return foldJournal(
    EMPTY_JOURNAL,
    lines.map((line) => journalEntry(line, { now: NOW, digest: "sha256:1" })),
  );
}

describe("the folded journal", () => {
  it("knows the newest settings of a guard only: those of an earlier one say nothing any more", () => {
    const { configured } = folded("configured guard-0", "configured old guard-1");

    expect(configured).toMatchObject({ guardId: "guard-1", digest: "sha256:old" });
  });

  it("says nothing of a turn that was never announced", () => {
    expect(historyOf(folded("launch"), "first")).toEqual({ starting: 0, finished: 0, breakdowns: 0 });
  });

  it("a launch ends the time of being frozen", () => {
    expect(folded("launch", "frozen 5s ago").frozenMs).toBe(NOW - 5000);
    expect(folded("launch", "frozen", "launch").frozenMs).toBeUndefined();
  });

  it("the newest launch and the newest probe count", () => {
    const { launch, probe } = folded("launch 9s ago", "probe holder-1", "launch 3s ago", "probe failed holder-2");

    expect(launch?.timeMs).toBe(NOW - 3000);
    expect(probe).toMatchObject({ holderId: "holder-2", passed: false });
  });

  it("counts attempts by their numbers, so that an entry written twice after a crash counts once", () => {
    const twice = folded("starting first 1", "starting first 1", "finished first 1 Done 0", "finished first 1 Done 0");

    expect(historyOf(twice, "first")).toMatchObject({ starting: 1, finished: 1 });
  });

  it("an interruption is a breakdown unless a freeze of that very attempt was asked for", () => {
    const broken = folded("starting first 1", "finished first 1 Interrupted");
    const frozen = folded("starting first 1", "stop first 1 Freeze", "finished first 1 Interrupted");
    const later = folded("stop first 1 Freeze", "finished first 1 Interrupted", "finished first 2 Interrupted");
    const guard = folded("starting first 1", "stop first 1 GuardLost", "finished first 1 Interrupted");

    const breakdowns = [broken, frozen, later, guard].map((state) => historyOf(state, "first").breakdowns);
    expect(breakdowns).toEqual([1, 0, 1, 1]);
  });

  it("an end that is no interruption is no breakdown", () => {
    expect(historyOf(folded("starting first 1", "finished first 1 Failed 1"), "first").breakdowns).toBe(0);
  });

  it("turns have histories of their own", () => {
    const state = folded("starting first 1", "finished first 1 Done 0", "starting second 1");

    expect(historyOf(state, "first").last?.outcome).toBe("Done");
    expect(historyOf(state, "second")).toMatchObject({ starting: 1, finished: 0 });
  });

  it("folding leaves the state it was given as it was, because the loop keeps it", () => {
    const before = folded("launch", "starting first 1");
    const copy = structuredClone(before);
    const entry: JournalEntry = journalEntry("finished first 1 Done 0", { now: NOW, digest: "sha256:1" });

    const after = foldEntry(before, entry);

    expect(before).toEqual(copy);
    expect(after).not.toEqual(before);
  });
});
