import { expect } from "vitest";
import type { World } from "../../backends/fake/index.ts";
import type { TurnOutcome } from "../../controller/api/bottle.ts";
import { conditionOf } from "../../controller/api/conditions.ts";
import type { Rig } from "./rig.ts";

/** A story of one bottle, told by a person's acts, and how it must end whatever fails on the way. */
export interface Scenario {
  name: string;
  play: (rig: Rig) => Promise<void>;
  verify: (rig: Rig) => Promise<void>;
}

export async function outcomes(rig: Rig): Promise<(TurnOutcome | undefined)[]> {
  const bottle = await rig.bottle();
  return (bottle?.status?.turns ?? []).map((turn) => turn.outcome);
}

export async function reasonOf(rig: Rig): Promise<string | undefined> {
  const bottle = await rig.bottle();
  return conditionOf(bottle?.status?.conditions, "Ready")?.reason;
}

export function unitsLeft(world: World): string[] {
  return [...world.containers.values()].map((unit) => unit.role).sort();
}

export async function expectFrozen(rig: Rig, ended: readonly TurnOutcome[]): Promise<void> {
  expect(await outcomes(rig)).toEqual(ended);
  expect(await reasonOf(rig)).toBe("Frozen");
  expect(unitsLeft(rig.world)).toEqual([]);
  expect([...rig.world.volumes.values()].map((volume) => volume.part).sort()).toEqual(["home", "workspace"]);
}

export async function expectGone(rig: Rig): Promise<void> {
  expect(await rig.bottle()).toBeUndefined();
  expect(rig.world.containers.size).toBe(0);
  expect(rig.world.volumes.size).toBe(0);
}
