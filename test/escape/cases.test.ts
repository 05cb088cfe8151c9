import { existsSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { expect, it } from "vitest";

const CASES = 67;
const LATER = /^later: (git gate|supervise|forge sidecar|provenance|agents|cluster|[a-z][a-z, ]+)$/;

interface Row {
  number: number;
  file: string;
  test: string;
}

function rows(): Row[] {
  const text = readFileSync(new URL("README.md", import.meta.url), "utf8");
  return [...text.matchAll(/^\| (\d+) +\| (.*?) +\|(.*?)\|$/gm)].map(([, number, file = "", test = ""]) => ({
    number: Number(number),
    file,
    test: test.trim(),
  }));
}

/** The names of tests and suites are on lines that begin one, or on the line after. */
function hasTest(path: string, name: string): boolean {
  const names = readFileSync(path, "utf8").matchAll(/\b(?:it|describe|describeWith)\b[^\n]*|^\s*\)?\(?["`][^\n]*/gm);
  return [...names].some(([line]) => line.includes(name)) || readFileSync(path, "utf8").includes(`])("${name}`);
}

it("every case of the threat model is in the table, tested or named with the part of the project that brings it", () => {
  const numbers = new Set(rows().map(({ number }) => number));

  expect([...numbers].toSorted((a, b) => a - b)).toEqual(Array.from({ length: CASES }, (_, n) => n + 1));
});

it("every test that the table names exists", () => {
  const missing = rows().filter(({ file, test }) => {
    if (LATER.test(file)) return test !== "";
    const path = fileURLToPath(new URL(`../${file}`, import.meta.url));
    return test === "" || !existsSync(path) || !hasTest(path, test);
  });

  expect(missing).toEqual([]);
});
