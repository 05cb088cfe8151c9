import { randomBytes } from "node:crypto";
import { posix } from "node:path";
import { Transform, type Readable } from "node:stream";
import { BackendError } from "../../controller/ports/backend.ts";
import { rewriteArchive } from "./archive.ts";
import { statPath } from "./command.ts";
import { listUnits, ourLabels, guardSurroundings, type Context } from "./context.ts";
import { isOnDisk, mountOf, parseDiskPath } from "./disk-path.ts";
import { sessionName, volumeName } from "./names.ts";
import { removeContainer } from "./remove.ts";
import { helperSpec } from "./specs.ts";

const COPY_MS_MAX = 600_000;

/** Unpacks below `directory`, which is made if it is missing. What was unpacked before a refusal stays. */
export async function copyIn(
  context: Context,
  uid: string,
  { directory, tar }: { directory: string; tar: Readable },
  signal?: AbortSignal,
): Promise<void> {
  const target = parseDiskPath(directory);
  const access = await openDisk(context, uid, signal);
  try {
    const root = await existingPart(context, access.id, target, signal);
    const archive = rewriteArchive(tar, { root, below: posix.relative(root, target) });
    const { docker, call } = context.engine;
    const sent = call(
      "archive.put",
      (abortSignal) => docker.getContainer(access.id).putArchive(archive.output, { path: root, abortSignal }),
      { signal, timeoutMs: COPY_MS_MAX, subject: directory },
    );
    // The archive's own fault is the reason for a request that broke; a request that failed by itself ends the archive.
    sent.catch(() => archive.output.destroy());
    const [rewritten, put] = await Promise.allSettled([archive.done, sent]);
    if (rewritten.status === "rejected" && rewritten.reason instanceof BackendError) throw rewritten.reason;
    if (put.status === "rejected") throw put.reason;
    if (rewritten.status === "rejected") throw rewritten.reason;
  } finally {
    tar.destroy();
    await access.close();
  }
}

export async function copyOut(context: Context, uid: string, path: string, signal?: AbortSignal): Promise<Readable> {
  const target = parseDiskPath(path);
  const access = await openDisk(context, uid, signal);
  try {
    // A link as the last part is copied as a link; one on the way must stay on the disk.
    if (target !== mountOf(target)) await existingPart(context, access.id, posix.dirname(target), signal);
    const { docker, call } = context.engine;
    const stream = await call(
      "archive.get",
      (abortSignal) => docker.getContainer(access.id).getArchive({ path: target, abortSignal }),
      { signal, subject: path },
    );
    return closingAfter(stream, access.close);
  } catch (error) {
    await access.close();
    throw error;
  }
}

/** The end of the stream is held back until the helper is gone, so that whoever read all may remove the disk at once. */
function closingAfter(source: NodeJS.ReadableStream, close: () => Promise<void>): Readable {
  const output = new Transform({
    transform: (chunk, _encoding, done) => done(null, chunk),
    flush: (done) => void close().then(() => done(), done),
    destroy(error, done) {
      if ("destroy" in source && typeof source.destroy === "function") source.destroy();
      close().then(
        () => done(error),
        () => done(error),
      );
    },
  });
  source.on("error", (error) => output.destroy(error));
  source.on("close", () => {
    if (!output.writableEnded) output.destroy(new BackendError("Transient", "ConnectionLost", "the copy was cut off"));
  });
  return source.pipe(output);
}

/** A container through which the disk can be reached; `close` may be called more than once. */
interface DiskAccess {
  id: string;
  close(): Promise<void>;
}

/** An agent or session that is there, in any state, else a helper that is never started. */
async function openDisk(context: Context, uid: string, signal?: AbortSignal): Promise<DiskAccess> {
  const { docker, call } = context.engine;
  const units = await listUnits(context, uid, signal);
  const unit = units.find(
    ({ facts, state }) => (facts.role === "agent" || facts.role === "session") && state !== "removing",
  );
  if (unit !== undefined) return { id: unit.id, close: async () => {} };
  const home = volumeName(uid, "home");
  // Asked first: the helper's creation would make the volumes of a bottle that has none.
  const volume = await call("volume.inspect", (abortSignal) => docker.getVolume(home).inspect({ abortSignal }), {
    signal,
    subject: home,
  });
  const identity = ourLabels(context, volume.Labels, home);
  const name = sessionName(uid, `copy-${randomBytes(6).toString("hex")}`);
  const spec = helperSpec(identity, name, await guardSurroundings(context));
  await call("container.create:helper", (abortSignal) => docker.createContainer({ ...spec, abortSignal }), {
    signal,
    subject: name,
  });
  let closing: Promise<void> | undefined;
  // Without the caller's signal: an aborted copy must not leave its helper.
  return { id: name, close: () => (closing ??= removeContainer(context, name, "helper")) };
}

/**
 * The longest part of the path that exists, itself a directory. Each part that is a link must lead to the disk. An agent that swaps a part
 * between this look and the copy gains nothing: the engine resolves links inside the container's own, read-only file system.
 */
async function existingPart(context: Context, id: string, path: string, signal?: AbortSignal): Promise<string> {
  const mount = mountOf(path);
  let existing = mount;
  for (const part of posix.relative(mount, path).split("/")) {
    if (part === "") break;
    const next = posix.join(existing, part);
    const stat = await statPath(context, id, next, signal);
    if (stat === undefined) return existing;
    if (stat.isLink && !isOnDisk(stat.linkTarget)) {
      throw new BackendError(
        "Invalid",
        "PathLeavesDisk",
        `"${next}" is a link that leaves the bottle's disk: name its target instead`,
      );
    }
    if (!stat.isLink && !stat.isDirectory) {
      throw new BackendError(
        "Invalid",
        "NotADirectory",
        `"${next}" is not a directory: name one, or a path that is not there yet`,
      );
    }
    existing = next;
  }
  return existing;
}
