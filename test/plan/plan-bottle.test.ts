import { readdirSync, readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { conditionOf, CONDITION_TYPES } from "../../controller/api/conditions.ts";
import { planBottle } from "../../controller/plan/plan-bottle.ts";
import type { Plan } from "../../controller/plan/steps.ts";
import { stepText, turnText } from "./case-notation.ts";
import { readCase, type Expectation } from "./case-reader.ts";

const FOLDER = new URL("cases/", import.meta.url);

describe("plan cases", () => {
  for (const file of readdirSync(FOLDER).sort()) {
    const { rule, desired, observed, now, plan } = readCase(readFileSync(new URL(file, FOLDER), "utf8"));

    it(`${file.replace(".yaml", "")}: ${rule}`, () => {
      const found = planBottle(desired, observed, now);

      expect(asWritten(found, plan)).toEqual(plan);
    });
  }
});

describe("the reader of plan cases", () => {
  it("refuses a key it does not know, or a typing error would test nothing", () => {
    expect(() => readCase("# A rule.\nbottel: {}\nplan: { ready: [Ready, Live] }\n")).toThrow(/bottel/);
  });

  it("refuses a case that does not say its rule", () => {
    expect(() => readCase("plan: { ready: [Ready, Live] }\n")).toThrow(/comment/);
  });

  it("refuses a unit it cannot read", () => {
    expect(() => readCase("# A rule.\nunits: [holder runing]\nplan: { ready: [Ready, Live] }\n")).toThrow(/runing/);
  });
});

/** The plan in the notation of cases, with the optional parts only where the case has them. */
function asWritten(found: Plan, expected: Expectation): Expectation {
  const { conditions, turns } = found.status;
  const state = (["Ready", "Reconciling", "Stalled"] as const).filter(
    (type) => conditionOf(conditions, type)?.status === "True",
  );
  expect(state).toHaveLength(1);
  const ready = conditionOf(conditions, "Ready");
  const message = ready?.message ?? "";
  return definedOf({
    steps: found.steps.map(stepText),
    ready: [state[0] ?? "Stalled", ready?.reason ?? ""] satisfies Expectation["ready"],
    message: expected.message && (message.includes(expected.message) ? expected.message : message),
    requeueAfter: found.requeueAfterMs === undefined ? undefined : found.requeueAfterMs / 1000,
    events: expected.events && found.steps.flatMap((step) => step.event?.reason ?? []),
    conditions: expected.conditions && conditionTexts(found, Object.keys(expected.conditions)),
    turns: expected.turns && (turns ?? []).map(turnText),
  });
}

function conditionTexts(found: Plan, types: readonly string[]): Record<string, string> {
  return Object.fromEntries(
    types.map((name) => {
      const type = CONDITION_TYPES.find((known) => known === name);
      const condition = type && conditionOf(found.status.conditions, type);
      return [name, condition === undefined ? "absent" : `${condition.status} ${condition.reason}`];
    }),
  );
}

function definedOf<T extends object>(value: T): T {
  return Object.fromEntries(Object.entries(value).filter(([, member]) => member !== undefined)) as T;
}
