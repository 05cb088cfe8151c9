import { afterAll, afterEach, beforeAll, describe } from "vitest";
import type { Blueprint } from "../../controller/ports/backend.ts";
import { describeWith } from "../helpers/needs.ts";
import type { Need } from "../helpers/needs-setup.ts";
import { absenceRules, copyRules, execRules, runRules } from "./bottle-rules.ts";
import { Bottles, type Bed, type Suite } from "./bottles.ts";
import { guardRules, trafficRules } from "./guard-rules.ts";
import { diskRules, launchRules, ownerRules, safetyRules } from "./launch-rules.ts";

/** A test that hangs says so before the next one is asked. */
const TEST_MS_MAX = 45_000;

/** What stands for the guard. Program: the real one. Verbs: something that answers the two verbs and passes no traffic. None: nothing. */
export type Guard = "Program" | "Verbs" | "None";

/** The rules of the Backend port. Every backend must pass all of them, the fake too: else simulations lie. */
export function backendContract(
  name: string,
  needs: readonly Need[],
  makeBed: () => Promise<Bed>,
  options: { guard?: Guard } = {},
): void {
  describeWith(needs, `backend ${name}`, () => {
    const suite: Suite = {
      get bottles() {
        if (bottles === undefined) throw new Error("the suite has not begun");
        return bottles;
      },
    };
    let bottles: Bottles | undefined;
    beforeAll(async () => {
      bottles = new Bottles(await makeBed());
    });
    afterAll(async () => {
      await bottles?.removeAll();
      await bottles?.bed.close();
    });
    describe("launch and teardown", { timeout: TEST_MS_MAX }, () => {
      afterEach(() => suite.bottles.removeAll());
      launchRules(suite);
      safetyRules(suite);
      diskRules(suite);
      ownerRules(suite);
    });
    describe("the guard", { timeout: TEST_MS_MAX }, () => {
      const { guard = "None" } = options;
      afterEach(() => suite.bottles.removeAll());
      if (guard !== "None") guardRules(suite);
      if (guard === "Program") trafficRules(suite);
    });
    describe("in one bottle", { timeout: TEST_MS_MAX }, () => {
      const shared: { blueprint?: Blueprint } = {};
      beforeAll(async () => {
        shared.blueprint = await suite.bottles.prepared({ env: { COLOR: "green", SHAPE: "round" } });
      });
      const blueprint = () => {
        if (shared.blueprint === undefined) throw new Error("the bottle is not prepared");
        return shared.blueprint;
      };
      afterEach(() => suite.bottles.stopAgents(blueprint().uid));
      runRules(suite, blueprint);
      execRules(suite, blueprint);
      copyRules(suite, blueprint);
    });
    describe("absent bottles", () => absenceRules(suite));
  });
}
