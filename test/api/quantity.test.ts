import { expect, it } from "vitest";
import { cpuMillis, memoryBytes } from "../../controller/api/quantity.ts";

it.each([
  ["2", 2000],
  ["500m", 500],
  ["1.005", 1005],
  ["0.1", 100],
])("cpu %s is %i thousandths of a core", (text, millis) => {
  expect(cpuMillis(text)).toBe(millis);
});

it.each([
  ["1000000", 1_000_000],
  ["4Gi", 4 * 2 ** 30],
  ["512Mi", 512 * 2 ** 20],
  ["1500k", 1_500_000],
  ["999Ti", 999 * 2 ** 40],
])("memory %s is %i bytes", (text, bytes) => {
  expect(memoryBytes(text)).toBe(bytes);
});

it.each(["", "x", "1 Gi", "-1", "1e3"])("%j is no quantity", (text) => {
  expect(() => cpuMillis(text)).toThrow(RangeError);
  expect(() => memoryBytes(text)).toThrow(RangeError);
});
