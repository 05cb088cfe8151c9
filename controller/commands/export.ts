import { createWriteStream } from "node:fs";
import { rename, rm } from "node:fs/promises";
import { posix } from "node:path";
import { Readable, type Writable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { Command } from "commander";
import tar from "tar-stream";
import type { Bottle } from "../api/bottle.ts";
import { conditionOf } from "../api/conditions.ts";
import { BackendError, HOME, WORKSPACE, type Backend } from "../ports/backend.ts";
import { archiveManifest, HOME_ENTRY, MANIFEST_ENTRY, transcriptEntry, WORKSPACE_ENTRY } from "./archive.ts";
import { getBottle, requireBackend } from "./bottles.ts";
import type { CommandContext } from "./context.ts";
import { perform } from "./perform.ts";
import { CommandError, EXIT } from "./exit.ts";
import { addEntry } from "./host-tar.ts";
import { say } from "./io.ts";
import { isCurrent } from "./wait.ts";

export function exportCommand(): Command {
  return new Command("export")
    .description("write a frozen bottle, its disk, turns and transcripts to one tar archive")
    .argument("<name>", "the bottle")
    .option("-o, --output <file>", "where to (default: NAME.tar), or - for stdout")
    .action((name: string, flags: { output?: string }, command: Command) =>
      perform(command, (context) => runExport(context, name, flags)),
    );
}

export async function runExport(context: CommandContext, name: string, flags: { output?: string }): Promise<number> {
  const bottle = await frozenBottle(context, name);
  const backend = await requireBackend(context, bottle);
  const output = flags.output ?? `${bottle.metadata.name}.tar`;
  const write = async (to: Writable, options: { end: boolean }) => {
    const archive = packBottle(context, bottle, backend);
    await pipeline(archive, to, { signal: context.signal, end: options.end });
    const after = await frozenBottle(context, name);
    if (after.metadata.uid === bottle.metadata.uid && after.metadata.generation === bottle.metadata.generation) return;
    throw new CommandError(EXIT.refused, `bottle "${name}" was changed while it was exported: export it again`);
  };
  if (output === "-") {
    if (context.io.showsOutput) throw new CommandError(EXIT.usage, "an archive is not for a terminal: redirect stdout");
    await write(context.io.stdout, { end: false });
    return EXIT.ok;
  }
  // Under another name until it is whole, so that half an archive is never taken for one.
  const part = `${output}.part`;
  try {
    await write(createWriteStream(part, { mode: 0o600 }), { end: true });
    await rename(part, output);
  } catch (error) {
    await rm(part, { force: true });
    throw error;
  }
  say(context.io, `bottle/${bottle.metadata.name} exported to ${output}`);
  return EXIT.ok;
}

/** Refused unless nothing of the bottle runs: a disk that is written to cannot be copied as one moment. */
async function frozenBottle(context: CommandContext, name: string): Promise<Bottle> {
  const bottle = await getBottle(context, name);
  const isFrozen = conditionOf(bottle.status?.conditions, "Frozen")?.status === "True";
  const isDeleting = bottle.metadata.deletionTimestamp !== undefined;
  if (isFrozen && isCurrent(bottle) && !isDeleting) return bottle;
  const what = isDeleting ? "is being deleted" : "is not frozen";
  const hint = isDeleting ? "" : `: run "bot-bottle freeze ${bottle.metadata.name} --wait" first`;
  throw new CommandError(EXIT.refused, `bottle "${bottle.metadata.name}" ${what}${hint}`);
}

function packBottle(context: CommandContext, bottle: Bottle, backend: Backend): Readable {
  const pack = tar.pack();
  fill(context, { pack, bottle, backend }).then(
    () => pack.finalize(),
    (error: unknown) => pack.destroy(error instanceof Error ? error : new Error(String(error))),
  );
  return Readable.from(pack, { objectMode: false });
}

async function fill(
  context: CommandContext,
  { pack, bottle, backend }: { pack: tar.Pack; bottle: Bottle; backend: Backend },
): Promise<void> {
  const { uid, name, labels } = bottle.metadata;
  const keys = await context.transcripts.keys(uid);
  const transcripts = [];
  for (const key of keys) {
    const kept = await context.transcripts.load(uid, key);
    if (kept !== undefined) transcripts.push({ turn: key.turn, attempt: key.attempt, truncated: kept.truncated });
  }
  const journal = (await context.journal.read(uid))
    .map(({ entry }) => entry)
    .filter(({ type }) => type === "LaunchIntended" || type === "TurnFinished" || type === "Frozen");
  const manifest = archiveManifest.parse({ format: 1, name, labels, spec: bottle.spec, journal, transcripts });
  await addEntry(pack, { name: MANIFEST_ENTRY, mode: 0o600 }, JSON.stringify(manifest));
  for (const key of transcripts) {
    const kept = await context.transcripts.load(uid, key);
    if (kept === undefined) throw new CommandError(EXIT.error, `the transcript of turn "${key.turn}" vanished`);
    await addEntry(pack, { name: transcriptEntry(key), mode: 0o600 }, kept.bytes);
  }
  for (const [path, prefix] of [
    [HOME, HOME_ENTRY],
    [WORKSPACE, WORKSPACE_ENTRY],
  ] as const) {
    await copyDisk(pack, await diskStream(context, backend, { uid, path }), { root: posix.basename(path), prefix });
  }
}

async function diskStream(
  context: CommandContext,
  backend: Backend,
  disk: { uid: string; path: string },
): Promise<Readable | undefined> {
  try {
    return await backend.copyOut(disk.uid, disk.path, context.signal);
  } catch (error) {
    if (error instanceof BackendError && error.kind === "NotFound") return undefined;
    throw error;
  }
}

/** Entry by entry under another name, one chunk at a time. */
async function copyDisk(
  pack: tar.Pack,
  stream: Readable | undefined,
  { root, prefix }: { root: string; prefix: string },
): Promise<void> {
  if (stream === undefined) return;
  const extract = tar.extract();
  const fed = pipeline(stream, extract);
  fed.catch(() => undefined);
  for await (const entry of extract) {
    const { header } = entry;
    // Names are made from the path again; what pax records say of them would win over that.
    const { pax: _pax, ...kept } = header;
    const moved = { ...kept, name: rooted(header.name, root, prefix) };
    if (header.type === "link") moved.linkname = rooted(header.linkname, root, prefix);
    if (header.type === "file" || header.type === "contiguous-file") {
      if (header.size > 0) await pipeline(entry, pack.entry(moved));
      else await addEntry(pack, moved);
    } else if (header.type === "directory" || header.type === "symlink" || header.type === "link") {
      await addEntry(pack, { ...moved, size: 0 });
    }
    entry.resume();
  }
  await fed;
}

function rooted(name: string, from: string, to: string): string {
  const clean = name.replace(/^\.\//, "");
  if (clean === from || clean === `${from}/`) return clean.replace(from, to);
  if (clean.startsWith(`${from}/`)) return to + clean.slice(from.length);
  throw new CommandError(EXIT.error, `the backend's archive of "${from}" has an entry "${name}" outside of it`);
}
