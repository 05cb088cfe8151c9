import { codeOf } from "./source-text.ts";
import type { RepositoryFile, Rule } from "./rules.ts";

const DECISIONS = "controller/decisions/";

// Written in halves, so that this file does not contain what it looks for.
const MARKERS = [
  ["TO", "DO"],
  ["FIX", "ME"],
  ["X", "XX"],
  ["HA", "CK"],
].map((halves) => halves.join(""));
const MACHINE_PATH = new RegExp(`(?:^|[^\\w.-])${["", "work", ""].join("/")}`);

/** Packages run nothing at installation unless package.json says so by name. */
export const installScriptsAreNamed: Rule = (files) => {
  const allowed = manifest(files).allowScripts ?? {};
  const scripted = lockedPackages(files)
    .filter(([, locked]) => locked.hasInstallScript === true)
    .map(([path]) => path.slice(path.lastIndexOf("node_modules/") + "node_modules/".length));
  const unnamed = [...new Set(scripted)].filter((name) => !(name in allowed));
  const stale = Object.keys(allowed).filter((name) => !scripted.includes(name));
  return [
    ...unnamed.map(
      (name) => `package-lock.json: "${name}" has an install script: name it in package.json's allowScripts`,
    ),
    ...stale.map((name) => `package.json: allowScripts names "${name}", which has no install script: remove the entry`),
  ];
};

/** The same versions everywhere: a range would let an unreviewed release in. */
export const versionsAreExact: Rule = (files) => {
  const { dependencies, devDependencies, optionalDependencies } = manifest(files);
  return Object.entries({ ...dependencies, ...devDependencies, ...optionalDependencies })
    .filter(([, version]) => !/^\d+\.\d+\.\d+(?:-[\w.]+)?$/.test(version))
    .map(([name, version]) => `package.json: "${name}" is at "${version}": write one exact version`);
};

/** The lockfile is for everybody: it names no registry, so that each machine asks its own. */
export const noRegistryIsNamed: Rule = (files) =>
  lockedPackages(files)
    .filter(([, { resolved }]) => resolved !== undefined && /^https?:/.test(resolved))
    .map(([path, { resolved }]) => {
      const remedy = "install with omit-lockfile-registry-resolved, as .npmrc says";
      return `package-lock.json: "${path}" comes from "${resolved}": ${remedy}`;
    });

/** Unfinished work is finished or written down where people look for it, not left in the text. */
export const noMarkers: Rule = (files) =>
  lineFindings(files, new RegExp(`\\b(?:${MARKERS.join("|")})\\b`), "marks unfinished work: finish it or remove it");

/** Paths of one developer's machine mean nothing on another. */
export const noMachinePaths: Rule = (files) =>
  lineFindings(files, MACHINE_PATH, "is a path of one machine: use a relative path or a temporary folder");

/** A test that runs alone silences all others. */
export const noFocusedTests: Rule = (files) =>
  files
    .filter((file) => file.path.endsWith(".ts"))
    .filter((file) => /\b(?:describe|it|test|suite)(?:\.\w+)*\.only\b/.test(codeOf(file.text)))
    .map((file) => `${file.path}: runs one test only: remove ".only"`);

/** Decisions are numbered 0001, 0002, … without gaps, and whoever refers to one refers to one that exists. */
export const decisionsAreNumbered: Rule = (files) => {
  const names = files
    .filter((file) => file.path.startsWith(DECISIONS) && !file.path.endsWith("/README.md"))
    .map((file) => file.path.slice(DECISIONS.length))
    .sort();
  const misnamed = names.filter((name) => !/^\d{4}-[a-z0-9]+(?:-[a-z0-9]+)*\.md$/.test(name));
  const numbers = names.filter((name) => !misnamed.includes(name)).map((name) => name.slice(0, 4));
  const misnumbered = numbers.filter((number, index) => Number(number) !== index + 1);
  const mentions = files
    .filter(isText)
    .flatMap(({ path, text }) =>
      [...text.matchAll(/\bdecisions\/(\d{4})/g)]
        .filter(([, number = ""]) => !numbers.includes(number))
        .map(([mention]) => `${path}: refers to "${mention}", which does not exist`),
    );
  return [
    ...misnamed.map((name) => `${DECISIONS}${name}: is not named NNNN-title.md in lower case with hyphens`),
    ...misnumbered.map((number) => `${DECISIONS}${number}: numbers count from 0001 without gaps or doubles`),
    ...mentions,
  ];
};

interface Manifest {
  dependencies?: Record<string, string>;
  devDependencies?: Record<string, string>;
  optionalDependencies?: Record<string, string>;
  allowScripts?: Record<string, boolean>;
}

interface LockedPackage {
  hasInstallScript?: boolean;
  resolved?: string;
}

function manifest(files: readonly RepositoryFile[]): Manifest {
  return (json(files, "package.json") ?? {}) as Manifest;
}

function lockedPackages(files: readonly RepositoryFile[]): [string, LockedPackage][] {
  const lock = json(files, "package-lock.json") as { packages?: Record<string, LockedPackage> } | undefined;
  return Object.entries(lock?.packages ?? {});
}

/** A file of the top level as JSON; `undefined` if it is not there. */
export function json(files: readonly RepositoryFile[], path: string): unknown {
  const file = files.find((one) => one.path === path);
  return file === undefined ? undefined : JSON.parse(file.text);
}

function lineFindings(files: readonly RepositoryFile[], pattern: RegExp, what: string): string[] {
  return files.filter(isText).flatMap(({ path, text }) =>
    text.split("\n").flatMap((line, index) => {
      const hit = pattern.exec(line);
      return hit === null ? [] : [`${path}:${index + 1}: "${hit[0].trim()}" ${what}`];
    }),
  );
}

/** Not the lockfile, whose checksums contain every word sooner or later, and nothing binary. */
function isText(file: RepositoryFile): boolean {
  return file.path !== "package-lock.json" && !file.text.includes("\0");
}
