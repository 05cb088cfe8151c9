import { describe, expect, it } from "vitest";
import * as repositoryRules from "./repository-rules.ts";
import * as sourceRules from "./rules.ts";
import { codeOf } from "./source-text.ts";
import type { RepositoryFile, Rule } from "./rules.ts";

/** Violations are planted and must be found by name, and what is allowed must not be: a rule that finds nothing proves nothing. */
interface Case {
  rule: Rule;
  /** Planted file, and what the finding must name. */
  broken: [path: string, text: string, names: string][];
  kept: [path: string, text: string][];
}

const LINT = {
  rules: {
    "max-lines": ["error", { max: 400, skipBlankLines: false, skipComments: false }],
    "max-lines-per-function": ["error", { max: 70, skipBlankLines: false, skipComments: false }],
  },
};
const MARKER = `TO${"DO"}`;
const MACHINE_PATH = ["", "work", "place"].join("/");
const DECISIONS = "controller/decisions";
const DISABLE = `oxlint${"-disable-next-line"}`;

const cases: Record<string, Case> = {
  importsGoDown: {
    rule: sourceRules.importsGoDown,
    broken: [
      ["controller/api/meta.ts", 'import { a } from "../ports/log.ts";', '"../ports/log.ts"'],
      ["controller/plan/plan.ts", 'import type { A } from "../loop/queue.ts";', '"../loop/queue.ts"'],
      ["controller/plan/plan.ts", 'export * from "../stores/sqlite.ts";', '"../stores/sqlite.ts"'],
      ["controller/agents/a.ts", 'import { a } from "../policy/b.ts";', '"../policy/b.ts"'],
      ["controller/loop/act.ts", 'const a = await import("../stores/sqlite.ts");', '"../stores/sqlite.ts"'],
      ["controller/stores/a.ts", 'import {\n  a,\n  b,\n} from "../sources/files.ts";', '"../sources/files.ts"'],
      ["controller/serve/a.ts", 'import "../stores/sqlite.ts";', '"../stores/sqlite.ts"'],
      ["backends/docker/a.ts", 'import { a } from "../bubblewrap/b.ts";', '"../bubblewrap/b.ts"'],
      ["backends/docker/a.ts", 'import { a } from "../guard/egress/b.ts";', '"../guard/egress/b.ts"'],
      ["backends/fake/a.ts", 'import { a } from "../index.ts";', '"../index.ts"'],
      ["controller/commands/a.ts", 'import { a } from "../main.ts";', '"../main.ts"'],
      ["controller/loop/a.ts", 'import { a } from "../../test/helpers/needs.ts";', '"../../test/helpers/needs.ts"'],
      ["controller/new-folder/a.ts", "", "controller/new-folder/a.ts"],
    ],
    kept: [
      ["controller/plan/plan.ts", 'import { a } from "../api/meta.ts";\nimport { b } from "../agents/custom.ts";'],
      ["controller/plan/plan.ts", '// import { a } from "../loop/queue.ts";\nconst a = "from \\"../loop/queue.ts\\"";'],
      ["controller/stores/sqlite/a.ts", 'import { a } from "../b.ts";\nimport { z } from "zod";'],
      ["backends/guard/main.ts", 'import { a } from "../../controller/policy/b.ts";'],
      ["backends/guard/main.ts", 'import { a } from "../../controller/forge/b.ts";'],
      ["backends/index.ts", 'import { a } from "./docker/index.ts";'],
      ["controller/main.ts", 'import { a } from "./commands/serve.ts";\nimport { b } from "../backends/index.ts";'],
      ["test/plan/a.test.ts", 'import { a } from "../../controller/main.ts";'],
    ],
  },
  pureImports: {
    rule: sourceRules.pureImports,
    broken: [
      ["controller/api/a.ts", 'import { readFileSync } from "node:fs";', '"node:fs"'],
      ["controller/ports/a.ts", 'import { Readable } from "node:stream";', '"node:stream"'],
      ["controller/plan/a.ts", 'import { type A, b } from "node:path";', '"node:path"'],
      ["controller/policy/a.ts", 'export { b } from "node:net";', '"node:net"'],
      ["controller/agents/a.ts", 'const a = import("node:child_process");', '"node:child_process"'],
    ],
    kept: [
      ["controller/plan/a.ts", 'import { createHash } from "node:crypto";'],
      ["controller/ports/a.ts", 'import type { Readable } from "node:stream";'],
      ["controller/loop/a.ts", 'import { readFileSync } from "node:fs";'],
    ],
  },
  pureFunctions: {
    rule: sourceRules.pureFunctions,
    broken: [
      ["controller/plan/a.ts", "const a = 1;\nconst now = Date.now();", 'controller/plan/a.ts:2: "Date.now"'],
      ["controller/plan/a.ts", "const now = new Date();", "new Date()"],
      ["controller/plan/a.ts", "const text = `at ${new Date()}`;", "new Date()"],
      ["controller/policy/a.ts", "const a = Math.random();", "Math.random"],
      ["controller/plan/a.ts", 'import { randomUUID } from "node:crypto";', "randomUUID"],
      ["controller/plan/a.ts", "setTimeout(f, 10);", "setTimeout"],
      ["controller/agents/a.ts", "const home = process.env.HOME;", "process."],
      ["controller/plan/a.ts", "const a = fetch(url);", "fetch"],
      ["controller/plan/a.ts", "async function f() {}", "async"],
      ["controller/plan/a.ts", "const a = await b;", "await"],
    ],
    kept: [
      [
        "controller/plan/a.ts",
        "// Date.now() is not for us\nconst text = 'await Math.random()';\nconst at = new Date(nowMs);",
      ],
      ["controller/plan/a.ts", "const processes = 1;\nconst pattern = /['\"`]/;\nconst prefetched = '`';"],
      ["controller/loop/a.ts", "const now = Date.now();"],
    ],
  },
  fileLength: {
    rule: sourceRules.fileLength,
    broken: [["test/plan/a.test.ts", "a\n".repeat(401), "401 lines"]],
    kept: [
      ["controller/plan/a.ts", "a\n".repeat(400)],
      ["crds/bottles.yaml", "a\n".repeat(4000)],
    ],
  },
  lintExceptions: {
    rule: sourceRules.lintExceptions,
    broken: [
      ["controller/loop/a.ts", `// ${DISABLE}`, "controller/loop/a.ts:1"],
      ["controller/loop/a.ts", `// ${DISABLE} no-console`, "no-console"],
      ["controller/loop/a.ts", `// ${DISABLE} max-lines-per-function -- it is one table`, "max-lines-per-function"],
    ],
    kept: [["controller/loop/a.ts", `// ${DISABLE} no-console -- the only output of this command`]],
  },
  moduleState: {
    rule: sourceRules.moduleState,
    broken: [
      ["controller/loop/a.ts", "let count = 0;", '"count"'],
      ["controller/loop/a.ts", "export let count = 0;", '"count"'],
      ["test/helpers/a.ts", "let count = 0;", '"count"'],
      ["controller/loop/a.ts", "export const known = new Map<string, string>();", '"known"'],
      ["controller/loop/a.ts", "export const names: string[] = ['a'];", '"names"'],
      [
        "controller/loop/a.ts",
        "const seen = new Set<string>();\nexport const see = (a: string) => seen.add(a);",
        '"seen"',
      ],
      [
        "controller/loop/a.ts",
        "const cache: Record<string, number> = {};\nfunction f() {\n  cache[a] = 1;\n}",
        '"cache"',
      ],
    ],
    kept: [
      ["test/loop/a.test.ts", "let folder = '';\nbeforeEach(() => {\n  folder = make();\n});"],
      ["controller/loop/a.ts", "const KNOWN = new Set(['a']);\nexport const has = (a: string) => KNOWN.has(a);"],
      [
        "controller/loop/a.ts",
        "export const NAMES: readonly string[] = ['a'];\nexport const ALL = [\n  'a',\n] as const;",
      ],
      ["controller/loop/a.ts", "export const KNOWN: ReadonlyMap<string, string> = new Map([['a', 'b']]);"],
      ["controller/loop/a.ts", "function f() {\n  let count = 0;\n  const seen = new Set();\n  seen.add(count);\n}"],
    ],
  },
  topLevel: {
    rule: sourceRules.topLevel,
    broken: [
      ["vitest.config.ts", "", "vitest.config.ts"],
      ["docs/a.md", "", "docs"],
    ],
    kept: [
      ["README.md", ""],
      ["controller/main.ts", ""],
      [".github/workflows/check.yaml", ""],
    ],
  },
  testsAssert: {
    rule: sourceRules.testsAssert,
    broken: [
      ["test/plan/a.test.ts", 'it("runs", () => {\n  // expect(true)\n  run("expect(");\n});', "test/plan/a.test.ts"],
    ],
    kept: [
      ["test/plan/a.test.ts", 'it("runs", () => expect(1).toBe(1));'],
      ["test/contract/a.test.ts", 'backendContract("a", [], make);'],
      ["test/api/a.test.ts", "expectTypeOf<keyof A>().toExtend<keyof B>();"],
      ["test/plan/a.ts", "export const a = 1;"],
    ],
  },
  versionsAreExact: {
    rule: repositoryRules.versionsAreExact,
    broken: [
      ["package.json", '{"dependencies":{"zod":"^4.0.0"}}', '"zod"'],
      ["package.json", '{"devDependencies":{"zod":"latest"}}', '"zod"'],
    ],
    kept: [["package.json", '{"dependencies":{"zod":"4.0.0","a":"2.0.0-beta.1"}}']],
  },
  noRegistryIsNamed: {
    rule: repositoryRules.noRegistryIsNamed,
    broken: [
      ["package-lock.json", '{"packages":{"node_modules/a":{"resolved":"https://mirror.example/a.tgz"}}}', "mirror"],
    ],
    kept: [["package-lock.json", '{"packages":{"node_modules/a":{"version":"1.0.0"},"":{}}}']],
  },
  noMarkers: {
    rule: repositoryRules.noMarkers,
    broken: [["crds/README.md", `a\n// ${MARKER}: later`, `crds/README.md:2: "${MARKER}"`]],
    kept: [
      ["README.md", `${MARKER}S and a${MARKER}`],
      ["package-lock.json", `{"integrity":"${MARKER}"}`],
    ],
  },
  noMachinePaths: {
    rule: repositoryRules.noMachinePaths,
    broken: [["README.md", `see ${MACHINE_PATH}`, "README.md:1"]],
    kept: [["README.md", "/workspace and home/work/place"]],
  },
  noFocusedTests: {
    rule: repositoryRules.noFocusedTests,
    broken: [
      ["test/plan/a.test.ts", 'it.only("a", f);', "test/plan/a.test.ts"],
      ["test/plan/a.test.ts", 'describe.concurrent.only("a", f);', "test/plan/a.test.ts"],
    ],
    kept: [["test/plan/a.test.ts", 'it("is .only(a) word", f);\nlist.only(a);']],
  },
  decisionsAreNumbered: {
    rule: repositoryRules.decisionsAreNumbered,
    broken: [
      [`${DECISIONS}/0002-second.md`, "", "0002"],
      [`${DECISIONS}/one.md`, "", "one.md"],
      ["controller/plan/a.ts", `// ${DECISIONS}/0009`, "0009"],
    ],
    kept: [
      [`${DECISIONS}/0001-first-of-all.md`, `see ${DECISIONS}/0001`],
      [`${DECISIONS}/README.md`, ""],
    ],
  },
};

describe.each(Object.entries(cases))("%s", (_name, { rule, broken, kept }) => {
  it.each(broken)("finds what is planted in %s: %j", (path, text, names) => {
    const found = rule([{ path, text }]);
    expect(found).toHaveLength(1);
    expect(found[0]).toContain(path.split("/")[0]);
    expect(found[0]).toContain(names);
  });

  it.each(kept)("leaves %s alone: %j", (path, text) => {
    expect(rule([{ path, text }])).toEqual([]);
  });
});

describe("lengthsAreLinted", () => {
  const overrides = [{ files: ["test/**"], rules: { "max-lines-per-function": "off" } }];

  it("accepts the conventions' limits, with functions of tests excepted", () => {
    expect(sourceRules.lengthsAreLinted(lintFiles({ ...LINT, overrides }, "tsc && oxlint --deny-warnings"))).toEqual(
      [],
    );
  });

  it.each([
    [
      "another limit",
      { ...LINT, rules: { ...LINT.rules, "max-lines": ["error", { max: 4000 }] }, overrides },
      "max-lines",
    ],
    ["a limit that is off", { rules: { "max-lines": LINT.rules["max-lines"] }, overrides }, "max-lines-per-function"],
    ["one more exception", { ...LINT, overrides: [...overrides, { files: ["backends/**"], rules: {} }] }, "overrides"],
  ])("finds %s", (_what, lint, names) => {
    const found = sourceRules.lengthsAreLinted(lintFiles(lint, "oxlint --deny-warnings && prettier"));
    expect(found).toHaveLength(1);
    expect(found[0]).toContain(names);
  });

  it("finds a check that does not lint everything", () => {
    for (const check of ["tsc", "oxlint --deny-warnings controller", "oxlint"]) {
      expect(sourceRules.lengthsAreLinted(lintFiles({ ...LINT, overrides }, check))).toHaveLength(1);
    }
  });
});

describe("installScriptsAreNamed", () => {
  const scripted = { "node_modules/a/node_modules/@s/b": { hasInstallScript: true }, "node_modules/c": {} };

  it("accepts scripts that are decided on, either way", () => {
    expect(repositoryRules.installScriptsAreNamed(packageFiles({ "@s/b": false }, scripted))).toEqual([]);
  });

  it("finds a script that nobody decided on", () => {
    expect(repositoryRules.installScriptsAreNamed(packageFiles({}, scripted))).toEqual([
      'package-lock.json: "@s/b" has an install script: name it in package.json\'s allowScripts',
    ]);
  });

  it("finds a decision about nothing", () => {
    const found = repositoryRules.installScriptsAreNamed(packageFiles({ "@s/b": true, c: true }, scripted));
    expect(found).toHaveLength(1);
    expect(found[0]).toContain('"c"');
  });
});

it("every rule has violations planted for it", () => {
  const planted = [...Object.keys(cases), "lengthsAreLinted", "installScriptsAreNamed"];
  const parts = new Set(["layerOf", "importsOf", "json"]);

  const rules = [...Object.keys(sourceRules), ...Object.keys(repositoryRules)].filter((name) => !parts.has(name));

  expect(planted.sort()).toEqual(rules.sort());
});

it("numbers of decisions may not be doubled", () => {
  const files = ["0001-a.md", "0001-b.md"].map((name) => ({ path: `${DECISIONS}/${name}`, text: "" }));
  expect(repositoryRules.decisionsAreNumbered(files)).toHaveLength(1);
});

it("the code of a file is its text without comments, strings and regular expressions", () => {
  const text = [
    'const a = \'it // is\' + "a \\" b"; // comment',
    "const b = `x ${a + `y ${c} z`} w`; /* two",
    "lines */ const d = e / f / g;",
    "const h = /[/'\"`]+/.test(i) ? 1 : 2;",
    "return /x`/;",
  ].join("\n");

  const code = codeOf(text);

  expect(code.split("\n").map((line) => line.replaceAll(/\s+/g, " ").trim())).toEqual([
    "const a = + ;",
    "const b = a + c ;",
    "const d = e / f / g;",
    "const h = .test(i) ? 1 : 2;",
    "return ;",
  ]);
  expect(codeOf(text, "keep")).toContain('\'it // is\' + "a \\" b"; ');
});

function lintFiles(lint: unknown, check: string): RepositoryFile[] {
  return [
    { path: ".oxlintrc.json", text: JSON.stringify(lint) },
    { path: "package.json", text: JSON.stringify({ scripts: { check } }) },
  ];
}

function packageFiles(allowScripts: object, packages: object): RepositoryFile[] {
  return [
    { path: "package.json", text: JSON.stringify({ allowScripts }) },
    { path: "package-lock.json", text: JSON.stringify({ packages }) },
  ];
}
