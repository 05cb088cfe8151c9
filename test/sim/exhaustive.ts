import { CALL_FAULTS, type Fault } from "../../backends/fake/index.ts";
import type { Planner, Rig } from "./rig.ts";
import type { Scenario } from "./scenario.ts";
import { playScenario } from "./scenarios.ts";

/** More store writes than any scenario makes. */
const STORE_WRITES_MAX = 60;

/** Plays a scenario once for each fault at each call of its undisturbed run, and once for a death before each write. Returns the number of runs. */
export async function playWithEveryFault(scenario: Scenario, plan: Planner): Promise<number> {
  const calm = await playScenario(scenario, plan);
  let runs = 1;
  for (let number = 1; number <= calm.world.calls.length; number += 1) {
    for (const fault of CALL_FAULTS) {
      await named(`${fault} at call ${number}`, () => playScenario(scenario, plan, (rig) => plant(rig, number, fault)));
      runs += 1;
    }
  }
  for (let writes = 0; writes < STORE_WRITES_MAX; writes += 1) {
    const rig = await named(`death before store write ${writes + 1}`, () =>
      playScenario(scenario, plan, (fresh) => {
        fresh.storeWritesLeft = writes;
      }),
    );
    runs += 1;
    if (rig.crashes === 0) return runs;
  }
  throw new Error(`scenario "${scenario.name}" makes more than ${STORE_WRITES_MAX} store writes: raise the bound`);
}

function plant(rig: Rig, number: number, fault: Fault): void {
  rig.world.faults = { beforeCall: (call) => (call.number === number ? fault : undefined) };
}

async function named<T>(what: string, body: () => Promise<T>): Promise<T> {
  try {
    return await body();
  } catch (error) {
    throw new Error(`${what}: ${error instanceof Error ? error.message : String(error)}`, { cause: error });
  }
}
