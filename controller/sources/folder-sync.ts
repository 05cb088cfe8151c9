import { StatusError } from "../api/errors.ts";
import { DECLARED_KINDS } from "../api/kinds.ts";
import type { Manifest } from "../api/manifest.ts";
import { ANNOTATIONS, DEFAULT_NAMESPACE, keyOf, keyText, type ObjectKey } from "../api/meta.ts";
import type { Log } from "../ports/log.ts";
import type { Store } from "../ports/store.ts";
import {
  applyDraft,
  draftKey,
  recordRejection,
  type Declared,
  type DeclaredDraft,
  type DeclaredKind,
} from "./apply.ts";
import { draftOf } from "./draft.ts";
import { createDeleter, type ReadView } from "./folder-deleter.ts";
import { markOf, type Hints } from "./folder-hints.ts";
import type { FolderFile } from "./folder-reader.ts";
import { fileProblem, INODE_ANNOTATION, objectId, type Problem } from "./folder-problems.ts";
import { cycleRefusals } from "./template-cycles.ts";

export interface SyncResult {
  /** False if something is to be tried again although nothing changes. */
  settled: boolean;
  /** Objects that are no longer declared and wait for the second look. */
  absent: number;
  problems: readonly Problem[];
}

interface Declaration {
  kind: DeclaredKind;
  key: ObjectKey;
  path: string;
  digest: string;
  content: { draft: DeclaredDraft } | { refusal: StatusError };
}

/** What was done about a declaration, and for which object: the same pair again needs nothing. */
interface Done {
  digest: string;
  mark: string | undefined;
  refusal?: string;
}

/** Brings the store to what one look at the folder declares. */
export function createFolderSync(options: {
  source: string;
  store: Store;
  now: () => number;
  log: Log;
  absentMs: number;
}) {
  const { source, store, log } = options;
  const done = new Map<string, Done>();
  const deleter = createDeleter(options);

  const run = async (view: ReadView, hints: Hints | undefined): Promise<SyncResult> => {
    const stored = await listDeclared(store);
    for (const object of stored.values()) hints?.saw(object.kind, object.metadata);
    const { wanted, problems } = declarationsOf(view.files);
    problems.push(...(await noteUnclear(store, source, { files: view.files, stored })));
    const result = { settled: true, problems };
    refuseCycles(wanted, stored);
    for (const declaration of inOrder(wanted)) {
      await applyDeclaration(declaration, stored.get(idOf(declaration)), result);
    }
    for (const id of done.keys()) if (!wanted.has(id)) done.delete(id);
    const declared = new Set(wanted.keys());
    const deletions = await deleter.run(view, declared, [...stored.values()]);
    problems.push(...deletions.problems);
    return { ...result, absent: deletions.absent };

    async function applyDeclaration(one: Declaration, object: Declared | undefined, into: typeof result) {
      const id = idOf(one);
      const known = done.get(id);
      const mark = object === undefined ? undefined : markOf(object.metadata);
      const refusalText = "refusal" in one.content ? one.content.refusal.message : "";
      const digest = `${one.digest} ${view.inode} ${refusalText}`;
      if (object?.metadata.deletionTimestamp !== undefined) return;
      let refusal = known?.refusal;
      if (known?.digest !== digest || known.mark !== mark) {
        const tried = await applyOne(one, { source, inode: view.inode, store, log });
        refusal = tried.refusal;
        if (tried.object !== undefined) hints?.saw(one.kind, tried.object.metadata);
        const after = tried.object === undefined ? undefined : markOf(tried.object.metadata);
        if (tried.final) done.set(id, { digest, mark: after, refusal });
        else done.delete(id);
        if (!tried.final) into.settled = false;
      }
      if (refusal !== undefined) into.problems.push(refusedProblem(one, object, refusal));
    }
  };

  return { run, forgetAbsences: deleter.forget };
}

function idOf(of: Declaration): string {
  return objectId({ kind: of.kind, metadata: of.key });
}

/** In apply order, so that a reversed walk deletes what refers before what is referred to. */
async function listDeclared(store: Store): Promise<Map<string, Declared>> {
  const lists: readonly Declared[][] = await Promise.all(
    DECLARED_KINDS.map(async ({ kind }) => (await store.list(kind)).items),
  );
  return new Map(lists.flat().map((object) => [objectId(object), object]));
}

function declarationsOf(files: readonly FolderFile[]): { wanted: Map<string, Declaration>; problems: Problem[] } {
  const wanted = new Map<string, Declaration>();
  const problems: Problem[] = [];
  for (const file of files) {
    if (file.state !== "read") continue;
    for (const { object, digest } of file.documents) {
      const declaration = declarationOf(object, { path: file.path, digest });
      const first = wanted.get(idOf(declaration));
      if (first === undefined) wanted.set(idOf(declaration), declaration);
      else {
        const what = `${declaration.kind} "${declaration.key.name}" in namespace "${declaration.key.namespace}"`;
        const text = `${what} is declared by "${first.path}" already, which counts: remove it here or there`;
        problems.push(fileProblem(file.path, "DeclaredTwice", text));
      }
    }
  }
  return { wanted, problems };
}

function declarationOf(object: Manifest, place: { path: string; digest: string }): Declaration {
  const { name, namespace } = object.metadata;
  const key = { namespace: typeof namespace === "string" ? namespace : DEFAULT_NAMESPACE, name };
  try {
    return { kind: object.kind, key, ...place, content: { draft: draftOf(object) } };
  } catch (error) {
    if (!(error instanceof StatusError)) throw error;
    return { kind: object.kind, key, ...place, content: { refusal: error } };
  }
}

function inOrder(wanted: ReadonlyMap<string, Declaration>): Declaration[] {
  const rank = new Map(DECLARED_KINDS.map((facts, index) => [facts.kind, index]));
  return [...wanted.values()].sort((a, b) => (rank.get(a.kind) ?? 0) - (rank.get(b.kind) ?? 0));
}

/** Templates that would extend each other in a circle are refused before any of them is stored; the stored ones stay as they are. */
function refuseCycles(wanted: Map<string, Declaration>, stored: ReadonlyMap<string, Declared>): void {
  const before = [...stored.values()].filter((object) => object.kind === "BottleTemplate");
  const drafts = [...wanted.values()].flatMap(({ content }) =>
    "draft" in content && content.draft.kind === "BottleTemplate" ? [content.draft] : [],
  );
  for (const [draft, refusal] of cycleRefusals(drafts, before)) {
    const id = `BottleTemplate ${keyText(draftKey(draft))}`;
    const declaration = wanted.get(id);
    if (declaration !== undefined) wanted.set(id, { ...declaration, content: { refusal } });
  }
}

async function applyOne(
  one: Declaration,
  into: { source: string; inode: string; store: Store; log: Log },
): Promise<{ object: Declared | undefined; refusal?: string; final: boolean }> {
  const { source, store } = into;
  let error: unknown = "refusal" in one.content ? one.content.refusal : undefined;
  if ("draft" in one.content) {
    try {
      const annotations = { [INODE_ANNOTATION]: into.inode };
      const applied = await applyDraft(store, one.content.draft, { source, sourcePath: one.path, annotations });
      if (applied.result !== "unchanged") {
        into.log.info({ kind: one.kind, key: keyText(one.key), path: one.path, result: applied.result }, "declared");
      }
      return { object: applied.object, final: true };
    } catch (caught) {
      error = caught;
    }
  }
  if (!(error instanceof StatusError)) throw error;
  const refused = error.reason === "Invalid" || error.reason === "BadRequest" || error.reason === "Conflict";
  const stored = await store.get(one.kind, one.key);
  if (refused && ownedBy(stored, source)) await recordRejection(store, one.kind, one.key, error.message);
  return { object: await store.get(one.kind, one.key), refusal: error.message, final: refused };
}

function ownedBy(object: Declared | undefined, source: string): boolean {
  const owner = object?.metadata.annotations?.[ANNOTATIONS.source];
  return owner === undefined || owner === source;
}

/**
 * Tells of files and documents that cannot be understood. The objects they declared before stay as they are and say so themselves; of a
 * document that could be read far enough to name its object only that one.
 */
async function noteUnclear(
  store: Store,
  source: string,
  seen: { files: readonly FolderFile[]; stored: ReadonlyMap<string, Declared> },
): Promise<Problem[]> {
  const problems: Problem[] = [];
  for (const file of seen.files) {
    const faults = file.state === "broken" ? [{ message: file.message }] : file.state === "read" ? file.refused : [];
    for (const fault of faults) {
      const before = [...seen.stored.values()].filter((object) => {
        const { annotations } = object.metadata;
        if (annotations?.[ANNOTATIONS.source] !== source || annotations[ANNOTATIONS.sourcePath] !== file.path)
          return false;
        if (file.state === "broken") return true;
        return "kind" in fault && fault.kind === object.kind && fault.name === object.metadata.name;
      });
      const reason = file.state === "broken" ? "FileInvalid" : "Refused";
      const only = file.state === "read" ? before[0] : undefined;
      const about = only && { kind: only.kind, ...keyOf(only), uid: only.metadata.uid };
      problems.push({ ...fileProblem(file.path, reason, fault.message), ...(about === undefined ? {} : { about }) });
      for (const object of before) await recordRejection(store, object.kind, keyOf(object), fault.message);
    }
  }
  return problems;
}

function refusedProblem(one: Declaration, object: Declared | undefined, message: string): Problem {
  const text = `${one.path}: ${message}`;
  if (object === undefined) return fileProblem(one.path, "Refused", message);
  const about = { kind: one.kind, ...one.key, uid: object.metadata.uid };
  return { about, reason: "Refused", message: text };
}
