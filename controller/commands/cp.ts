import { lstat, stat } from "node:fs/promises";
import { basename, dirname, join, posix, resolve } from "node:path";
import { Command } from "commander";
import tar from "tar-stream";
import { BackendError, HOME, WORKSPACE, type Backend } from "../ports/backend.ts";
import { getBottle, requireBackend } from "./bottles.ts";
import type { CommandContext } from "./context.ts";
import { perform } from "./perform.ts";
import { CommandError, EXIT } from "./exit.ts";
import { packHost, unpackHost } from "./host-tar.ts";
import { say } from "./io.ts";

export function cpCommand(): Command {
  return new Command("cp")
    .description("copy files and folders into a bottle or out of it, frozen or not")
    .argument("<source>", "a path, or NAME:/path in a bottle")
    .argument("<target>", "a path, or NAME:/path in a bottle; a folder that exists is copied into")
    .addHelpText(
      "after",
      `\nPaths in a bottle are below ${HOME} or ${WORKSPACE}.\n\nExample:\n  bot-bottle cp fix-login:/workspace/report.md .`,
    )
    .action((source: string, target: string, _flags: object, command: Command) =>
      perform(command, (context) => runCp(context, source, target)),
    );
}

export async function runCp(context: CommandContext, source: string, target: string): Promise<number> {
  const from = placeOf(source);
  const to = placeOf(target);
  if ((from === undefined) === (to === undefined)) {
    throw new CommandError(
      EXIT.usage,
      "one of source and target is a path in a bottle, NAME:/path, and the other is not",
    );
  }
  if (from !== undefined) await copyOut(context, from, target);
  else if (to !== undefined) await copyIn(context, source, to);
  return EXIT.ok;
}

interface Place {
  bottle: string;
  path: string;
}

/** `NAME:/path`; a path of this host never has a colon before its first slash here. */
function placeOf(text: string): Place | undefined {
  const match = /^([^/:]+):(\/.*)$/.exec(text);
  if (match?.[1] === undefined || match[2] === undefined) return undefined;
  const path = posix.normalize(match[2]);
  const clean = path.length > 1 ? path.replace(/\/$/, "") : path;
  if (rootOf(clean) === undefined) {
    throw new CommandError(
      EXIT.usage,
      `"${match[2]}" is not on the bottle's disk: write a path below ${HOME} or ${WORKSPACE}`,
    );
  }
  return {
    bottle: match[1],
    path: match[2].endsWith("/") && clean !== HOME && clean !== WORKSPACE ? `${clean}/` : clean,
  };
}

function rootOf(path: string): string | undefined {
  return [HOME, WORKSPACE].find((root) => path === root || path.startsWith(`${root}/`));
}

async function copyOut(context: CommandContext, from: Place, target: string): Promise<void> {
  const bottle = await getBottle(context, from.bottle);
  const backend = await requireBackend(context, bottle);
  const source = from.path.replace(/\/$/, "");
  const name = posix.basename(source);
  const stream = await backend.copyOut(bottle.metadata.uid, source, context.signal);
  const place = (await isFolder(target)) ? join(target, name) : resolve(target);
  if (!(await isFolder(dirname(place)))) {
    stream.destroy();
    throw new CommandError(EXIT.notFound, `folder "${dirname(place)}" does not exist: make it first`);
  }
  const { skipped } = await unpackHost(stream, name, place);
  for (const each of skipped) say(context.io, `note: "${each}" is neither file, folder nor link and was left out`);
}

async function copyIn(context: CommandContext, source: string, to: Place): Promise<void> {
  const bottle = await getBottle(context, to.bottle);
  const backend = await requireBackend(context, bottle);
  const { uid } = bottle.metadata;
  await lstat(source).catch(() => {
    throw new CommandError(EXIT.notFound, `"${source}" does not exist`);
  });
  const clean = to.path.replace(/\/$/, "");
  const root = rootOf(clean) ?? WORKSPACE;
  const into = to.path.endsWith("/") || clean === root || (await isFolderInBottle(backend, uid, clean));
  const path = into ? posix.join(clean, basename(resolve(source))) : clean;
  // Named from the root of the disk, so that missing folders above it are made.
  await backend.copyIn(uid, root, packHost(source, path.slice(root.length + 1)), context.signal);
}

async function isFolder(path: string): Promise<boolean> {
  try {
    return (await stat(path)).isDirectory();
  } catch {
    return false;
  }
}

/** The first entry of what is there tells; the rest is not read. */
async function isFolderInBottle(backend: Backend, uid: string, path: string): Promise<boolean> {
  try {
    const stream = await backend.copyOut(uid, path);
    const extract = tar.extract();
    stream.on("error", (error) => extract.destroy(error)).pipe(extract);
    try {
      for await (const entry of extract) return entry.header.type === "directory";
    } finally {
      stream.destroy();
    }
  } catch (error) {
    if (!(error instanceof BackendError) || error.kind !== "NotFound") throw error;
  }
  return false;
}
