import { isDeepStrictEqual } from "node:util";
import { StatusError, isStatus } from "../api/errors.ts";
import type { DeclaredKind, KindMap } from "../api/kinds.ts";
import { ANNOTATIONS, DEFAULT_NAMESPACE, GROUP, type DraftMeta, type ObjectKey } from "../api/meta.ts";
import type { Admission, Draft, Store } from "../ports/store.ts";
import { secretFields, withFields } from "./secret-fields.ts";

export type { DeclaredKind };
export type Declared = KindMap[DeclaredKind];
export type DeclaredDraft = Draft<Declared>;

/**
 * Which fields of the spec (of a Secret which keys), and which turns, the newest declaration wrote. What a declaration wrote and no longer writes is removed; what
 * others wrote (`bot-bottle turn` and `freeze`, kubectl) is kept, so that a file and a person can both speak to one bottle.
 */
const DECLARED_ANNOTATION = `${GROUP}/declared`;

/** Annotations a declaration cannot set: they say who declares, or belong to the controller. */
const RESERVED: readonly string[] = [...Object.values(ANNOTATIONS), DECLARED_ANNOTATION];

const ATTEMPTS_MAX = 5;

export interface ApplyOptions {
  /** Who declares, e.g. `folder:/srv/bottles`. Absent: a person, who may edit what any source declares. */
  source?: string;
  /** The file below the source. */
  sourcePath?: string;
  /** Further annotations of the source's own. */
  annotations?: Readonly<Record<string, string>>;
}

export interface Applied {
  result: "created" | "configured" | "unchanged";
  object: Declared;
  /** A source that declares the object as well and will change it back. */
  alsoDeclaredBy?: { source: string; path: string };
}

/** Makes the stored object say what the draft says. Refused as Conflict if another source declares it or it is being deleted. */
export async function applyDraft(store: Store, draft: DeclaredDraft, options: ApplyOptions = {}): Promise<Applied> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await applyOnce(store, draft, options);
    } catch (error) {
      const lostRace = isStatus(error, "AlreadyExists") || (isStatus(error, "Conflict") && !(error instanceof Refusal));
      if (!lostRace || attempt >= ATTEMPTS_MAX) throw error;
    }
  }
}

/** What `applyDraft` would do and the object that would be stored, without doing it. Throws what it would throw. A new object has no uid yet. */
export async function previewDraft(
  store: Store,
  draft: DeclaredDraft,
  options: ApplyOptions & { admit: Admission },
): Promise<{ result: Applied["result"]; object: Declared }> {
  const stored = await store.get(draft.kind, draftKey(draft));
  if (stored === undefined) {
    const admitted = options.admit(draft.kind, newDraft(draft, options), undefined) as Declared;
    const written: DraftMeta = admitted.metadata;
    const key = draftKey(draft);
    const metadata = { uid: "", resourceVersion: "0", generation: 1, creationTimestamp: "", ...written, ...key };
    return { result: "created", object: { ...admitted, metadata } };
  }
  const object = options.admit(draft.kind, merged(stored, draft, options), stored) as Declared;
  return { result: isDeepStrictEqual(plain(object), plain(stored)) ? "unchanged" : "configured", object };
}

/** Notes on the object why its newest declaration was refused. Absent objects are left absent; the same text again writes nothing. */
export async function recordRejection(
  store: Store,
  kind: DeclaredKind,
  key: ObjectKey,
  message: string,
): Promise<void> {
  for (let attempt = 1; ; attempt += 1) {
    const stored = await store.get(kind, key);
    if (stored === undefined || stored.metadata.annotations?.[ANNOTATIONS.rejectedUpdate] === message) return;
    const annotations = { ...stored.metadata.annotations, [ANNOTATIONS.rejectedUpdate]: message };
    try {
      await store.update<DeclaredKind>({ ...stored, metadata: { ...stored.metadata, annotations } });
      return;
    } catch (error) {
      if (isStatus(error, "NotFound")) return;
      if (!isStatus(error, "Conflict") || attempt >= ATTEMPTS_MAX) throw error;
    }
  }
}

export function draftKey(draft: DeclaredDraft): ObjectKey {
  return { namespace: draft.metadata.namespace ?? DEFAULT_NAMESPACE, name: draft.metadata.name };
}

/** A Conflict that trying again cannot mend. */
class Refusal extends StatusError {}

async function applyOnce(store: Store, draft: DeclaredDraft, options: ApplyOptions): Promise<Applied> {
  const stored = await store.get(draft.kind, draftKey(draft));
  if (stored === undefined) {
    return { result: "created", object: await store.create<DeclaredKind>(newDraft(draft, options)) };
  }
  const wanted = merged(stored, draft, options);
  const alsoDeclaredBy = options.source === undefined ? declaredBy(stored) : undefined;
  if (isDeepStrictEqual(plain(wanted), plain(stored))) return { result: "unchanged", object: stored, alsoDeclaredBy };
  const object = await store.update<DeclaredKind>(wanted);
  const changed = object.metadata.resourceVersion !== stored.metadata.resourceVersion;
  return { result: changed ? "configured" : "unchanged", object, alsoDeclaredBy };
}

/** The source that declares a stored object, if one does. */
export function declaredBy(stored: { metadata: { annotations?: Record<string, string> } }): Applied["alsoDeclaredBy"] {
  const source = stored.metadata.annotations?.[ANNOTATIONS.source];
  if (source === undefined) return undefined;
  return { source, path: stored.metadata.annotations?.[ANNOTATIONS.sourcePath] ?? "" };
}

function newDraft(draft: DeclaredDraft, options: ApplyOptions): DeclaredDraft {
  const metadata = { ...draft.metadata, ...draftKey(draft), annotations: annotationsOf({}, draft, options) };
  return { ...draft, metadata };
}

function merged(stored: Declared, draft: DeclaredDraft, options: ApplyOptions): Declared {
  const what = `${draft.kind} "${stored.metadata.name}"`;
  const other = declaredBy(stored);
  if (options.source !== undefined && other !== undefined && other.source !== options.source) {
    const where = other.path === "" ? other.source : `${other.source} (file ${other.path})`;
    throw new Refusal("Conflict", `${what} is declared by ${where}: remove it there first, or choose another name`);
  }
  if (stored.metadata.deletionTimestamp !== undefined) {
    throw new Refusal("Conflict", `${what} is being deleted: wait until it is gone, then apply again`);
  }
  const labels = { ...stored.metadata.labels, ...draft.metadata.labels };
  const metadata = {
    ...stored.metadata,
    ...(Object.keys(labels).length > 0 ? { labels } : {}),
    annotations: {
      ...annotationsOf(stored.metadata.annotations ?? {}, draft, options),
      ...(options.source !== undefined && other === undefined ? { [ANNOTATIONS.adopted]: "true" } : {}),
    },
  };
  const before = readDeclared(stored.metadata.annotations?.[DECLARED_ANNOTATION]);
  const fields = mergedSpec(contentOf(stored), contentOf(draft), before);
  // The content is made of fields of two objects of this kind; admission looks at the result before it is stored.
  if (stored.kind === "Secret") return withFields({ ...stored, metadata }, fields) as unknown as Declared;
  return { ...stored, metadata, spec: fields } as Declared;
}

function annotationsOf(
  stored: Readonly<Record<string, string>>,
  draft: DeclaredDraft,
  options: ApplyOptions,
): Record<string, string> {
  const written = Object.entries(draft.metadata.annotations ?? {}).filter(([name]) => !RESERVED.includes(name));
  const { [ANNOTATIONS.rejectedUpdate]: _rejected, ...kept } = stored;
  return {
    ...kept,
    ...Object.fromEntries(written),
    ...(options.source === undefined ? {} : { [ANNOTATIONS.source]: options.source }),
    ...(options.sourcePath === undefined ? {} : { [ANNOTATIONS.sourcePath]: options.sourcePath }),
    ...options.annotations,
    [DECLARED_ANNOTATION]: JSON.stringify(declarationOf(draft)),
  };
}

interface Declaration {
  fields: readonly string[];
  turns: readonly string[];
}

function declarationOf(draft: DeclaredDraft): Declaration {
  // The draft is as somebody wrote it: what is no list of turns has none, and admission says so.
  const turns = draft.kind === "Bottle" ? (itemsOf(draft.spec.turns ?? []) ?? []) : [];
  return { fields: Object.keys(contentOf(draft)).sort(), turns: turns.map((turn) => turn.id) };
}

function readDeclared(text: string | undefined): Declaration {
  try {
    const value: unknown = JSON.parse(text ?? "{}");
    const parts = typeof value === "object" && value !== null ? value : {};
    return {
      fields: words("fields" in parts ? parts.fields : []),
      turns: words("turns" in parts ? parts.turns : []),
    };
  } catch {
    // Somebody edited the annotation by hand: then nothing is known to be declared, and nothing is removed.
    return { fields: [], turns: [] };
  }
}

function words(value: unknown): string[] {
  return Array.isArray(value) ? value.filter((word) => typeof word === "string") : [];
}

type Fields = Record<string, unknown>;

/** What a declaration is about, field by field. */
function contentOf(object: Declared | DeclaredDraft): Fields {
  const fields = object.kind === "Secret" ? secretFields({ ...object }) : object.spec;
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined));
}

function mergedSpec(stored: Fields, written: Fields, before: Declaration): Fields {
  const kept = Object.entries(stored).filter(([field]) => !(before.fields.includes(field) && !(field in written)));
  const spec = { ...Object.fromEntries(kept), ...written };
  if (stored["turns"] !== undefined) {
    // A turn that others added stays. One that the declaration wrote before and dropped is dropped, for admission to refuse with its reason.
    const turns = mergedTurns(itemsOf(stored["turns"]) ?? [], itemsOf(written["turns"] ?? []), before.turns);
    if (turns !== undefined && (turns.length > 0 || "turns" in written)) spec["turns"] = turns;
    else if (!("turns" in written)) delete spec["turns"];
  }
  return spec;
}

/** Undefined if the written list cannot be merged (no ids, doubled ids): it stays as written, for admission to refuse. */
function mergedTurns(
  stored: readonly Item[],
  written: readonly Item[] | undefined,
  before: readonly string[],
): Item[] | undefined {
  if (written === undefined) return undefined;
  const writtenById = new Map(written.map((turn) => [turn.id, turn]));
  const kept = stored.filter((turn) => writtenById.has(turn.id) || !before.includes(turn.id));
  const storedIds = new Set(stored.map((turn) => turn.id));
  return [
    ...kept.map((turn) => writtenById.get(turn.id) ?? turn),
    ...written.filter((turn) => !storedIds.has(turn.id)),
  ];
}

interface Item {
  id: string;
}

function itemsOf(value: unknown): Item[] | undefined {
  if (!Array.isArray(value)) return undefined;
  const items = value.filter((item: unknown): item is Item => {
    return typeof item === "object" && item !== null && "id" in item && typeof item.id === "string";
  });
  return new Set(items.map((item) => item.id)).size === value.length ? items : undefined;
}

/** As JSON would carry it: fields that are undefined do not count as a difference. */
function plain(value: unknown): unknown {
  return JSON.parse(JSON.stringify(value));
}
