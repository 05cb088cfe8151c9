import { expect, it } from "vitest";
import { repositoryFiles } from "./repository.ts";
import * as repositoryRules from "./repository-rules.ts";
import * as sourceRules from "./rules.ts";

const files = repositoryFiles();
const { importsGoDown, pureImports, pureFunctions, fileLength, lengthsAreLinted, lintExceptions } = sourceRules;
const { moduleState, topLevel, testsAssert } = sourceRules;
const { installScriptsAreNamed, versionsAreExact, noRegistryIsNamed, noMarkers } = repositoryRules;
const { noMachinePaths, noFocusedTests, decisionsAreNumbered } = repositoryRules;

it("the rules see the program", () => {
  expect(files.map((file) => file.path)).toContain("controller/main.ts");
});

it.each([
  ["imports go down only, and adapters do not import one another", importsGoDown],
  ["pure layers import no module of Node but hashing", pureImports],
  ["plan, policy and agents have no clock, no chance, no I/O and no waiting", pureFunctions],
  ["no file is longer than the limit", fileLength],
  ["the linter holds files and functions to their limits", lengthsAreLinted],
  ["exceptions from the linter name their rule and their reason", lintExceptions],
  ["modules hold no mutable state", moduleState],
  ["the top level holds only what belongs there", topLevel],
  ["every test file asserts something", testsAssert],
  ["packages with install scripts are named in allowScripts", installScriptsAreNamed],
  ["dependencies have exact versions", versionsAreExact],
  ["the lockfile names no registry", noRegistryIsNamed],
  ["nothing is marked as unfinished", noMarkers],
  ["no file names a path of one machine", noMachinePaths],
  ["no test runs alone", noFocusedTests],
  ["decisions are numbered without gaps, and references to them resolve", decisionsAreNumbered],
])("%s", (_name, rule) => {
  expect(rule(files)).toEqual([]);
});
