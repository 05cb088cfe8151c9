import { describe, expect, it } from "vitest";
import { planBottle } from "../../controller/plan/plan-bottle.ts";
import { playWithEveryFault } from "./exhaustive.ts";
import { SCENARIOS } from "./scenarios.ts";

describe("every fault at every call and a death before every write", () => {
  it.each(SCENARIOS.map((scenario) => [scenario.name, scenario] as const))("%s", async (_name, scenario) => {
    const runs = await playWithEveryFault(scenario, planBottle);

    expect(runs).toBeGreaterThan(50);
  });
});
