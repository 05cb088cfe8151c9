import { posix } from "node:path";
import { Readable } from "node:stream";
import { extract, pack, type Header, type Pack } from "tar-stream";
import { BackendError } from "../../controller/ports/backend.ts";
import { isOnDisk } from "./disk-path.ts";
import { AGENT_GID, AGENT_UID } from "./specs.ts";
import { writeAll } from "./write-all.ts";

type EntryHeader = Pick<Header, "name"> & Partial<Header>;

const ENTRIES_MAX = 1_000_000;

export interface Rewritten {
  output: Readable;
  /** Rejects with Invalid for an archive that is refused. */
  done: Promise<void>;
}

/**
 * Copies an archive with everything in it given to the agent's user, and refuses what could reach beyond the disk. Directories that
 * an entry needs are written out before it: where the disk has a link of that name the engine then replaces it instead of following it.
 */
export function rewriteArchive(tar: Readable, target: { root: string; below: string }): Rewritten {
  const output = pack();
  const input = extract();
  const done = (async () => {
    try {
      await Promise.all([writeAll(tar, input), rewrite(input, output, target)]);
    } catch (error) {
      const cause = toError(error);
      input.destroy(cause);
      output.destroy(cause);
      throw cause;
    }
  })();
  done.catch(() => {});
  return { output: Readable.from(output, { objectMode: false }), done };
}

function toError(error: unknown): Error {
  if (error instanceof BackendError) return error;
  const text = error instanceof Error ? error.message : String(error);
  // What tar-stream says of bytes that are no archive.
  if (/tar|header|checksum|unexpected end/i.test(text)) {
    return new BackendError("Invalid", "ArchiveRefused", `the archive cannot be read: ${text}; make it with tar`, {
      cause: error,
    });
  }
  return error instanceof Error ? error : new Error(text);
}

/** What the archive has put where so far, by path below the root. */
type Seen = Map<string, "file" | "directory" | "link">;

async function rewrite(
  input: ReturnType<typeof extract>,
  output: Pack,
  { root, below }: { root: string; below: string },
): Promise<void> {
  const seen: Seen = new Map();
  writeParents(output, seen, posix.join(below, "x"));
  for await (const entry of input) {
    if (seen.size > ENTRIES_MAX) throw refused(entry.header.name, `the archive has more than ${ENTRIES_MAX} entries`);
    const inner = innerName(entry.header);
    if (inner === "") {
      // The directory itself: it exists, and its mode is not the archive's to change.
      entry.resume();
      continue;
    }
    const name = posix.join(below, inner);
    writeParents(output, seen, name);
    const header = newHeader(entry.header, { name, root, below, seen });
    seen.set(name, kindOf(header));
    if (header.type === "file") {
      await writeAll(entry, output.entry(header));
    } else {
      entry.resume();
      await writeHeader(output, header);
    }
  }
  output.finalize();
}

/** An entry without content. Waiting until it is written keeps a long archive out of memory. */
function writeHeader(output: Pack, header: EntryHeader): Promise<void> {
  return new Promise((resolve, reject) => {
    output.entry(header, (error) => {
      if (error === null || error === undefined) resolve();
      else reject(error);
    });
  });
}

function kindOf(header: EntryHeader): "file" | "directory" | "link" {
  if (header.type === "directory") return "directory";
  return header.type === "symlink" ? "link" : "file";
}

function innerName({ name }: { name: string }): string {
  const parts = name.split("/");
  if (name.startsWith("/")) throw refused(name, "its name is absolute");
  if (parts.includes("..")) throw refused(name, 'its name contains ".."');
  if (name.includes("\0")) throw refused(name, "its name contains a zero byte");
  return parts.filter((part) => part !== "" && part !== ".").join("/");
}

function writeParents(output: Pack, seen: Seen, name: string): void {
  const parts = posix.dirname(name).split("/");
  for (let length = 1; length <= parts.length; length += 1) {
    const parent = parts.slice(0, length).join("/");
    if (parent === "." || parent === "") continue;
    const kind = seen.get(parent);
    if (kind === "directory") continue;
    if (kind !== undefined) throw refused(name, `it lies below "${parent}", which is no directory in this archive`);
    seen.set(parent, "directory");
    output.entry({ name: parent, type: "directory", mode: 0o755, uid: AGENT_UID, gid: AGENT_GID });
  }
}

function newHeader(
  header: EntryHeader,
  { name, root, below, seen }: { name: string; root: string; below: string; seen: Seen },
): EntryHeader {
  const common = {
    name,
    // Set-user bits mean nothing in a bottle and much on the machine where it is unpacked again.
    mode: (header.mode ?? 0o644) & 0o777,
    mtime: header.mtime ?? new Date(0),
    uid: AGENT_UID,
    gid: AGENT_GID,
  };
  switch (header.type) {
    case "file":
    case "contiguous-file":
    case null:
    case undefined:
      return { ...common, type: "file", size: header.size ?? 0 };
    case "directory":
      return { ...common, type: "directory" };
    case "symlink":
      return { ...common, type: "symlink", linkname: linkTarget(header, posix.join(root, posix.dirname(name))) };
    case "link":
      return { ...common, type: "link", linkname: checkedHardLink(header, below, seen) };
    default:
      throw refused(header.name, `it is a ${header.type}`);
  }
}

/**
 * Where a link points is the agent's own matter: it leads there inside the bottle only, and nothing here follows it. The engine refuses relative
 * ones that climb out of the directory it unpacks in, so those are written out in full.
 */
function linkTarget(header: EntryHeader, directory: string): string {
  const target = header.linkname ?? "";
  if (target === "" || target.includes("\0")) throw refused(header.name, "it is a link to nothing");
  const full = posix.resolve(directory, target);
  return posix.isAbsolute(target) || isOnDisk(full) ? target : full;
}

/** A hard link names a file of the same archive: any other one could be reached through a link on the disk. */
function checkedHardLink(header: EntryHeader, below: string, seen: Seen): string {
  const target = posix.join(below, innerName({ ...header, name: header.linkname ?? "" }));
  if (seen.get(target) === "file") return target;
  throw refused(header.name, `it is a hard link to "${header.linkname}", which is no file before it in this archive`);
}

function refused(name: string, why: string): BackendError {
  return new BackendError(
    "Invalid",
    "ArchiveRefused",
    `archive entry "${name}" is refused: ${why}; leave it out of the archive`,
  );
}
