import { posix } from "node:path";
import {
  BRIDGES,
  FILE_LINES_MAX,
  FUNCTION_LINES_MAX,
  LAYERS,
  PURE_NODE_MODULES,
  TOP_LEVEL,
  type Layer,
} from "./layers.ts";
import { json } from "./repository-rules.ts";
import { codeOf } from "./source-text.ts";

/** A file of the repository: its path from the top, and its text. */
export interface RepositoryFile {
  path: string;
  text: string;
}

/** A rule looks at files and says, one line each, which of them break it, with what, and what to do. */
export type Rule = (files: readonly RepositoryFile[]) => string[];

const IMPURE: readonly { pattern: RegExp; what: string }[] = [
  { pattern: /\bDate\.now\b|\bperformance\b|\bprocess\.hrtime\b/, what: "reads a clock: take the time as a parameter" },
  { pattern: /\bnew Date\(\s*\)|\bDate\(\s*\)/, what: "reads the clock: pass a number to new Date" },
  { pattern: /\bMath\.random\b|\brandom(?:UUID|Bytes|Int)\b/, what: "is chance: derive the value from the input" },
  { pattern: /\bset(?:Timeout|Interval|Immediate)\b|\bqueueMicrotask\b/, what: "is a timer: return requeueAfter" },
  { pattern: /\bprocess\./, what: "reaches the process: take the value as a parameter" },
  { pattern: /\bfetch\b/, what: "reaches the network" },
  { pattern: /\bawait\b|\basync\b/, what: "is not synchronous" },
];

/** Imports go down only, and adapters do not know each other. */
export const importsGoDown: Rule = (files) =>
  programFiles(files).flatMap(({ path, text }) => {
    const layer = layerOf(path);
    if (layer === undefined) return [`${path}: is in no layer of test/tidy/layers.ts: put it in one`];
    return importsOf(text)
      .filter((one) => one.from.startsWith("."))
      .flatMap((one) => {
        const target = posix.join(posix.dirname(path), one.from);
        const why = refusal(layer, target);
        return why === undefined ? [] : [`${path}: imports "${one.from}": ${why}`];
      });
  });

/** Pure layers do not reach the machine. */
export const pureImports: Rule = (files) =>
  programFiles(files)
    .filter((file) => layerOf(file.path)?.pure !== undefined)
    .flatMap(({ path, text }) =>
      importsOf(text)
        .filter((one) => one.from.startsWith("node:") && !one.typeOnly && !PURE_NODE_MODULES.includes(one.from))
        .map((one) => `${path}: imports "${one.from}": pure code gets what it needs as parameters`),
    );

/** Pure functions have no clock, no chance and no waiting. */
export const pureFunctions: Rule = (files) =>
  programFiles(files)
    .filter((file) => layerOf(file.path)?.pure === "functions")
    .flatMap(({ path, text }) =>
      codeOf(text)
        .split("\n")
        .flatMap((line, index) =>
          IMPURE.filter(({ pattern }) => pattern.test(line)).map(
            ({ pattern, what }) => `${path}:${index + 1}: "${pattern.exec(line)?.[0] ?? ""}" ${what}`,
          ),
        ),
    );

export const fileLength: Rule = (files) =>
  files.filter(isSource).flatMap(({ path, text }) => {
    const lines = text.split("\n").length - (text.endsWith("\n") ? 1 : 0);
    return lines > FILE_LINES_MAX
      ? [`${path}: has ${lines} lines, at most ${FILE_LINES_MAX}: split it by subject`]
      : [];
  });

/** The linter measures functions; this holds it to the values of the conventions, in the script that everybody runs. */
export const lengthsAreLinted: Rule = (files) => {
  const found: string[] = [];
  const config = json(files, ".oxlintrc.json") as { rules?: Record<string, unknown>; overrides?: unknown } | undefined;
  const wanted = { "max-lines": FILE_LINES_MAX, "max-lines-per-function": FUNCTION_LINES_MAX };
  for (const [rule, max] of Object.entries(wanted)) {
    const expected = JSON.stringify(["error", { max, skipBlankLines: false, skipComments: false }]);
    if (JSON.stringify(config?.rules?.[rule]) !== expected) found.push(`.oxlintrc.json: ${rule} must be ${expected}`);
  }
  // A describe() holds a whole suite, so functions of tests may be long; nothing else may.
  const overrides = JSON.stringify([{ files: ["test/**"], rules: { "max-lines-per-function": "off" } }]);
  if (JSON.stringify(config?.overrides ?? []) !== overrides)
    found.push(`.oxlintrc.json: overrides must be ${overrides}`);
  const scripts = (json(files, "package.json") as { scripts?: Record<string, string> } | undefined)?.scripts;
  if (!/(?:^|&& )oxlint --deny-warnings(?: &&|$)/.test(scripts?.["check"] ?? "")) {
    found.push('package.json: the script "check" must run "oxlint --deny-warnings" over everything');
  }
  return found;
};

/** An exception from the linter names its rule and its reason, and there is none for length. */
export const lintExceptions: Rule = (files) =>
  files.filter(isSource).flatMap(({ path, text }) =>
    text.split("\n").flatMap((line, index) => {
      const exception = /(?:ox|es)lint-disable[a-z-]*(.*)/.exec(line);
      if (exception === null) return [];
      const named = /^ [a-z@/-]+(?:, [a-z@/-]+)* -- \S+/.test(exception[1] ?? "");
      if (named && !line.includes("max-lines")) return [];
      return [
        `${path}:${index + 1}: "${line.trim()}": name the rule and, after " -- ", the reason; length has no exception`,
      ];
    }),
  );

/**
 * Modules hold no state: two controllers in one process must not share any. A test file is loaded by itself, and its hooks may fill
 * variables that its tests read.
 */
export const moduleState: Rule = (files) =>
  files
    .filter((file) => isSource(file) && !file.path.endsWith(".test.ts"))
    .flatMap(({ path, text }) => {
      const code = codeOf(text);
      const found = [...code.matchAll(/^(?:export )?(?:let|var) +([\w$]+)/gm)].map(
        (match) =>
          `${path}: module-level variable "${match[1]}": pass the value, or keep it in an object somebody makes`,
      );
      for (const [, exported, name = "", type = "", value = ""] of code.matchAll(
        /^(export )?const ([\w$]+)(: [^=]+)? = (new (?:Weak)?(?:Map|Set)\b|\[|\{\})/gm,
      )) {
        const readonly = /^: (?:Readonly|readonly )/.test(type) || isConstArray(code, name, value);
        const changed = new RegExp(`\\b${name}(?:\\.(?:${MUTATORS})\\(|\\[[^\\]]*\\] = |\\.[\\w$]+ = )`).test(code);
        if (changed)
          found.push(`${path}: module-level "${name}" is changed: keep the state in an object somebody makes`);
        else if (exported !== undefined && !readonly) {
          found.push(`${path}: exported "${name}" can be changed by importers: give it a readonly type or "as const"`);
        }
      }
      return found;
    });

const MUTATORS = "set|add|delete|clear|push|pop|shift|unshift|splice|sort|reverse|fill";

export const topLevel: Rule = (files) => {
  const entries = new Set(files.map((file) => file.path.split("/")[0] ?? ""));
  return [...entries]
    .filter((entry) => !entry.startsWith(".") && !TOP_LEVEL.includes(entry))
    .map(
      (entry) => `${entry}: is not one of the entries of the top level: move it into one of ${TOP_LEVEL.join(", ")}`,
    );
};

/** Test files that check nothing pass for ever. Expectations of types count: the check script compiles them. */
export const testsAssert: Rule = (files) =>
  files
    .filter((file) => file.path.endsWith(".test.ts"))
    .filter((file) => !/\bexpect(?:TypeOf)?[(<]|\bassert\b|\w*[cC]ontract\(/.test(codeOf(file.text)))
    .map((file) => `${file.path}: contains no assertion: expect something, or call a contract`);

/** The path's layer: the most specific entry that holds it. */
export function layerOf(path: string): Layer | undefined {
  return LAYERS.filter((layer) => isWithin(path, layer.path)).sort((a, b) => b.path.length - a.path.length)[0];
}

export interface Import {
  from: string;
  typeOnly: boolean;
}

/** Every module that a file names in an import or export statement or in `import()`. */
export function importsOf(text: string): Import[] {
  const code = codeOf(text, "keep");
  const statements = code.matchAll(/^[ \t]*(?:import|export)\b(\s+type\b)?[^;"'`=()]*?\bfrom\s*["']([^"'\n]+)["']/gm);
  const bare = code.matchAll(/^[ \t]*import\s*["']([^"'\n]+)["']/gm);
  const dynamic = code.matchAll(/\bimport\(\s*["'`]([^"'`\n]+)["'`]/g);
  return [
    ...[...statements].map(([, type, from = ""]) => ({ from, typeOnly: type !== undefined })),
    ...[...bare, ...dynamic].map(([, from = ""]) => ({ from, typeOnly: false })),
  ];
}

function refusal(layer: Layer, target: string): string | undefined {
  const other = layerOf(target);
  if (other === undefined) return "it is in no layer of the program";
  if (other.path === layer.path || other.floor < layer.floor) return undefined;
  if (BRIDGES.some((bridge) => bridge.from === layer.path && isWithin(target, bridge.to))) return undefined;
  if (other.floor > layer.floor) return `imports go down only, and ${other.path} is above ${layer.path}`;
  return `${layer.path} and ${other.path} are on one floor and do not know each other`;
}

function isWithin(path: string, folder: string): boolean {
  return path === folder || path.startsWith(`${folder}/`);
}

function programFiles(files: readonly RepositoryFile[]): RepositoryFile[] {
  return files.filter((file) => isSource(file) && /^(?:controller|backends)\//.test(file.path));
}

function isSource(file: RepositoryFile): boolean {
  return file.path.endsWith(".ts");
}

function isConstArray(code: string, name: string, value: string): boolean {
  if (value !== "[") return false;
  const start = code.search(new RegExp(`^(?:export )?const ${name}\\b`, "m"));
  const end = code.indexOf(";\n", start);
  return /\]\s+as const\b/.test(code.slice(start, end === -1 ? code.length : end));
}
