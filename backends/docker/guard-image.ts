import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { createReadStream, readdirSync, readFileSync, realpathSync, statSync } from "node:fs";
import { join, posix } from "node:path";
import { Readable } from "node:stream";
import { promisify } from "node:util";
import { pack, type Pack } from "tar-stream";
import { BackendError, HOME, WORKSPACE } from "../../controller/ports/backend.ts";
import type { Log } from "../../controller/ports/log.ts";
import { builtGuardProgram } from "../guard-launch.ts";
import type { Engine } from "./engine.ts";
import { oneLine, orAbsent } from "./errors.ts";
import { MANAGED_LABELS } from "./names.ts";
import { writeAll } from "./write-all.ts";

/** Of holder and guard; another one than the agent's, so that not even a shared mistake makes the sockets the agent's. */
const GUARD_UID = 7000;
export const GUARD_USER = `${GUARD_UID}:${GUARD_UID}`;
/** The directory of the sockets between holder and guard, in both of them and nowhere else. */
export const SOCKETS = "/sockets";
/** Of the two only the guard knows of it. */
export const AUDIT = `${SOCKETS}/audit`;
/** Authorities that the guard trusts beside the public ones, if there are any. */
export const UPSTREAM_CA = `${SOCKETS}/upstream-ca.pem`;
export const GUARD_NODE = "/guard/node";
const PROGRAM_ROOT = "/guard/program";
export const GUARD_MAIN = `${PROGRAM_ROOT}/main.js`;

const REPOSITORY = "bot-bottle-guard";
/** Part of the image's name: raise it when the layout below changes. */
const LAYOUT = "2";
const IMPORT_MS_MAX = 300_000;
const LDD_MS_MAX = 10_000;
const ARCHITECTURES: Record<string, string> = {
  x64: "amd64",
  arm64: "arm64",
  arm: "arm",
  ppc64: "ppc64le",
  s390x: "s390x",
};

/** One file or directory of the image. */
type Entry =
  | { path: string; directory: true; uid: number }
  | { path: string; source: string; size: number; executable: boolean }
  | { path: string; text: string };

/** The image as it will be made, or is already. */
export interface GuardImage {
  name: string;
  entries: readonly Entry[];
}

/** The name is a hash of the contents: another Node or another guard program is another image. */
export async function planGuardImage(programDir: string | undefined): Promise<GuardImage> {
  if (process.platform !== "linux") throw unavailable(`this host runs "${process.platform}", not Linux`);
  const entries = await imageEntries(programDir ?? defaultProgramDir());
  return { name: `${REPOSITORY}:${hashOf(entries)}`, entries };
}

/**
 * Makes the image of holder and guard present and returns its id. It is put together from the Node that runs this process and the
 * guard program beside it, and imported: no registry takes part, and its code is that of the controller. The id and not the name, because
 * an engine looks up the name of each container's image anew in every list: with names a look at many bottles takes twice the time.
 */
export async function ensureGuardImage(options: { engine: Engine; log: Log; image: GuardImage }): Promise<string> {
  const { engine, image } = options;
  const { name } = image;
  const found = await imageId(engine, name);
  if (found !== undefined) return found;
  await refuseForeignEngine(engine);
  options.log.info({ image: name }, "importing the guard image");
  await engine.call("image.import:guard", (abortSignal) => importImage(engine, image, abortSignal), {
    timeoutMs: IMPORT_MS_MAX,
    subject: name,
  });
  const made = await imageId(engine, name);
  if (made !== undefined) return made;
  throw new BackendError("Transient", "GuardImageImportFailed", `image "${name}" was imported and is not there`);
}

/** `undefined` if the engine has no such image. */
async function imageId(engine: Engine, name: string): Promise<string | undefined> {
  const found = await orAbsent(
    engine.call("image.inspect:guard", () => engine.docker.getImage(name).inspect(), { subject: name }),
  );
  return found?.Id;
}

async function refuseForeignEngine(engine: Engine): Promise<void> {
  const why = foreignEngine(await engine.call("engine.version", () => engine.docker.version()));
  if (why !== undefined) throw unavailable(why);
}

/** Why this host's Node cannot run on that engine; `undefined` if it can. */
export function foreignEngine(version: { Os: string; Arch: string }): string | undefined {
  const own = `${process.platform}/${ARCHITECTURES[process.arch] ?? process.arch}`;
  const engine = `${version.Os}/${version.Arch}`;
  return own === engine && version.Os === "linux" ? undefined : `this host is ${own}, the engine is ${engine}`;
}

function unavailable(why: string): BackendError {
  return new BackendError(
    "Invalid",
    "GuardImageUnavailable",
    `cannot make the guard image from this host's Node: ${why}; run the controller on a Linux host of the engine's architecture`,
  );
}

async function importImage(engine: Engine, { name, entries }: GuardImage, abortSignal: AbortSignal): Promise<void> {
  const [repo, tag] = name.split(":");
  const labels = Object.entries(MANAGED_LABELS).map(([key, value]) => `LABEL ${key}=${value}`);
  const changes = [`USER ${GUARD_USER}`, "WORKDIR /", `CMD ["${GUARD_NODE}", "${GUARD_MAIN}"]`, ...labels];
  const archive = pack();
  // A reader that goes away (engine gone, time is up) makes the writer fail too; the request's own error says why.
  const written = writeArchive(archive, entries).catch((error: unknown) => {
    archive.destroy(error instanceof Error ? error : new Error(String(error)));
  });
  const options = { repo, tag, changes, abortSignal };
  const body = Readable.from(archive, { objectMode: false });
  const progress: NodeJS.ReadableStream = await engine.docker.importImage(body, options);
  await written;
  for await (const chunk of progress) {
    const said = String(chunk);
    if (said.includes('"error"')) throw new BackendError("Transient", "GuardImageImportFailed", oneLine(said));
  }
}

async function writeArchive(archive: Pack, entries: readonly Entry[]): Promise<void> {
  for (const entry of entries) {
    const name = entry.path.slice(1);
    // A fixed time: the same contents are the same image.
    const common = { name, mtime: new Date(0), uid: 0, gid: 0 };
    if ("directory" in entry) {
      archive.entry({ ...common, type: "directory", mode: 0o755, uid: entry.uid, gid: entry.uid });
    } else if ("text" in entry) {
      archive.entry({ ...common, mode: 0o644 }, entry.text);
    } else {
      const sink = archive.entry({ ...common, mode: entry.executable ? 0o755 : 0o644, size: entry.size });
      await writeAll(createReadStream(entry.source), sink);
    }
  }
  archive.finalize();
}

async function imageEntries(programDir: string): Promise<Entry[]> {
  const node = realpathSync(process.execPath);
  const libraries = await sharedLibraries(node);
  const files: Entry[] = [
    file(GUARD_NODE, node, true),
    ...libraries.map((path) => file(path, path, true)),
    ...programFiles(programDir),
    { path: "/etc/passwd", text: `root:x:0:0::/:/bin/false\nguard:x:${GUARD_UID}:${GUARD_UID}::/:/bin/false\n` },
  ];
  const owned: Entry[] = [
    { path: HOME, directory: true, uid: 1000 },
    { path: WORKSPACE, directory: true, uid: 1000 },
    { path: SOCKETS, directory: true, uid: GUARD_UID },
    { path: AUDIT, directory: true, uid: GUARD_UID },
  ];
  return [...parents([...files, ...owned]), ...owned, ...files];
}

/** Every directory above an entry that is no entry itself: what an engine makes of a missing one differs. */
function parents(entries: readonly Entry[]): Entry[] {
  const found = new Set<string>();
  for (const { path } of entries) {
    for (let above = posix.dirname(path); above !== "/"; above = posix.dirname(above)) found.add(above);
  }
  for (const { path } of entries) found.delete(path);
  return [...found].sort().map((path) => ({ path, directory: true, uid: 0 }));
}

function file(path: string, source: string, executable: boolean): Entry {
  return { path, source, size: statSync(source).size, executable };
}

/** The libraries that the loader finds for a program, the loader included. None for a static program. */
async function sharedLibraries(program: string): Promise<string[]> {
  try {
    const { stdout } = await promisify(execFile)("ldd", [program], { timeout: LDD_MS_MAX });
    const paths = stdout.split("\n").map((line) => /(?:=> |^\s*)(\/\S+) \(0x/.exec(line)?.[1]);
    return [...new Set(paths.filter((path) => path !== undefined))].sort();
  } catch (error) {
    const said = error instanceof Error && "stderr" in error ? String(error.stderr) : "";
    if (/not a (valid )?dynamic/i.test(said)) return [];
    throw unavailable(`ldd "${program}" failed: ${oneLine(said === "" ? String(error) : said)}`);
  }
}

function defaultProgramDir(): string {
  const { dir, isBuilt } = builtGuardProgram();
  if (isBuilt) return dir;
  const message = `cannot make the guard image: the guard program is not in "${dir}"; type npm run build`;
  throw new BackendError("Invalid", "GuardImageUnavailable", message);
}

/** All of the bundle: main.js, what it loads when it needs it, and the package.json that says what language they are in. */
function programFiles(programDir: string): Entry[] {
  const names = readdirSync(programDir, { recursive: true, encoding: "utf8" }).sort();
  return names
    .map((name) => ({ name, path: join(programDir, name) }))
    .filter(({ path }) => statSync(path).isFile())
    .map(({ name, path }) => ({ path: posix.join(PROGRAM_ROOT, name), text: readFileSync(path, "utf8") }));
}

/** Of the Node binary and its libraries version and size stand for the content: reading 100 MB at every start would cost more than it proves. */
function hashOf(entries: readonly Entry[]): string {
  const hash = createHash("sha256").update(`${LAYOUT} ${process.version} ${process.arch}\n`);
  for (const entry of entries) {
    const content = "text" in entry ? entry.text : "size" in entry ? String(entry.size) : "";
    hash.update(`${entry.path}\n${content.length}\n${content}\n`);
  }
  return hash.digest("hex").slice(0, 16);
}
