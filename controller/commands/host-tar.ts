import { constants, createWriteStream, type Stats } from "node:fs";
import { link, lstat, mkdir, open, opendir, readlink, rm, symlink } from "node:fs/promises";
import { dirname, join } from "node:path";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import tar from "tar-stream";
import { CommandError, EXIT } from "./exit.ts";

/** Depth of a tree that is packed or unpacked. */
const DEPTH_MAX = 128;
/** Links of one archive are made at its end and kept in memory until then. */
const LINKS_MAX = 100_000;

/** A tar stream of a file or folder of this host under another name. Links are packed as links, never followed. */
export function packHost(path: string, name: string): Readable {
  const pack = tar.pack();
  packTree(pack, path, { name, depth: 0 }).then(
    () => pack.finalize(),
    (error: unknown) => pack.destroy(error instanceof Error ? error : new Error(String(error))),
  );
  return Readable.from(pack, { objectMode: false });
}

async function packTree(pack: tar.Pack, path: string, place: { name: string; depth: number }): Promise<void> {
  if (place.depth > DEPTH_MAX) throw new CommandError(EXIT.refused, `"${path}" is deeper than ${DEPTH_MAX} folders`);
  const stats = await lstat(path);
  const header = { name: place.name, mode: stats.mode & 0o777, mtime: stats.mtime };
  if (stats.isSymbolicLink()) {
    await addEntry(pack, { ...header, type: "symlink", linkname: await readlink(path) });
  } else if (stats.isFile()) {
    await packFile(pack, path, header);
  } else if (stats.isDirectory()) {
    await addEntry(pack, { ...header, type: "directory" });
    for await (const entry of await opendir(path)) {
      await packTree(pack, join(path, entry.name), { name: `${place.name}/${entry.name}`, depth: place.depth + 1 });
    }
  }
  // Sockets, devices and pipes mean nothing elsewhere.
}

/** An entry without a body, or with a short one. */
export function addEntry(
  pack: tar.Pack,
  header: Parameters<tar.Pack["entry"]>[0],
  body: string | Uint8Array = "",
): Promise<void> {
  return new Promise((resolve, reject) => {
    pack.entry(header, body, (error) => (error ? reject(error) : resolve()));
  });
}

async function packFile(
  pack: tar.Pack,
  path: string,
  header: { name: string; mode: number; mtime: Date },
): Promise<void> {
  const handle = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW);
  try {
    const { size } = await handle.stat();
    // A file that grows meanwhile is packed up to the size that was announced; one that shrinks fails the stream.
    if (size === 0) return await addEntry(pack, header);
    await pipeline(handle.createReadStream({ autoClose: false, end: size - 1 }), pack.entry({ ...header, size }));
  } finally {
    await handle.close();
  }
}

/**
 * Unpacks a tar stream whose entries are all `root` or below it to `target` on this host. The stream comes from a bottle and is not trusted:
 * absolute names, `..`, and anything that would be written through a link are refused, links that lead out of the target as well. Links are
 * made last, so that no entry can be written through one. Devices and pipes are left out; their names are returned.
 */
export async function unpackHost(stream: Readable, root: string, target: string): Promise<{ skipped: string[] }> {
  const extract = tar.extract();
  const links: { path: string[]; linkname: string }[] = [];
  const skipped: string[] = [];
  const fed = pipeline(stream, extract);
  // The failure is thrown by the loop below or by the wait behind it, whichever sees it first.
  fed.catch(() => undefined);
  for await (const entry of extract) {
    const { header } = entry;
    const path = innerPath(header.name, root);
    switch (header.type) {
      case "directory":
        await ensureFolder(target, path);
        break;
      case "file":
      case "contiguous-file":
        await writeFile(entry, await freePlace(target, path), header.mode ?? 0o644);
        break;
      case "symlink":
        links.push({ path, linkname: innerLink(path, header.linkname ?? "") });
        break;
      case "link":
        await link(await existingFile(target, innerPath(header.linkname ?? "", root)), await freePlace(target, path));
        break;
      default:
        skipped.push(header.name);
    }
    if (links.length > LINKS_MAX) throw new CommandError(EXIT.refused, `the archive has more than ${LINKS_MAX} links`);
    entry.resume();
  }
  await fed;
  for (const { path, linkname } of links) await symlink(linkname, await freePlace(target, path));
  return { skipped };
}

/** The parts of an entry's name below the root. */
export function innerPath(name: string, root: string): string[] {
  const parts = name.split("/").filter((part, index) => part !== "" || index === 0);
  const clean = parts.filter((part) => part !== ".");
  const isBad = clean.some((part) => part === ".." || part === "" || part.includes("\0"));
  if (isBad || clean[0] !== root || clean.length > DEPTH_MAX) {
    throw new CommandError(
      EXIT.refused,
      `the archive has an entry "${name}" outside "${root}": nothing of it is written`,
    );
  }
  return clean.slice(1);
}

/** `..` only in front, and not above the root: then no chain of links inside the root leads out of it. */
function innerLink(path: readonly string[], linkname: string): string {
  const parts = linkname.split("/").filter((part) => part !== "" && part !== ".");
  const ups = parts.findIndex((part) => part !== "..");
  const leading = ups < 0 ? parts.length : ups;
  const isInside =
    !linkname.startsWith("/") && !parts.slice(leading).includes("..") && leading < Math.max(path.length, 1);
  if (isInside && linkname !== "" && !linkname.includes("\0")) return linkname;
  throw new CommandError(
    EXIT.refused,
    `the archive has a link "${path.join("/")}" to "${linkname}", which may lead out of it`,
  );
}

async function statOf(path: string): Promise<Stats | undefined> {
  try {
    return await lstat(path);
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") return undefined;
    throw error;
  }
}

/** Makes the folders below the target one by one; whatever is there and is no folder, a link above all, is refused. */
async function ensureFolder(target: string, path: readonly string[]): Promise<string> {
  let folder = target;
  for (const part of ["", ...path]) {
    folder = join(folder, part);
    const stats = await statOf(folder);
    if (stats === undefined) await mkdir(folder);
    else if (!stats.isDirectory() && (folder !== target || !stats.isSymbolicLink())) {
      throw new CommandError(EXIT.refused, `cannot unpack into "${folder}": it is there and is not a folder`);
    }
  }
  return folder;
}

/** Where a file can be made anew: a file or link of that name is removed first, never written through. */
async function freePlace(target: string, path: readonly string[]): Promise<string> {
  if (path.length > 0) await ensureFolder(target, path.slice(0, -1));
  const place = join(target, ...path);
  const stats = await statOf(place);
  if (stats?.isDirectory() === true) {
    throw new CommandError(EXIT.refused, `cannot write "${place}": it is a folder`);
  }
  if (stats !== undefined) await rm(place);
  return place;
}

async function existingFile(target: string, path: readonly string[]): Promise<string> {
  await ensureFolder(target, path.slice(0, -1));
  const place = join(target, ...path);
  if ((await statOf(place))?.isFile() === true) return place;
  throw new CommandError(EXIT.refused, `the archive has a hard link to "${path.join("/")}", which is not a file of it`);
}

/** What `for await` over an unpacked archive yields: the entry's header and its bytes. */
export type TarEntry = tar.Extract extends AsyncIterable<infer Entry> ? Entry : never;

/** Bits beyond read, write and execute (set-user-id) are not taken over from a bottle. */
async function writeFile(entry: TarEntry, place: string, mode: number): Promise<void> {
  await mkdir(dirname(place), { recursive: true });
  await pipeline(entry, createWriteStream(place, { flags: "wx", mode: mode & 0o777 }));
}
