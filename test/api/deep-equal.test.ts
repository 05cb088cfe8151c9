import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import { deepEqual } from "../../controller/api/deep-equal.ts";

describe("deepEqual", () => {
  it("is about values, not about the order of members", () => {
    expect(deepEqual({ a: 1, b: [{ c: 2, d: 3 }] }, { b: [{ d: 3, c: 2 }], a: 1 })).toBe(true);
  });

  it("a member that is undefined counts as absent, because a store does not keep it", () => {
    expect(deepEqual({ a: 1, b: undefined }, { a: 1 })).toBe(true);
    expect(deepEqual({ a: 1 }, { a: 1, b: undefined })).toBe(true);
  });

  it.each([
    ["another value", { a: 1 }, { a: 2 }],
    ["a member more", { a: 1 }, { a: 1, b: 2 }],
    ["a member less", { a: 1, b: 2 }, { a: 1 }],
    ["null for absent", { a: null }, {}],
    ["absent for null", {}, { a: null }],
    ["another order of items", [1, 2], [2, 1]],
    ["an item more", [1], [1, 2]],
    ["an item less", [1, 2], [1]],
    ["a list for an object", [], {}],
    ["an object for a list", {}, []],
    ["text for a number", { a: "1" }, { a: 1 }],
    ["an empty object for nothing", {}, undefined],
  ])("sees %s", (_what, a, b) => {
    expect(deepEqual(a, b)).toBe(false);
  });

  it("agrees with a comparison of canonical text, for all JSON values", () => {
    fc.assert(
      fc.property(fc.jsonValue(), fc.jsonValue(), (a, b) => {
        expect(deepEqual(a, structuredClone(a))).toBe(true);
        expect(deepEqual(a, b)).toBe(sorted(a) === sorted(b));
      }),
      { numRuns: 300 },
    );
  });
});

function sorted(value: unknown): string {
  return JSON.stringify(value, (_name, member: unknown) =>
    typeof member === "object" && member !== null && !Array.isArray(member)
      ? Object.fromEntries(Object.entries(member).sort(([a], [b]) => (a < b ? -1 : 1)))
      : Object.is(member, -0)
        ? 0
        : member,
  );
}
