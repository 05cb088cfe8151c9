import { posix } from "node:path";
import { PassThrough, type Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import tar from "tar-stream";
import { HOME, WORKSPACE, BackendError } from "../../controller/ports/backend.ts";
import { diskNames, own, type FakeContext } from "./context.ts";
import { locate, type FileNode } from "./file-tree.ts";

/** A place on a bottle's disk, and the caller's signal. */
interface Place {
  uid: string;
  /** Absolute: HOME, WORKSPACE or below. */
  path: string;
  signal?: AbortSignal;
}

/** Unpacks an archive below a directory of the disk: all of it or, if one entry is refused, nothing. */
export async function copyTo(context: FakeContext, place: Place, archive: Readable): Promise<void> {
  const { volumeId, below } = await placeOf(context, place);
  const engine = context.engine(place.signal);
  const present = await engine.getArchive(place.uid, volumeId);
  const nodes = new Map<string, FileNode>();
  const extract = tar.extract();
  extract.on("entry", (header, stream, next) => {
    void readEntry(stream)
      .then((bytes) => {
        const path = posix.join(below, innerPath(header.name));
        const link = linkAbove(path, present) ?? linkAbove(path, nodes);
        if (link !== undefined) throw badArchive(header.name, `"${link}" is a link`);
        if (path !== "" && path !== ".") nodes.set(path.replace(/\/$/, ""), nodeOf(header, bytes));
        next();
      })
      .catch((error: unknown) => next(error instanceof Error ? error : new Error(String(error))));
  });
  try {
    await pipeline(archive, extract, { signal: place.signal });
  } catch (error) {
    if (error instanceof BackendError) throw error;
    throw new BackendError("Invalid", "ArchiveInvalid", `the archive for "${place.path}" cannot be read: send a tar`, {
      cause: error,
    });
  }
  await engine.putArchive(place.uid, volumeId, nodes);
}

/** The first entry of the archive is the file or directory itself, named for the last part of its path. */
export async function copyFrom(context: FakeContext, place: Place): Promise<Readable> {
  const { volumeId, below } = await placeOf(context, place);
  const tree = await context.engine(place.signal).getArchive(place.uid, volumeId);
  const base = posix.basename(place.path);
  const inside = [...tree].filter(([path]) => below === "" || path.startsWith(`${below}/`)).sort(byPath);
  const node = tree.get(below);
  if (node === undefined && inside.length === 0 && below !== "") {
    throw new BackendError("NotFound", "FileNotFound", `"${place.path}" does not exist in bottle "${place.uid}"`);
  }
  const pack = tar.pack();
  addEntry(pack, base, node ?? { type: "directory", mode: 0o755 });
  for (const [path, one] of inside)
    addEntry(pack, posix.join(base, path.slice(below === "" ? 0 : below.length + 1)), one);
  pack.finalize();
  return pack.pipe(new PassThrough());
}

async function placeOf(context: FakeContext, place: Place): Promise<{ volumeId: string; below: string }> {
  const names = diskNames(place.uid);
  const { volumes } = await own(context, place.uid, place.signal);
  if (posix.normalize(place.path) !== place.path) {
    throw new BackendError(
      "Invalid",
      "PathInvalid",
      `"${place.path}" is not a plain path: write it without "." and ".."`,
    );
  }
  const parts = [
    { part: "home" as const, files: new Map<string, FileNode>() },
    { part: "workspace" as const, files: new Map<string, FileNode>() },
  ];
  const found = locate(parts, place.path);
  if (found === undefined) {
    const fix = `name a path in ${HOME} or ${WORKSPACE}`;
    throw new BackendError("Invalid", "PathInvalid", `"${place.path}" is not on the disk of a bottle: ${fix}`);
  }
  const volume = volumes.find((one) => names.includes(one.id) && one.part === found.volume.part);
  if (volume === undefined) {
    throw new BackendError("NotFound", "DiskNotFound", `bottle "${place.uid}" has no disk: create or import it first`);
  }
  return { volumeId: volume.id, below: found.below };
}

function innerPath(name: string): string {
  if (name.startsWith("/")) throw badArchive(name, "it is absolute");
  if (name.split("/").includes("..")) throw badArchive(name, 'it contains ".."');
  return name;
}

/** A link on the way would lead the entry out of the disk. */
function linkAbove(path: string, tree: ReadonlyMap<string, FileNode>): string | undefined {
  const parts = path.split("/");
  for (let count = 1; count < parts.length; count += 1) {
    const above = parts.slice(0, count).join("/");
    if (tree.get(above)?.type === "link") return above;
  }
  return undefined;
}

function badArchive(name: string, why: string): BackendError {
  return new BackendError("Invalid", "ArchiveInvalid", `archive entry "${name}" is refused: ${why}`);
}

function nodeOf(header: tar.Header, bytes: Uint8Array): FileNode {
  if (header.type === "directory") return { type: "directory", mode: header.mode ?? 0o755 };
  if (header.type === "symlink") return { type: "link", target: header.linkname ?? "" };
  if (
    header.type === "file" ||
    header.type === "contiguous-file" ||
    header.type === null ||
    header.type === undefined
  ) {
    return { type: "file", bytes, mode: header.mode ?? 0o644 };
  }
  throw badArchive(header.name, `it is a ${header.type}`);
}

function addEntry(pack: tar.Pack, name: string, node: FileNode): void {
  if (node.type === "file") pack.entry({ name, mode: node.mode }, Buffer.from(node.bytes));
  else if (node.type === "directory") pack.entry({ name: `${name}/`, type: "directory", mode: node.mode });
  else pack.entry({ name, type: "symlink", linkname: node.target });
}

async function readEntry(stream: AsyncIterable<unknown>): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of stream) {
    if (chunk instanceof Uint8Array) chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

function byPath(a: readonly [string, unknown], b: readonly [string, unknown]): number {
  return a[0] < b[0] ? -1 : 1;
}
