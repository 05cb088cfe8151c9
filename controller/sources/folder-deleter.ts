import { isStatus } from "../api/errors.ts";
import { ANNOTATIONS, keyOf, keyText } from "../api/meta.ts";
import type { Log } from "../ports/log.ts";
import type { Store } from "../ports/store.ts";
import type { Declared, DeclaredKind } from "./apply.ts";
import type { FolderFile, FolderView } from "./folder-reader.ts";
import { fileProblem, INODE_ANNOTATION, objectId, type Problem } from "./folder-problems.ts";

export type ReadView = Extract<FolderView, { ok: true }>;

/**
 * Deletes what this folder declared and declares no more. Deleting a bottle destroys its disk, so a declaration must be absent in two looks
 * some time apart, and a look at which anything is doubtful starts the count anew.
 */
export function createDeleter(options: {
  source: string;
  store: Store;
  now: () => number;
  log: Log;
  absentMs: number;
}) {
  const { source, store, now, log, absentMs } = options;
  const absentSince = new Map<string, number>();

  const run = async (
    view: ReadView,
    declared: ReadonlySet<string>,
    stored: readonly Declared[],
  ): Promise<{ absent: number; problems: readonly Problem[] }> => {
    const mine = stored.filter((object) => object.metadata.annotations?.[ANNOTATIONS.source] === source);
    const gone = mine.filter(
      (object) => !declared.has(objectId(object)) && object.metadata.deletionTimestamp === undefined,
    );
    const held = gone.length === 0 ? undefined : whyNothingIsDeleted(view, mine, gone);
    if (held !== undefined) {
      absentSince.clear();
      return { absent: 0, problems: held };
    }
    const kept = keptPaths(view.files);
    const due = gone.filter((object) => !kept.has(object.metadata.annotations?.[ANNOTATIONS.sourcePath] ?? ""));
    const dueIds = new Set(due.map(objectId));
    for (const id of absentSince.keys()) if (!dueIds.has(id)) absentSince.delete(id);
    // Stored objects come in apply order: reversed, what refers goes before what is referred to.
    for (const object of due.toReversed()) {
      const id = objectId(object);
      const sinceMs = absentSince.get(id) ?? now();
      absentSince.set(id, sinceMs);
      const adopted = object.metadata.annotations?.[ANNOTATIONS.adopted] !== undefined;
      if (now() - sinceMs < absentMs || !(await (adopted ? letGo : deleteObject)(store, object))) continue;
      absentSince.delete(id);
      const words = adopted ? "no longer declared: let go, as it was here before" : "no longer declared: deleted";
      log.info({ kind: object.kind, key: keyText(object.metadata) }, words);
    }
    return { absent: absentSince.size, problems: [] };
  };

  return { run, forget: () => absentSince.clear() };
}

/** Files of which not everything is understood: what they declared before and do not declare now may only be misspelt. */
function keptPaths(files: readonly FolderFile[]): ReadonlySet<string> {
  const unclear = files.filter((file) => file.state !== "read" || file.refused.length > 0);
  return new Set(unclear.map((file) => file.path));
}

/** Why the absence of a declaration proves nothing on this look; undefined if it does. */
function whyNothingIsDeleted(
  view: ReadView,
  mine: readonly Declared[],
  gone: readonly Declared[],
): Problem[] | undefined {
  if (!view.complete) {
    const text = `the folder was not read completely: ${view.problems.join("; ")}; nothing is deleted until it is`;
    return [fileProblem("folder", "FolderIncomplete", text)];
  }
  if (view.files.some((file) => file.state === "pending")) return [];
  const isElsewhere = gone.some((object) => object.metadata.annotations?.[INODE_ANNOTATION] !== view.inode);
  if (view.files.length === 0 && isElsewhere) {
    const text = `the folder is empty and is not the one that declared ${gone.length} objects: is it mounted? Nothing is deleted; to delete them use "bot-bottle delete"`;
    return [fileProblem("folder", "FolderEmpty", text)];
  }
  const knownPaths = new Set(mine.map((object) => object.metadata.annotations?.[ANNOTATIONS.sourcePath]));
  const stranger = view.files.find((file) => file.state === "broken" && !knownPaths.has(file.path));
  if (stranger === undefined) return undefined;
  const text = `nothing is deleted while "${stranger.path}" cannot be read, because it may declare what is missing elsewhere`;
  return [fileProblem(stranger.path, "FolderIncomplete", text)];
}

async function deleteObject(store: Store, object: Declared): Promise<boolean> {
  const { uid, resourceVersion } = object.metadata;
  return unlessChanged(() => store.delete(object.kind, keyOf(object), { uid, resourceVersion }));
}

/** What somebody else created stays when this folder declares it no more; only the marks of the folder go. */
async function letGo(store: Store, object: Declared): Promise<boolean> {
  const marks: readonly string[] = [ANNOTATIONS.source, ANNOTATIONS.sourcePath, ANNOTATIONS.adopted, INODE_ANNOTATION];
  const kept = Object.entries(object.metadata.annotations ?? {}).filter(([name]) => !marks.includes(name));
  const metadata = { ...object.metadata, annotations: Object.fromEntries(kept) };
  return unlessChanged(() => store.update<DeclaredKind>({ ...object, metadata }));
}

/** False if the object changed since it was listed: the next look decides again. */
async function unlessChanged(write: () => Promise<unknown>): Promise<boolean> {
  try {
    await write();
    return true;
  } catch (error) {
    if (isStatus(error, "NotFound")) return true;
    if (isStatus(error, "Conflict")) return false;
    throw error;
  }
}
