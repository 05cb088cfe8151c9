import { readdir, readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { StatusError } from "../api/errors.ts";
import { DECLARED_KINDS } from "../api/kinds.ts";
import { MANIFEST_BYTES_MAX, parseManifests } from "../api/manifest.ts";
import type { DeclaredDraft } from "../sources/apply.ts";
import { draftOf } from "../sources/draft.ts";
import { CommandError, EXIT } from "./exit.ts";
import type { Io } from "./io.ts";

/** Files that one -f may name through a folder. */
const FILES_MAX = 10_000;

export interface Inputs {
  /** In the order in which they are to be applied. */
  drafts: DeclaredDraft[];
  refused: StatusError[];
}

/** Reads manifests from files, folders (their own files only) and `-`. Objects without a namespace get the given one. */
export async function readInputs(io: Io, paths: readonly string[], namespace: string): Promise<Inputs> {
  const drafts: DeclaredDraft[] = [];
  const refused: StatusError[] = [];
  for (const { origin, bytes } of await readAll(io, paths)) {
    for (const document of parseManifests(bytes, origin).documents) {
      try {
        if (!document.ok) throw document.error;
        const draft = draftOf(document.object);
        drafts.push({ ...draft, metadata: { namespace, ...draft.metadata } });
      } catch (error) {
        if (!(error instanceof StatusError)) throw error;
        refused.push(error);
      }
    }
  }
  const rank = new Map(DECLARED_KINDS.map((facts, index) => [facts.kind, index]));
  drafts.sort((a, b) => (rank.get(a.kind) ?? 0) - (rank.get(b.kind) ?? 0));
  if (drafts.length === 0 && refused.length === 0) {
    throw new CommandError(EXIT.usage, `no objects in ${paths.map((path) => `"${path}"`).join(", ")}`);
  }
  return { drafts, refused };
}

async function readAll(io: Io, paths: readonly string[]): Promise<{ origin: string; bytes: Uint8Array }[]> {
  const texts: { origin: string; bytes: Uint8Array }[] = [];
  for (const path of paths) {
    if (path === "-") texts.push({ origin: "stdin", bytes: await readStdin(io, MANIFEST_BYTES_MAX) });
    else for (const file of await filesOf(path)) texts.push({ origin: file, bytes: await readBounded(file) });
  }
  return texts;
}

async function filesOf(path: string): Promise<string[]> {
  try {
    if (!(await stat(path)).isDirectory()) return [path];
    const names = (await readdir(path)).filter((name) => /^[^.#~].*\.(ya?ml|json)$/i.test(name)).sort();
    if (names.length <= FILES_MAX) return names.map((name) => join(path, name));
  } catch (error) {
    throw unreadable(path, error);
  }
  throw new CommandError(EXIT.usage, `folder "${path}" has more than ${FILES_MAX} manifests: apply its parts`);
}

async function readBounded(file: string): Promise<Uint8Array> {
  try {
    const { size } = await stat(file);
    if (size <= MANIFEST_BYTES_MAX) return await readFile(file);
  } catch (error) {
    throw unreadable(file, error);
  }
  throw new CommandError(EXIT.refused, `file "${file}" is larger than ${MANIFEST_BYTES_MAX} bytes: split it`);
}

function unreadable(path: string, error: unknown): CommandError {
  const code = error instanceof Error && "code" in error ? String(error.code) : String(error);
  const exit = code === "ENOENT" ? EXIT.notFound : EXIT.error;
  const why = code === "ENOENT" ? "it does not exist" : code;
  return new CommandError(exit, `cannot read "${path}": ${why}`, { cause: error });
}

/** All of stdin; refused beyond a bound, because anything may be piped in. */
export async function readStdin(io: Io, bytesMax: number): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let length = 0;
  for await (const chunk of io.stdin) {
    const bytes = Buffer.isBuffer(chunk) ? chunk : Buffer.from(String(chunk));
    length += bytes.length;
    if (length > bytesMax) throw new CommandError(EXIT.refused, `stdin is longer than ${bytesMax} bytes`);
    chunks.push(bytes);
  }
  return Buffer.concat(chunks);
}
