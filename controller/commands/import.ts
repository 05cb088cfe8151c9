import { createReadStream } from "node:fs";
import { pipeline } from "node:stream/promises";
import { Command } from "commander";
import tar from "tar-stream";
import type { Bottle } from "../api/bottle.ts";
import { isStatus } from "../api/errors.ts";
import { ANNOTATIONS, API_VERSION, keyOf } from "../api/meta.ts";
import { backendType } from "../api/template.ts";
import type { Backend } from "../ports/backend.ts";
import { TRANSCRIPT_BYTES_MAX, type JournalEntry } from "../ports/journal.ts";
import type { Draft } from "../ports/store.ts";
import {
  archiveManifest,
  MANIFEST_ENTRY,
  MANIFEST_ENTRY_BYTES_MAX,
  TRANSCRIPTS_ENTRY,
  transcriptEntry,
  type ArchiveManifest,
} from "./archive.ts";
import { chooseBackend } from "./choose-backend.ts";
import type { CommandContext } from "./context.ts";
import { perform } from "./perform.ts";
import { CommandError, EXIT } from "./exit.ts";
import type { TarEntry } from "./host-tar.ts";
import { createDiskWriter } from "./import-disk.ts";
import { print, say } from "./io.ts";

export interface ImportFlags {
  name?: string;
  backend?: string;
}

const ATTEMPTS_MAX = 5;

export function importCommand(): Command {
  return new Command("import")
    .description("make a bottle from an exported archive, with its disk, turns and transcripts")
    .argument("<file>", "the archive, or - for stdin")
    .option("--name <name>", "the new bottle's name (default: its old one)")
    .option("--backend <name>", "where it is to live (default: where it lived, if that works here)")
    .action((file: string, flags: ImportFlags, command: Command) =>
      perform(command, (context) => runImport(context, file, flags)),
    );
}

export async function runImport(context: CommandContext, file: string, flags: ImportFlags): Promise<number> {
  const source = file === "-" ? context.io.stdin : createReadStream(file);
  const extract = tar.extract();
  const fed = pipeline(source, extract, { signal: context.signal });
  // The failure is thrown by whoever reads the archive; this only keeps it from being thrown twice.
  fed.catch(() => undefined);
  const entries = extract[Symbol.asyncIterator]();
  try {
    const manifest = await readManifest(entries, file);
    const started = await createBottle(context, manifest, flags);
    await fillOrRemove(context, started, async () => {
      await copyEntries(context, { ...started, manifest, entries });
      await fed;
      await release(context, started.bottle);
    });
    const { name, namespace } = started.bottle.metadata;
    print(context.io, `bottle/${name} imported on ${started.backend.name}`);
    await warnOfMissing(context, started.bottle, namespace);
    return EXIT.ok;
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") {
      throw new CommandError(EXIT.notFound, `cannot read "${file}": it does not exist`, { cause: error });
    }
    throw error;
  } finally {
    extract.destroy();
  }
}

type Entries = AsyncIterator<TarEntry>;

async function readManifest(entries: Entries, file: string): Promise<ArchiveManifest> {
  const refuse = (why: string) => new CommandError(EXIT.refused, `"${file}" is not an exported bottle: ${why}`);
  const first = await entries.next();
  if (first.done === true || first.value.header.name !== MANIFEST_ENTRY) {
    throw refuse(`its first entry is not ${MANIFEST_ENTRY}`);
  }
  const bytes = await readEntry(first.value, MANIFEST_ENTRY_BYTES_MAX);
  let value: unknown;
  try {
    value = JSON.parse(bytes.toString("utf8"));
  } catch {
    throw refuse(`${MANIFEST_ENTRY} is not JSON`);
  }
  const parsed = archiveManifest.safeParse(value);
  if (parsed.success) return parsed.data;
  const [issue] = parsed.error.issues;
  throw refuse(`${MANIFEST_ENTRY}: ${issue?.path.join(".") ?? ""}: ${issue?.message ?? "invalid"}`);
}

async function readEntry(entry: TarEntry, bytesMax: number): Promise<Buffer> {
  const chunks: Buffer[] = [];
  if (entry.header.size > bytesMax) {
    throw new CommandError(EXIT.refused, `the archive's entry "${entry.header.name}" is larger than ${bytesMax} bytes`);
  }
  for await (const chunk of entry) if (chunk instanceof Uint8Array) chunks.push(Buffer.from(chunk));
  return Buffer.concat(chunks);
}

interface Started {
  bottle: Bottle;
  backend: Backend;
}

/** The bottle is there from the start, so that its name is taken; the controller leaves it alone until its disk is filled. */
async function createBottle(context: CommandContext, manifest: ArchiveManifest, flags: ImportFlags): Promise<Started> {
  const launched = manifest.journal.findLast((entry) => entry.type === "LaunchIntended");
  const backend = await chooseBackend(context, { asked: flags.backend, usual: launched?.backend });
  const type = backendType.options.find((known) => known.toLowerCase() === backend.name);
  const { backend: written, ...spec } = manifest.spec;
  const isKept = isTyped(written) && written.type.toLowerCase() === backend.name;
  const moved = isKept
    ? { backend: written }
    : written === undefined || type === undefined
      ? {}
      : { backend: { type } };
  const draft = {
    apiVersion: API_VERSION,
    kind: "Bottle",
    metadata: {
      name: flags.name ?? manifest.name,
      namespace: context.namespace,
      labels: manifest.labels,
      annotations: { [ANNOTATIONS.importing]: "true" },
    },
    spec: { ...spec, ...moved },
  };
  // Admission checks the spec of the archive before it is stored.
  const bottle = await context.store.create<"Bottle">(draft as unknown as Draft<Bottle>);
  return { bottle, backend };
}

function isTyped(value: unknown): value is { type: string } {
  return typeof value === "object" && value !== null && "type" in value && typeof value.type === "string";
}

/** A bottle that is half imported must not stay: it would start with half a disk. */
async function fillOrRemove(context: CommandContext, started: Started, fill: () => Promise<void>): Promise<void> {
  try {
    await fill();
  } catch (error) {
    const { uid, name } = started.bottle.metadata;
    try {
      await started.backend.removeDisk(uid);
      await context.journal.forget(uid);
      await context.store.delete("Bottle", keyOf(started.bottle), { uid });
      say(context.io, `the half-imported bottle "${name}" was removed again`);
    } catch (left) {
      const why = left instanceof Error ? left.message : String(left);
      say(context.io, `the half-imported bottle "${name}" could not be removed (${why}): delete it, then run cleanup`);
    }
    throw error;
  }
}

async function copyEntries(
  context: CommandContext,
  { bottle, backend, manifest, entries }: Started & { manifest: ArchiveManifest; entries: Entries },
): Promise<void> {
  const { uid, namespace, name } = bottle.metadata;
  await context.journal.append(uid, journalOf(manifest, { backend: backend.name, nowMs: context.now() }));
  await backend.createDisk({ uid, namespace, name }, context.signal);
  const transcripts = new Map(manifest.transcripts.map((key) => [transcriptEntry(key), key]));
  const disk = createDiskWriter({ backend, uid, signal: context.signal });
  try {
    for (let next = await entries.next(); next.done !== true; next = await entries.next()) {
      const entry = next.value;
      const key = transcripts.get(entry.header.name);
      if (key !== undefined) {
        await context.transcripts.save(uid, { ...key, bytes: await readEntry(entry, TRANSCRIPT_BYTES_MAX) });
      } else if (entry.header.name.startsWith(TRANSCRIPTS_ENTRY)) {
        throw new CommandError(EXIT.refused, `the archive's "${entry.header.name}" is not in its list of transcripts`);
      } else await disk.write(entry);
    }
    await disk.end();
  } catch (error) {
    await disk.fail(error);
    throw error;
  }
}

/** What happened to the old bottle holds for the new one; it was launched here, and its time as a frozen bottle begins now. */
function journalOf(manifest: ArchiveManifest, here: { backend: string; nowMs: number }): JournalEntry[] {
  const launched = manifest.journal.findLast((entry) => entry.type === "LaunchIntended");
  const templateDigest = launched?.templateDigest ?? "";
  return [
    { type: "LaunchIntended", timeMs: here.nowMs, backend: here.backend, generation: 1, templateDigest },
    ...manifest.journal.filter((entry) => entry.type === "TurnFinished"),
    { type: "Frozen", timeMs: here.nowMs },
  ];
}

/** Hands the bottle over to the controller. */
async function release(context: CommandContext, bottle: Bottle): Promise<void> {
  for (let attempt = 1; ; attempt += 1) {
    const now = await context.store.get("Bottle", keyOf(bottle));
    if (now === undefined || now.metadata.uid !== bottle.metadata.uid) {
      throw new CommandError(EXIT.notFound, `bottle "${bottle.metadata.name}" was deleted while it was imported`);
    }
    const { [ANNOTATIONS.importing]: _importing, ...annotations } = now.metadata.annotations ?? {};
    try {
      await context.store.update<"Bottle">({ ...now, metadata: { ...now.metadata, annotations } });
      return;
    } catch (error) {
      if (!isStatus(error, "Conflict") || attempt >= ATTEMPTS_MAX) throw error;
    }
  }
}

async function warnOfMissing(context: CommandContext, bottle: Bottle, namespace: string): Promise<void> {
  const { agentRef, templateRefs } = bottle.spec;
  const missing: string[] = [];
  if (agentRef !== undefined && (await context.store.get("Agent", { namespace, name: agentRef.name })) === undefined) {
    missing.push(`agent "${agentRef.name}"`);
  }
  for (const { name } of templateRefs ?? []) {
    const found = await context.store.get("BottleTemplate", { namespace, name });
    if (found === undefined) missing.push(`bottletemplate "${name}"`);
  }
  if (missing.length === 0) return;
  say(context.io, `warning: namespace "${namespace}" has no ${missing.join(", no ")}: apply what is missing`);
}
