import { expect } from "vitest";
import { ANNOTATIONS } from "../../controller/api/meta.ts";
import { GUARD_SCENARIOS } from "./guard-scenarios.ts";
import { Rig, simProgram, simSpec, turnsOf, type Planner } from "./rig.ts";
import { expectFrozen, expectGone, outcomes, reasonOf, unitsLeft, type Scenario } from "./scenario.ts";

const oneTurn: Scenario = {
  name: "a turn is run and the bottle freezes",
  async play(rig) {
    await rig.create(simSpec({ turns: turnsOf("exit 0") }));
    await rig.settle();
  },
  verify: (rig) => expectFrozen(rig, ["Done"]),
};

const failed: Scenario = {
  name: "a failed turn is not tried again",
  async play(rig) {
    await rig.create(simSpec({ turns: turnsOf("exit 3") }));
    await rig.settle();
    await rig.settle();
  },
  verify: (rig) => expectFrozen(rig, ["Failed"]),
};

const oom: Scenario = {
  name: "a turn that ran out of memory is told from one that failed",
  async play(rig) {
    await rig.create(simSpec({ turns: turnsOf("oom") }));
    await rig.settle();
  },
  verify: (rig) => expectFrozen(rig, ["OOMKilled"]),
};

const missing: Scenario = {
  name: "a command that does not exist fails its turn",
  async play(rig) {
    await rig.create(simSpec({ turns: turnsOf("missing") }));
    await rig.settle();
  },
  verify: (rig) => expectFrozen(rig, ["Failed"]),
};

const wake: Scenario = {
  name: "a new turn wakes a frozen bottle with its disk",
  async play(rig) {
    await rig.create(simSpec({ turns: turnsOf("exit 0") }));
    await rig.settle();
    await rig.edit((spec) => ({ ...spec, turns: turnsOf("exit 0", "exit 0") }));
    await rig.settle();
  },
  async verify(rig) {
    await expectFrozen(rig, ["Done", "Done"]);
    const workspace = [...rig.world.volumes.values()].find((volume) => volume.part === "workspace");
    expect([...(workspace?.files.keys() ?? [])].filter((path) => path.includes("turn-"))).toHaveLength(2);
  },
};

const freezeMidway: Scenario = {
  name: "a turn that a freeze interrupts goes on under its id",
  async play(rig) {
    await rig.create(simSpec({ turns: turnsOf("forever") }));
    await rig.settle();
    await rig.edit((spec) => ({ ...spec, operatingMode: "Frozen" }));
    await rig.settle();
    rig.world.program = (run) => (run.attempt === 1 ? {} : { code: 0 });
    await rig.edit((spec) => ({ ...spec, operatingMode: "Running" }));
    await rig.settle();
  },
  verify: (rig) => expectFrozen(rig, ["Done"]),
};

const deadline: Scenario = {
  name: "a turn that outlives its deadline is ended and not tried again",
  async play(rig) {
    await rig.create(
      simSpec({ turns: turnsOf("forever"), lifecycle: { afterTurn: "Freeze", turnDeadlineSeconds: 60 } }),
    );
    await rig.settle();
    rig.world.advance(61_000);
    await rig.settle();
  },
  verify: (rig) => expectFrozen(rig, ["DeadlineExceeded"]),
};

const keep: Scenario = {
  name: "Keep leaves holder and guard up, and the next turn runs in them",
  async play(rig) {
    await rig.create(
      simSpec({ turns: turnsOf("exit 0"), lifecycle: { afterTurn: "Keep", turnDeadlineSeconds: 3600 } }),
    );
    await rig.settle();
    await rig.edit((spec) => ({ ...spec, turns: turnsOf("exit 0", "exit 4") }));
    await rig.settle();
  },
  async verify(rig) {
    expect(await outcomes(rig)).toEqual(["Done", "Failed"]);
    expect(await reasonOf(rig)).toBe("Live");
    expect(unitsLeft(rig.world)).toEqual(["guard", "holder"]);
  },
};

const removed: Scenario = {
  name: "afterTurn Delete removes the bottle with everything of it",
  async play(rig) {
    await rig.create(
      simSpec({ turns: turnsOf("exit 0"), lifecycle: { afterTurn: "Delete", turnDeadlineSeconds: 3600 } }),
    );
    await rig.settle();
  },
  verify: expectGone,
};

const expired: Scenario = {
  name: "the disk of a frozen bottle goes when its time is over",
  async play(rig) {
    await rig.create(
      simSpec({
        turns: turnsOf("exit 0"),
        lifecycle: { afterTurn: "Freeze", turnDeadlineSeconds: 60, ttlSecondsAfterFrozen: 100 },
      }),
    );
    await rig.settle();
    rig.world.advance(101_000);
    await rig.settle();
  },
  verify: expectGone,
};

const deleteMidway: Scenario = {
  name: "deleting a bottle whose agent runs leaves nothing",
  async play(rig) {
    await rig.create(simSpec({ turns: turnsOf("forever") }));
    await rig.settle();
    await rig.remove();
    await rig.settle();
  },
  verify: expectGone,
};

const deleteFrozen: Scenario = {
  name: "deleting a frozen bottle leaves nothing",
  async play(rig) {
    await oneTurn.play(rig);
    await rig.remove();
    await rig.settle();
  },
  verify: expectGone,
};

const guardLost: Scenario = {
  name: "an agent without its guard is ended, and its turn goes on behind a new one",
  async play(rig) {
    await rig.create(simSpec({ turns: turnsOf("forever") }));
    await rig.settle();
    const uid = (await rig.bottle())?.metadata.uid ?? "";
    rig.world.program = () => ({ code: 0 });
    rig.world.killUnit(uid, "guard");
    await rig.settle();
  },
  verify: (rig) => expectFrozen(rig, ["Done"]),
};

const engineRestart: Scenario = {
  name: "a turn that dies with the engine goes on when the engine is back",
  async play(rig) {
    await rig.create(simSpec({ turns: turnsOf("forever") }));
    await rig.settle();
    rig.world.program = () => ({ code: 0 });
    rig.world.restartEngine();
    await rig.settle();
  },
  verify: (rig) => expectFrozen(rig, ["Done"]),
};

const removedByHand: Scenario = {
  name: "a turn whose unit somebody removed goes on as another attempt",
  async play(rig) {
    await rig.create(simSpec({ turns: turnsOf("forever") }));
    await rig.settle();
    rig.world.program = () => ({ code: 0 });
    const agent = [...rig.world.containers.values()].find((unit) => unit.role === "agent");
    if (agent !== undefined) rig.world.removeBehindOurBack(agent.id);
    await rig.settle();
  },
  verify: (rig) => expectFrozen(rig, ["Done"]),
};

const expiredDeclared: Scenario = {
  name: "a bottle that a folder declares loses its disk when its time is over, and is not run again",
  async play(rig) {
    const lifecycle = { afterTurn: "Delete", turnDeadlineSeconds: 60 } as const;
    await rig.create(simSpec({ turns: turnsOf("exit 0"), lifecycle }), { [ANNOTATIONS.source]: "folder:/bottles" });
    await rig.settle();
  },
  async verify(rig) {
    expect(await reasonOf(rig)).toBe("Expired");
    expect(rig.world.containers.size + rig.world.volumes.size).toBe(0);
    expect(rig.world.startedRuns).toHaveLength(1);
  },
};

export const SCENARIOS: readonly Scenario[] = [
  oneTurn,
  failed,
  oom,
  missing,
  wake,
  freezeMidway,
  deadline,
  keep,
  removed,
  expired,
  deleteMidway,
  deleteFrozen,
  guardLost,
  engineRestart,
  removedByHand,
  expiredDeclared,
  ...GUARD_SCENARIOS,
];

/** Plays a scenario in a fresh installation. `disturb` may plant faults before the story begins. */
export async function playScenario(
  scenario: Scenario,
  plan: Planner,
  disturb: (rig: Rig) => void = () => {},
): Promise<Rig> {
  const rig = new Rig(plan);
  rig.world.program = simProgram;
  disturb(rig);
  await scenario.play(rig);
  rig.world.faults = {};
  rig.storeWritesLeft = undefined;
  await rig.settle();
  await scenario.verify(rig);
  const calls = rig.world.calls.filter((call) => call.verb !== "list").length;
  await rig.settle();
  expect(rig.world.calls.filter((call) => call.verb !== "list").length, "at rest a second look makes no call").toBe(
    calls,
  );
  return rig;
}
