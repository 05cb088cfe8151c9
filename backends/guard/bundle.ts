import { build, type Metafile, type Plugin } from "esbuild";
import { existsSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join, relative, resolve } from "node:path";
import { fileURLToPath } from "node:url";

/**
 * Part of `npm run build`, after the compiler: makes one directory of the guard program that needs no other, because the image of holder and
 * guard and the sandboxes of bubblewrap hold Node and this and nothing else. In parts, so that a holder does not load what only a guard needs.
 */
const OWN = dirname(fileURLToPath(import.meta.url));
const OUT = resolve(OWN, "../../guard");
/** Put in its place when it is complete: a build that fails leaves the last one. */
const NEXT = `${OUT}.next`;
/** Packages of the CommonJS kind ask for Node's modules with `require`, which a module has to make for itself. */
const REQUIRE = 'import { createRequire } from "node:module"; const require = createRequire(import.meta.url);';

/**
 * Of undici the guard uses one class. The package loads all of itself, fetch, caches and mocks included: 70 ms and 7 MiB in each guard.
 * Whoever imports another part of it is told so by the build.
 */
const POOL_ONLY: Plugin = {
  name: "pool-only",
  setup({ onResolve, onLoad }) {
    onResolve({ filter: /^undici$/ }, () => ({ path: "undici", namespace: "pool-only" }));
    onLoad({ filter: /./, namespace: "pool-only" }, () => ({
      contents: 'export { default as Pool } from "undici/lib/dispatcher/pool.js";',
      resolveDir: OWN,
    }));
  },
};

rmSync(NEXT, { recursive: true, force: true });
const { metafile } = await build({
  absWorkingDir: OWN,
  entryPoints: ["main.js"],
  outdir: NEXT,
  bundle: true,
  splitting: true,
  format: "esm",
  platform: "node",
  target: "node20",
  mainFields: ["module", "main"],
  banner: { js: REQUIRE },
  plugins: [POOL_ONLY],
  // Licences are told once, in a file of their own: packages rarely keep theirs in the code.
  legalComments: "none",
  metafile: true,
  logLevel: "warning",
});
writeFileSync(join(NEXT, "package.json"), '{"type":"module"}\n');
writeFileSync(join(NEXT, "LICENSES.txt"), licences(metafile));
rmSync(OUT, { recursive: true, force: true });
renameSync(NEXT, OUT);

function licences(meta: Metafile): string {
  const roots = new Set(Object.keys(meta.inputs).map(packageRoot));
  return [...roots]
    .filter((root) => root !== undefined)
    .sort()
    .map(licenceOf)
    .join(`\n${"-".repeat(80)}\n\n`);
}

/** The directory of the package that a bundled file comes from; `undefined` for files of our own. */
function packageRoot(path: string): string | undefined {
  return /^.*\/node_modules\/(?:@[^/]+\/)?[^/]+/.exec(resolve(OWN, path))?.[0];
}

function licenceOf(root: string): string {
  const { name, version, license } = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
  const files = ["LICENSE", "LICENSE.md", "LICENSE.txt", "license", "LICENCE", "CopyrightNotice.txt"];
  const found = files.map((file) => join(root, file)).find((file) => existsSync(file));
  if (license === undefined && found === undefined)
    throw new Error(`cannot tell the licence of "${relative(OWN, root)}"`);
  const text = found === undefined ? "" : `\n${readFileSync(found, "utf8").trim()}\n`;
  return `${name} ${version} (${license})\n${text}`;
}
