import { expect, it } from "vitest";
import { condition } from "../e2e/bottles.ts";
import { describeWith } from "../helpers/needs.ts";
import { nameRules } from "./bottle-names.ts";
import { NEEDS } from "./bottle-rig.ts";
import { useScene } from "./bottle-scene.ts";
import { secretRules } from "./bottle-secrets.ts";
import { topologyRules } from "./bottle-topology.ts";

describeWith(NEEDS.Bubblewrap, "attacks from inside a bottle of bubblewrap", () => {
  const scene = useScene("Bubblewrap");

  it("begin in a bottle that says of itself that it is sealed", async () => {
    const bottle = await scene.rig().untilReady("a");

    expect(condition(bottle, "EgressEnforced")).toMatchObject({ status: "True", reason: "ProbePassed" });
    expect(condition(bottle, "GuardReady")).toMatchObject({ status: "True" });
  });

  topologyRules(scene);
  nameRules(scene);
  secretRules(scene);
});
