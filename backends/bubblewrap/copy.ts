import { spawn, type ChildProcessWithoutNullStreams } from "node:child_process";
import { posix } from "node:path";
import { PassThrough, type Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import tar from "tar-stream";
import { BackendError, HOME, WORKSPACE } from "../../controller/ports/backend.ts";
import { findBottle, partDir, type Bottle } from "./bottles.ts";
import { filterPath, refuseAborted, type Context } from "./context.ts";
import { isCode, oneLine } from "./errors.ts";
import { ensureFilter } from "./lifecycle.ts";
import { diskCommand, HOST_ENV } from "./sandbox.ts";
import { existsSync } from "node:fs";

interface Place {
  uid: string;
  /** HOME, WORKSPACE or below. */
  path: string;
  signal?: AbortSignal | undefined;
}

const COPY_MS_MAX = 600_000;
const NOT_THERE = 44;
const OUTSIDE = 45;
const TEXT_BYTES_MAX = 8 * 1024;

/** Where links have led is seen after the fact, from inside: the working directory is then held, and cannot be exchanged any more. */
const ON_DISK = `
on_disk() {
  case "$(pwd -P)/" in ${HOME}/*|${WORKSPACE}/*) ;; *) exit ${OUTSIDE} ;; esac
}
`;
const UNPACK = `${ON_DISK}
umask 022
mkdir -p -- "$1" 2>/dev/null
cd -P -- "$1" || exit ${NOT_THERE}
on_disk
exec tar -xpf - --no-same-owner
`;
const PACK = `${ON_DISK}
cd -P -- "$1" 2>/dev/null || exit ${NOT_THERE}
[ "$3" = whole ] || on_disk
[ -e "$2" ] || [ -L "$2" ] || exit ${NOT_THERE}
exec tar -cf - -- "$2"
`;

/** Archives are opened where only the disk can be seen, as the agent's user: a link that leads out of the disk leads nowhere there. */
export async function copyIn(context: Context, place: Place, archive: Readable): Promise<void> {
  const bottle = locate(context, place);
  await ensureFilter(context, place.signal);
  await context.call(
    "copy.in",
    async () => {
      const child = start(context, bottle, ["/bin/sh", "-c", UNPACK, "sh", place.path]);
      child.stdout.resume();
      const ended = watch(child);
      const sent = send(archive, child, place);
      const [result, failure] = await Promise.all([ended, sent]);
      if (failure !== undefined) throw failure;
      refuseFailed(place, result);
    },
    { signal: place.signal, subject: place.uid },
  );
}

/** Checked entry by entry on its way. What was unpacked before a refused entry stays. */
async function send(archive: Readable, child: ChildProcessWithoutNullStreams, place: Place): Promise<unknown> {
  const pack = tar.pack();
  const extract = tar.extract();
  extract.on("entry", (header, stream, next) => {
    stream.on("error", () => {});
    const why = refusal(header);
    if (why !== undefined) {
      extract.destroy(
        new BackendError("Invalid", "ArchiveInvalid", `the archive's entry "${header.name}" is refused: ${why}`),
      );
      return;
    }
    const { name, linkname, type, mode, mtime, size } = header;
    const entry = pack.entry({ name, linkname, type, mode, mtime, size }, (error) => next(error));
    entry.on("error", () => {});
    stream.pipe(entry);
  });
  extract.once("finish", () => pack.finalize());
  extract.once("error", (error) => pack.destroy(error));
  try {
    const bounded = bound(place.signal);
    await Promise.all([
      pipeline(archive, extract, { signal: bounded }),
      pipeline(pack, child.stdin, { signal: bounded }),
    ]);
    return undefined;
  } catch (error) {
    // A tar that ended early says why itself.
    if (isCode(error, "EPIPE", "ERR_STREAM_PREMATURE_CLOSE") && !archive.errored) return undefined;
    child.kill("SIGKILL");
    return archiveFailure(error, place);
  }
}

function bound(signal: AbortSignal | undefined): AbortSignal {
  const deadline = AbortSignal.timeout(COPY_MS_MAX);
  return signal === undefined ? deadline : AbortSignal.any([signal, deadline]);
}

function archiveFailure(error: unknown, { path, signal }: Place): unknown {
  if (error instanceof BackendError) return error;
  try {
    refuseAborted(`copy to "${path}"`, signal);
  } catch (aborted) {
    return aborted;
  }
  const why = error instanceof Error ? oneLine(error.message) : String(error);
  return new BackendError(
    "Invalid",
    "ArchiveInvalid",
    `the archive for "${path}" cannot be read: ${why}; send a tar archive`,
    { cause: error },
  );
}

function refusal({ name, type, linkname }: tar.Header): string | undefined {
  if (type !== "file" && type !== "directory" && type !== "symlink" && type !== "link" && type !== "contiguous-file") {
    return `it is a ${type ?? "thing of unknown type"}: pack files, directories and links only`;
  }
  for (const path of type === "link" ? [name, linkname ?? ""] : [name]) {
    if (path.startsWith("/")) return "it is absolute: pack relative names";
    if (path.split("/").includes("..")) return 'it contains "..": pack names below the directory';
  }
  return undefined;
}

export async function copyOut(context: Context, place: Place): Promise<Readable> {
  const bottle = locate(context, place);
  await ensureFilter(context, place.signal);
  return context.call("copy.out", () => openArchive(context, bottle, place), {
    signal: place.signal,
    subject: place.uid,
  });
}

async function openArchive(context: Context, bottle: Bottle, place: Place): Promise<Readable> {
  const whole = place.path === HOME || place.path === WORKSPACE ? "whole" : "part";
  const [directory, base] = [posix.dirname(place.path), posix.basename(place.path)];
  const child = start(context, bottle, ["/bin/sh", "-c", PACK, "sh", directory, base, whole]);
  child.stdin.destroy();
  const abort = () => child.kill("SIGKILL");
  const bounded = bound(place.signal);
  bounded.addEventListener("abort", abort, { once: true });
  const output = new PassThrough();
  const result = watch(child);
  child.stdout.pipe(output, { end: false });
  output.once("close", abort);
  // tar ends with 1 where a file changed under its hands: its agent is at work, and what was read is whole.
  void result.then((ended) => {
    bounded.removeEventListener("abort", abort);
    if (ended.code === 0 || ended.code === 1) output.end();
    else output.destroy(failureOf(place, ended));
  });
  // Nothing is written before tar has found the path.
  const first = await Promise.race([
    new Promise<"begun">((resolve) => child.stdout.once("data", () => resolve("begun"))),
    result,
  ]);
  if (first !== "begun" && first.code !== 0) {
    output.on("error", () => {});
    refuseFailed(place, first);
  }
  return output;
}

interface Ended {
  code: number;
  text: string;
}

function watch(child: ChildProcessWithoutNullStreams): Promise<Ended> {
  let text = "";
  child.stderr.on("data", (chunk: Buffer) => (text = (text + chunk.toString("utf8")).slice(0, TEXT_BYTES_MAX)));
  child.stdin.on("error", () => {});
  return new Promise((resolve) => {
    child.once("error", (error) => resolve({ code: 127, text: error.message }));
    child.once("close", (code) => resolve({ code: code ?? 137, text }));
  });
}

function refuseFailed(place: Place, ended: Ended): void {
  if (ended.code !== 0) throw failureOf(place, ended);
}

function failureOf(place: Place, { code, text }: Ended): BackendError {
  refuseAborted(`copy of "${place.path}"`, place.signal);
  if (code === NOT_THERE) {
    return new BackendError("NotFound", "FileNotFound", `"${place.path}" does not exist in bottle "${place.uid}"`);
  }
  if (code === OUTSIDE) {
    const message = `"${place.path}" leads through a link to a place that is not on the disk: name the place itself`;
    return new BackendError("Invalid", "PathInvalid", message);
  }
  return new BackendError("Invalid", "CopyFailed", `copy of "${place.path}" failed (${code}): ${oneLine(text)}`);
}

function locate(context: Context, { uid, path }: Place): Bottle {
  if (posix.normalize(path) !== path) {
    throw new BackendError("Invalid", "PathInvalid", `"${path}" is not a plain path: write it without "." and ".."`);
  }
  if (![HOME, WORKSPACE].some((root) => path === root || path.startsWith(`${root}/`))) {
    const fix = `name a path in ${HOME} or ${WORKSPACE}`;
    throw new BackendError("Invalid", "PathInvalid", `"${path}" is not on the disk of a bottle: ${fix}`);
  }
  const bottle = findBottle(context, uid);
  if (bottle === undefined || !existsSync(partDir(bottle, "home")) || !existsSync(partDir(bottle, "workspace"))) {
    throw new BackendError("NotFound", "DiskNotFound", `bottle "${uid}" has no disk: create or import it first`);
  }
  return bottle;
}

function start(context: Context, bottle: Bottle, argv: readonly string[]): ChildProcessWithoutNullStreams {
  const script = 'filter=$1; shift; exec "$@" 3>/dev/null 5<"$filter"';
  const words = ["-c", script, "sh", filterPath(context), ...diskCommand(context, bottle, argv)];
  return spawn("sh", words, { cwd: "/", env: HOST_ENV, stdio: "pipe" });
}
