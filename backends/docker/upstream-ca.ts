import { posix } from "node:path";
import { Readable } from "node:stream";
import { pack } from "tar-stream";
import { readUpstreamCa } from "../guard-launch.ts";
import type { Context } from "./context.ts";
import { SOCKETS, UPSTREAM_CA } from "./guard-image.ts";

/** This installation's authorities as PEM; `undefined` if there are none of its own. */
export async function upstreamAuthorities(context: Context): Promise<string | undefined> {
  const path = context.guard.guardUpstreamCa;
  return path === undefined ? undefined : readUpstreamCa(path);
}

/**
 * Puts this installation's authorities into a guard that was created and not started. Through the engine, because the engine may not see this host's files;
 * not into the image, because each other file would be another image of a hundred megabytes. Done again by whoever finds the guard unstarted.
 */
export async function putUpstreamCa(
  context: Context,
  guard: string,
  { pem, signal }: { pem: string | undefined; signal?: AbortSignal | undefined },
): Promise<void> {
  if (pem === undefined) return;
  const archive = pack();
  archive.entry({ name: posix.basename(UPSTREAM_CA), mode: 0o444, mtime: new Date(0) }, pem);
  archive.finalize();
  const { docker, call } = context.engine;
  const body = Readable.from(archive, { objectMode: false });
  await call(
    "archive.put:guard",
    (abortSignal) => docker.getContainer(guard).putArchive(body, { path: SOCKETS, abortSignal }),
    { signal, subject: guard },
  );
}
