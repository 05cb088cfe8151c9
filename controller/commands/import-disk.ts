import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import tar from "tar-stream";
import { HOME, WORKSPACE, type Backend } from "../ports/backend.ts";
import { HOME_ENTRY, WORKSPACE_ENTRY } from "./archive.ts";
import { CommandError, EXIT } from "./exit.ts";
import { addEntry, type TarEntry } from "./host-tar.ts";

const PARTS = [
  { prefix: HOME_ENTRY, directory: HOME },
  { prefix: WORKSPACE_ENTRY, directory: WORKSPACE },
] as const;

interface OpenPart {
  prefix: string;
  pack: tar.Pack;
  copied: Promise<void>;
}

/** Sends the entries of one archive to the parts of a disk, one part after the other and one chunk at a time. */
export function createDiskWriter(target: { backend: Backend; uid: string; signal: AbortSignal }): {
  write(entry: TarEntry): Promise<void>;
  end(): Promise<void>;
  /** Ends the copy under way; what went wrong there is the reason for `error` more often than not, and is thrown then. */
  fail(error: unknown): Promise<void>;
} {
  let open: OpenPart | undefined;

  const end = async () => {
    const part = open;
    open = undefined;
    part?.pack.finalize();
    await part?.copied;
  };
  return {
    async write(entry) {
      const { prefix, name } = splitName(entry.header.name);
      if (open?.prefix !== prefix) {
        await end();
        open = openPart(target, prefix);
      }
      const { pack, copied } = open;
      // A backend that gave up reads no further: without this race the copy would wait for it for ever.
      await Promise.race([copyEntry(pack, entry, { prefix, name }), failureOf(copied)]);
      entry.resume();
    },
    end,
    async fail(error) {
      const part = open;
      open = undefined;
      part?.pack.destroy(error instanceof Error ? error : new Error(String(error)));
      await part?.copied.catch(() => undefined);
    },
  };
}

function openPart(target: { backend: Backend; uid: string; signal: AbortSignal }, prefix: string): OpenPart {
  const part = PARTS.find((each) => each.prefix === prefix);
  if (part === undefined) throw new CommandError(EXIT.refused, `the archive has an unknown part "${prefix}"`);
  const pack = tar.pack();
  const stream = Readable.from(pack, { objectMode: false });
  const copied = target.backend.copyIn(target.uid, part.directory, stream, target.signal);
  copied.catch(() => undefined);
  return { prefix, pack, copied };
}

async function failureOf(copied: Promise<void>): Promise<never> {
  await copied;
  throw new CommandError(EXIT.error, "the backend ended the copy before all of the archive was read");
}

async function copyEntry(pack: tar.Pack, entry: TarEntry, place: { prefix: string; name: string }): Promise<void> {
  // The part's own folder is there already.
  if (place.name === "") return;
  const { pax: _pax, ...header } = entry.header;
  const moved = { ...header, name: place.name };
  switch (header.type) {
    case "file":
    case "contiguous-file":
      if (header.size > 0) await pipeline(entry, pack.entry(moved));
      else await addEntry(pack, moved);
      return;
    case "link": {
      const target = splitName(header.linkname);
      if (target.prefix !== place.prefix) throw outside(header.linkname);
      return await addEntry(pack, { ...moved, size: 0, linkname: target.name });
    }
    case "directory":
    case "symlink":
      return await addEntry(pack, { ...moved, size: 0 });
    default:
      throw new CommandError(EXIT.refused, `the archive has an entry "${header.name}" of type ${header.type}`);
  }
}

function splitName(name: string): { prefix: string; name: string } {
  const parts = name.split("/").filter((part) => part !== "" && part !== ".");
  const [prefix = "", ...rest] = parts;
  if (name.startsWith("/") || parts.includes("..") || !PARTS.some((part) => part.prefix === prefix))
    throw outside(name);
  return { prefix, name: rest.join("/") };
}

function outside(name: string): CommandError {
  return new CommandError(
    EXIT.refused,
    `the archive has an entry "${name}" that belongs to no part of a bottle's disk`,
  );
}
