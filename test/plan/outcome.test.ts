import { describe, expect, it } from "vitest";
import { outcomeOf } from "../../controller/plan/outcome.ts";
import { situationOf } from "../../controller/plan/situation.ts";
import type { Unit } from "../../controller/ports/backend.ts";
import { NOW, readCase } from "./case-reader.ts";

/** The end of the run of a bottle whose agent is as given; plan cases tell outcomes, these tests what stands beside them. */
function endOf(change: Partial<Unit>) {
  const { desired, observed } = readCase(`# An agent has ended.
bottle: { turns: [first] }
journal: [launch, probe, starting first 1]
units: [holder running, guard running, agent first 1 exited 3 5s ago]
plan: { ready: [Reconciling, TurnEnded] }
`);
  const situation = situationOf(desired, observed, NOW);
  const [agent] = situation.agents;
  if (agent === undefined) throw new Error("there is no agent");
  return outcomeOf(situation, { ...agent, unit: { ...agent.unit, ...change } });
}

describe("the record of an ended run", () => {
  it("has the times of the backend: the controller may have slept meanwhile", () => {
    const { entry } = endOf({ startedMs: NOW - 60_000, finishedMs: NOW - 5000 });

    expect(entry).toEqual({
      type: "TurnFinished",
      timeMs: NOW,
      turn: "first",
      attempt: 1,
      outcome: "Failed",
      exitCode: 3,
      startMs: NOW - 60_000,
      endMs: NOW - 5000,
    });
  });

  it("of which the backend cannot say when it ended, ended now", () => {
    expect(endOf({ finishedMs: undefined }).entry.endMs).toBe(NOW);
  });

  it("is told as a warning with the exit code, unless all went well", () => {
    expect(endOf({}).event).toEqual({
      type: "Warning",
      reason: "TurnFailed",
      message: 'turn "first" failed: exit code 3',
    });
    expect(endOf({ exit: { code: 0, oom: false } }).event).toEqual({
      type: "Normal",
      reason: "TurnDone",
      message: 'turn "first" is done',
    });
    expect(endOf({ exit: { oom: false } }).event.message).toBe('turn "first" was interrupted: no exit code');
  });
});
