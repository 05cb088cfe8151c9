import { expect, it } from "vitest";
import { createBudget } from "../../backends/guard/egress/budget.ts";

const under = (budget: { uploadBytes?: number; uploadBytesPerHost?: number }) => ({ source: { budget } });

it("counts what leaves to all hosts together, and stops before it is too much", () => {
  const budget = createBudget();
  const settings = under({ uploadBytes: 100 });
  expect(budget.take(settings, "a.test", 60)).toBe(true);
  expect(budget.take(settings, "b.test", 41)).toBe(false);
  expect(budget.take(settings, "b.test", 40)).toBe(true);
  expect(budget.take(settings, "a.test", 1)).toBe(false);
});

it("counts each host by itself", () => {
  const budget = createBudget();
  const settings = under({ uploadBytesPerHost: 10 });
  expect(budget.take(settings, "a.test", 10)).toBe(true);
  expect(budget.take(settings, "a.test", 1)).toBe(false);
  expect(budget.take(settings, "b.test", 10)).toBe(true);
});

it("counts without a bound, so that one that comes later is for everything since the start", () => {
  const budget = createBudget();
  expect(budget.take(under({}), "a.test", 1_000)).toBe(true);
  expect(budget.take(under({ uploadBytes: 1_000 }), "b.test", 1)).toBe(false);
  expect(budget.take(under({ uploadBytes: 1_001 }), "b.test", 1)).toBe(true);
});

it("counts hosts beyond those it can tell apart together, so that no number of names widens the bound", () => {
  const budget = createBudget();
  const settings = under({ uploadBytesPerHost: 10 });
  const taken = Array.from({ length: 10_000 }, (_, index) => budget.take(settings, `h${index}.test`, 10));
  expect(taken.filter(Boolean).length).toBeLessThanOrEqual(4_097);
  expect(budget.take(settings, "one-more.test", 1)).toBe(false);
});
