import { posix } from "node:path";
import { Readable } from "node:stream";
import { pack } from "tar-stream";
import { readUpstreamCa } from "../guard-launch.ts";
import type { Context } from "./context.ts";
import { SOCKETS, UPSTREAM_CA } from "./guard-image.ts";

/**
 * Puts this installation's authorities into a guard that was created and not started. Through the engine, because the engine may not see this host's files;
 * not into the image, because each other file would be another image of a hundred megabytes. Done again by whoever finds the guard unstarted.
 */
export async function putUpstreamCa(context: Context, guard: string, signal?: AbortSignal): Promise<void> {
  const path = context.guard.guardUpstreamCa;
  if (path === undefined) return;
  const pem = await readUpstreamCa(path);
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
