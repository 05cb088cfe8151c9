import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import { CALL_FAULTS, type Fault } from "../../backends/fake/index.ts";
import { planBottle } from "../../controller/plan/plan-bottle.ts";
import { conditionOf } from "../../controller/api/conditions.ts";
import { HOST, Rig, simSpec, type Planner } from "./rig.ts";

/** One thing that happens to an installation. Most of them are passes of the loop, so that histories get somewhere. */
type Act =
  | { do: "pass"; fault?: { at: number; fault: Fault } }
  | { do: "append" }
  | { do: "mode"; mode: "Running" | "Frozen" }
  | { do: "exit"; code: number; oom: boolean }
  | { do: "kill"; role: "agent" | "guard" | "holder" }
  | { do: "restart engine" | "restart controller" | "delete" | "remove a unit" }
  | { do: "allow"; host: string }
  | { do: "secret"; value: string | undefined }
  | { do: "guard begins anew" }
  | { do: "advance"; ms: number };

// No stale looks: that a look shows everything done before it is part of the backend's contract, and the plan leans on it.
const fault: fc.Arbitrary<Fault> = fc.constantFrom(...CALL_FAULTS);

const act: fc.Arbitrary<Act> = fc.oneof(
  { weight: 30, arbitrary: fc.record({ do: fc.constant("pass" as const) }) },
  {
    weight: 12,
    arbitrary: fc.record({
      do: fc.constant("pass" as const),
      fault: fc.record({ at: fc.integer({ min: 0, max: 12 }), fault }),
    }),
  },
  { weight: 4, arbitrary: fc.record({ do: fc.constant("append" as const) }) },
  {
    weight: 3,
    arbitrary: fc.record({
      do: fc.constant("mode" as const),
      mode: fc.constantFrom("Running" as const, "Frozen" as const),
    }),
  },
  {
    weight: 6,
    arbitrary: fc.record({ do: fc.constant("exit" as const), code: fc.constantFrom(0, 1, 137), oom: fc.boolean() }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      do: fc.constant("kill" as const),
      role: fc.constantFrom("agent" as const, "guard" as const, "holder" as const),
    }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      do: fc.constantFrom(
        "restart engine" as const,
        "restart controller" as const,
        "remove a unit" as const,
        "delete" as const,
      ),
    }),
  },
  {
    weight: 4,
    arbitrary: fc.record({ do: fc.constant("allow" as const), host: fc.constantFrom(HOST, "other.example.com") }),
  },
  {
    weight: 4,
    arbitrary: fc.record({ do: fc.constant("secret" as const), value: fc.constantFrom("one", "two", undefined) }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("guard begins anew" as const) }) },
  {
    weight: 2,
    arbitrary: fc.record({ do: fc.constant("advance" as const), ms: fc.constantFrom(1, 1000, 60_000, 3_700_000) }),
  },
);

async function perform(rig: Rig, next: Act): Promise<void> {
  const uid = (await rig.bottle())?.metadata.uid ?? "";
  switch (next.do) {
    case "pass":
      return passWith(rig, next.fault);
    case "append":
      return rig.edit((spec) => ({
        ...spec,
        turns: [...(spec.turns ?? []), { id: String((spec.turns ?? []).length + 1), prompt: "work" }],
      }));
    case "mode":
      return rig.edit((spec) => ({ ...spec, operatingMode: next.mode }));
    case "exit":
      if (rig.world.running(uid, "agent")) rig.world.exitAgent(uid, { code: next.code, oom: next.oom });
      return undefined;
    case "kill":
      return rig.world.killUnit(uid, next.role);
    case "restart engine":
      return rig.world.restartEngine();
    case "restart controller":
      return rig.restart();
    case "delete":
      return rig.remove();
    case "remove a unit": {
      const unit = rig.world.unitsOf(uid)[0];
      if (unit !== undefined) rig.world.removeBehindOurBack(unit.id);
      return undefined;
    }
    case "allow":
      return rig.allow(next.host);
    case "secret":
      return next.value === undefined ? rig.removeSecret() : rig.putSecret(next.value);
    case "guard begins anew":
      // What a guard says of itself is believed only after a while, so that one is given here.
      rig.world.restartGuard(uid);
      return rig.world.advance(60_000);
    case "advance":
      return rig.world.advance(next.ms);
  }
}

async function passWith(rig: Rig, planted: { at: number; fault: Fault } | undefined): Promise<void> {
  const from = rig.world.calls.length;
  rig.world.faults = {
    beforeCall: (call) => (planted !== undefined && call.number === from + 1 + planted.at ? planted.fault : undefined),
  };
  await rig.pass();
  rig.world.faults = {};
}

/** Any history ends in what was asked for, once nothing fails any more and every agent that starts ends well. */
async function playHistory(history: readonly Act[], plan: Planner): Promise<void> {
  const rig = new Rig(plan);
  await rig.create(simSpec({ turns: [{ id: "1", prompt: "work" }] }));
  for (const next of history) await perform(rig, next);
  rig.world.program = () => ({ code: 0 });
  await rig.putSecret("last");
  const uid = (await rig.bottle())?.metadata.uid ?? "";
  if (rig.world.running(uid, "agent")) rig.world.exitAgent(uid, { code: 0 });
  await rig.settle();
  const bottle = await rig.bottle();
  if (bottle === undefined) {
    expect(rig.world.containers.size + rig.world.volumes.size).toBe(0);
    return;
  }
  expect(conditionOf(bottle.status?.conditions, "Ready")?.status).toBe("True");
  expect(rig.world.containers.size).toBe(0);
  const pending = (bottle.status?.turns ?? []).filter((turn) => turn.state !== "Ended");
  if (bottle.spec.operatingMode === "Running") expect(pending).toEqual([]);
}

describe("random histories of people, faults and time", () => {
  it("end in the state that was asked for, and never break a rule of safety on the way", async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(act, { maxLength: 60, size: "max" }), (history) => playHistory(history, planBottle)),
      { numRuns: 400 },
    );
  });
});
