import { describe, expect, it } from "vitest";
import { planBottle } from "../../controller/plan/plan-bottle.ts";
import type { Planner } from "./rig.ts";
import { MUTANTS } from "./mutants.ts";
import { playWithEveryFault } from "./exhaustive.ts";
import { playScenario, SCENARIOS } from "./scenarios.ts";

async function caughtBy(plan: Planner, shownBy: string | undefined): Promise<string | undefined> {
  const scenarios = SCENARIOS.toSorted((a, b) => Number(b.name === shownBy) - Number(a.name === shownBy));
  // Without faults first: most bugs show there already, and it takes a hundredth of the time.
  for (const play of [playScenario, playWithEveryFault]) {
    for (const scenario of scenarios) {
      try {
        await play(scenario, plan);
      } catch (error) {
        return `${scenario.name}: ${error instanceof Error ? error.message : String(error)}`;
      }
    }
  }
  return undefined;
}

describe("a planted bug in the planner is caught by the simulation", () => {
  it.each(MUTANTS.map((mutant, index) => [mutant.name, index, mutant] as const))("%s", async (_name, index, mutant) => {
    // A path that is only known at run time: otherwise the bundler takes the query for a pattern of files.
    const path = new URL(`../../controller/plan/plan-bottle.ts?mutant=${index}`, import.meta.url);
    const module = (await import(/* @vite-ignore */ `${path.pathname}${path.search}`)) as { planBottle: Planner };

    expect(module.planBottle).not.toBe(planBottle);
    expect(await caughtBy(module.planBottle, mutant.shownBy)).toBeDefined();
  });
});
