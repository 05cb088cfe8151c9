import { createHash } from "node:crypto";
import type { Dirent, Stats } from "node:fs";
import { lstat, open, readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { parseManifests, type Manifest } from "../api/manifest.ts";

/** Bounds of a watched folder. */
export const FILES_MAX = 10_000;
export const FILE_BYTES_MAX = 4 * 1024 * 1024;
export const DEPTH_MAX = 16;

export interface FileDocument {
  object: Manifest;
  /** Differs when the text of the document or its place differs. */
  digest: string;
}

/** A document that is not an object of this API, with what it says of itself. */
export interface RefusedDocument {
  message: string;
  kind?: string;
  name?: string;
}

/** One manifest file. pending: it may still be being written. broken: it cannot be understood as a whole. */
export type FolderFile = { path: string } & (
  | { state: "read"; documents: readonly FileDocument[]; refused: readonly RefusedDocument[] }
  | { state: "pending" }
  | { state: "broken"; message: string }
);

/** `complete` is false if some of the folder was not looked at: then nothing may be concluded from a file's absence. */
export type FolderView =
  | { ok: false; reason: string }
  | {
      ok: true;
      /** By path, as the first of two files that declare the same object wins. */
      files: readonly FolderFile[];
      directories: readonly string[];
      complete: boolean;
      problems: readonly string[];
      /** Tells a folder from the empty mount point below it. */
      inode: string;
      /** False if every file is as it was on the last look. */
      changed: boolean;
    };

interface KnownFile {
  signature: string;
  /** Since when it has looked like this. */
  sinceMs: number;
  content?: Extract<FolderFile, { state: "read" | "broken" }>;
}

/**
 * Reads the manifests below a folder. A file counts only once its size, time and inode have stayed the same for `stableMs`, so that a
 * half-written file is never believed; its text is kept parsed until it changes.
 */
export function createFolderReader(options: {
  dir: string;
  now: () => number;
  stableMs: number;
}): () => Promise<FolderView> {
  let known = new Map<string, KnownFile>();
  let lastPicture: string | undefined;

  return async () => {
    const walked = await walk(options.dir);
    if (!walked.ok) return walked;
    const next = new Map<string, KnownFile>();
    const files: FolderFile[] = [];
    for (const found of walked.found) {
      const file = await look(options, found, known.get(found.path));
      if (file === undefined) continue;
      next.set(found.path, file);
      files.push(file.content ?? { path: found.path, state: "pending" });
    }
    known = next;
    const picture = JSON.stringify([walked.problems, files.map((file) => [file.path, pictureOf(file, next)])]);
    const changed = picture !== lastPicture;
    lastPicture = picture;
    const { directories, problems, inode } = walked;
    return { ok: true, files, directories, complete: problems.length === 0, problems, inode, changed };
  };
}

function pictureOf(file: FolderFile, known: ReadonlyMap<string, KnownFile>): string {
  return file.state === "broken" ? file.message : `${file.state} ${known.get(file.path)?.signature ?? ""}`;
}

interface FoundFile {
  path: string;
  stats: Stats | undefined;
}

type Walk =
  | { ok: false; reason: string }
  | { ok: true; found: FoundFile[]; directories: string[]; problems: string[]; inode: string };

async function walk(dir: string): Promise<Walk> {
  const found: FoundFile[] = [];
  const problems: string[] = [];
  const directories: string[] = [];
  const unread = [{ path: "", depth: 0 }];
  let inode: string;
  try {
    inode = String((await stat(dir)).ino);
  } catch (error) {
    return { ok: false, reason: codeOf(error) };
  }
  for (let next = unread.pop(); next !== undefined; next = unread.pop()) {
    let entries: Dirent[];
    try {
      entries = await readdir(join(dir, next.path), { withFileTypes: true });
    } catch (error) {
      if (next.path === "") return { ok: false, reason: codeOf(error) };
      problems.push(`cannot read folder "${next.path}" (${codeOf(error)})`);
      continue;
    }
    directories.push(next.path);
    for (const entry of entries) {
      if (isIgnored(entry.name)) continue;
      const path = join(next.path, entry.name);
      if (entry.isDirectory() && next.depth >= DEPTH_MAX) problems.push(`folder "${path}" is deeper than ${DEPTH_MAX}`);
      else if (entry.isDirectory()) unread.push({ path, depth: next.depth + 1 });
      else if (/\.(ya?ml|json)$/i.test(entry.name)) found.push({ path, stats: undefined });
    }
    if (found.length > FILES_MAX) {
      problems.push(`there are more than ${FILES_MAX} files: move some to a folder of their own`);
      break;
    }
  }
  found.sort((a, b) => (a.path < b.path ? -1 : 1)).splice(FILES_MAX);
  await Promise.all(found.map(async (file) => (file.stats = await statOf(join(dir, file.path)))));
  return { ok: true, found, directories, problems, inode };
}

/** Dotfiles, and what editors leave beside a file while they save it. */
function isIgnored(name: string): boolean {
  return name.startsWith(".") || name.startsWith("#") || name.startsWith("~") || name.endsWith("~");
}

/** Follows a link to a file, as mounted ConfigMaps are made of; links to folders are not followed, because they may lead in circles. */
async function statOf(path: string): Promise<Stats | undefined> {
  try {
    return await stat(path);
  } catch {
    return await lstat(path).catch(() => undefined);
  }
}

async function look(
  options: { dir: string; now: () => number; stableMs: number },
  found: FoundFile,
  before: KnownFile | undefined,
): Promise<KnownFile | undefined> {
  const { path, stats } = found;
  if (stats === undefined || (!stats.isFile() && !stats.isSymbolicLink())) return undefined;
  const nowMs = options.now();
  const signature = signatureOf(stats);
  const broken = (message: string): KnownFile["content"] => ({ path, state: "broken", message });
  if (stats.isSymbolicLink()) return { signature, sinceMs: nowMs, content: broken("it is a link to nothing") };
  if (before?.signature !== signature) return { signature, sinceMs: nowMs };
  if (before.content?.state === "read" || nowMs - before.sinceMs < options.stableMs) return before;
  if (stats.size > FILE_BYTES_MAX) {
    return { ...before, content: broken(`it is larger than ${FILE_BYTES_MAX} bytes: split it`) };
  }
  try {
    const text = await readUnchanged(join(options.dir, path), signature);
    return text === undefined ? { signature: "", sinceMs: nowMs } : { ...before, content: parse(path, text) };
  } catch (error) {
    return { ...before, content: broken(`it cannot be read (${codeOf(error)})`) };
  }
}

function signatureOf(stats: Stats): string {
  return `${stats.dev}:${stats.ino}:${stats.size}:${stats.mtimeMs}`;
}

/** Undefined if the file became another one between the look at its folder and the end of the reading. */
async function readUnchanged(path: string, signature: string): Promise<Uint8Array | undefined> {
  const handle = await open(path);
  try {
    if (signatureOf(await handle.stat()) !== signature) return undefined;
    const bytes = await handle.readFile();
    return signatureOf(await handle.stat()) === signature ? bytes : undefined;
  } finally {
    await handle.close();
  }
}

/** A syntax error makes the whole file broken: what the rest of it meant to say is a guess. */
function parse(path: string, text: Uint8Array): Extract<FolderFile, { state: "read" | "broken" }> {
  const documents: FileDocument[] = [];
  const refused: RefusedDocument[] = [];
  for (const parsed of parseManifests(text, path).documents) {
    if (parsed.ok) {
      const hash = createHash("sha256").update(JSON.stringify([path, parsed.object]));
      documents.push({ object: parsed.object, digest: hash.digest("base64") });
      continue;
    }
    if (parsed.error.reason === "BadRequest") return { path, state: "broken", message: parsed.error.message };
    refused.push({ message: parsed.error.message, kind: parsed.kind, name: parsed.name });
  }
  return { path, state: "read", documents, refused };
}

function codeOf(error: unknown): string {
  return error instanceof Error && "code" in error ? String(error.code) : String(error);
}
