import { Composer, type Document, isMap, isNode, Lexer, LineCounter, Parser, type YAMLError } from "yaml";
import { invalid, StatusError, type FieldCause } from "./errors.ts";
import { apiVersionOf, DECLARED_KINDS, type DeclaredKind } from "./kinds.ts";
import { oneOf, quote } from "./words.ts";

/** Bounds of one file of manifests. Files come from people and from git, so from anybody. */
export const MANIFEST_BYTES_MAX = 4 * 1024 * 1024;
export const MANIFEST_DOCUMENTS_MAX = 1000;
export const MANIFEST_DEPTH_MAX = 64;
/** Words and signs of one file; parsing takes some microseconds for each, and it blocks the whole program. */
const LEXEMES_MAX = 400_000;
/** Nodes that aliases may stand for in one document: enough to share a block, too few for a "billion laughs". */
const ALIASES_MAX = 50;
/** The parser keeps up to two entries on its stack for a level of nesting, and some for the document. */
const PARSER_STACK_MAX = 2 * MANIFEST_DEPTH_MAX + 8;

/** An object as it was written, so far checked only for what it is and what it is called. Admission does the rest. */
export interface Manifest {
  apiVersion: string;
  kind: DeclaredKind;
  metadata: { name: string; namespace?: string };
  /** Of a Secret there is none: its fields stand beside its metadata. */
  spec?: unknown;
  [field: string]: unknown;
}

/** One object of a file, in the order of the file. `line` counts from 1. A refused one says which object it meant, if that can be read. */
export type ParsedDocument =
  | { ok: true; object: Manifest; line: number }
  | { ok: false; error: StatusError; line: number; kind?: string; name?: string };

/**
 * Reads the objects of one file: YAML 1.2 or JSON, any number of documents, `kind: List` expanded, empty documents skipped.
 * Never throws: each object is refused by itself, what concerns the whole file is one refusal. `origin` names the file in messages.
 */
export function parseManifests(text: string | Uint8Array, origin: string): { documents: ParsedDocument[] } {
  try {
    const source = decode(text, origin);
    const lines = new LineCounter();
    const documents: ParsedDocument[] = [];
    for (const document of compose(source, lines, origin)) {
      documents.push(...readDocument(document, lines, origin));
      if (documents.length > MANIFEST_DOCUMENTS_MAX) {
        throw refusal(origin, `more than ${MANIFEST_DOCUMENTS_MAX} objects in one file: split it into several files`);
      }
    }
    return { documents };
  } catch (error) {
    if (!(error instanceof StatusError)) throw error;
    return { documents: [{ ok: false, error, line: 1 }] };
  }
}

function refusal(where: string, message: string): StatusError {
  return new StatusError("BadRequest", `${where}: ${message}`);
}

function decode(text: string | Uint8Array, origin: string): string {
  // A string has at least one byte of UTF-8 for each of its units, so this bound is never stricter than the other one.
  if (text.length > MANIFEST_BYTES_MAX) {
    const limit = MANIFEST_BYTES_MAX / 1024 / 1024;
    throw refusal(
      origin,
      `the file has ${text.length} bytes, at most ${limit} MiB are read: split it into several files`,
    );
  }
  const source = typeof text === "string" ? text : decodeUtf8(text, origin);
  const nul = source.indexOf("\0");
  if (nul >= 0) {
    const line = source.slice(0, nul).split("\n").length;
    throw refusal(`${origin}:${line}`, "a NUL character: the file is binary or damaged, write it again as UTF-8 text");
  }
  return source;
}

function decodeUtf8(bytes: Uint8Array, origin: string): string {
  const decodes = (length: number, stream: boolean): string | undefined => {
    try {
      return new TextDecoder("utf-8", { fatal: true }).decode(bytes.subarray(0, length), { stream });
    } catch {
      return undefined;
    }
  };
  const text = decodes(bytes.length, false);
  if (text !== undefined) return text;

  // The longest beginning that decodes ends at the offending byte; a beginning may end within a character (`stream`).
  let valid = 0;
  let invalidAt = bytes.length + 1;
  while (invalidAt - valid > 1) {
    const middle = Math.floor((valid + invalidAt) / 2);
    if (middle <= bytes.length && decodes(middle, true) !== undefined) valid = middle;
    else invalidAt = middle;
  }
  throw refusal(origin, `not UTF-8: the byte at offset ${valid} is out of place: save the file as UTF-8`);
}

/**
 * Text to YAML documents, nesting bounded while the text is read: the composer recurses, and a few thousand levels end
 * not in an exception but in the death of the process.
 */
function* compose(source: string, lines: LineCounter, origin: string): Generator<Document.Parsed> {
  const composer = new Composer({
    version: "1.2",
    schema: "core",
    merge: false,
    // Else `!!binary` and `!!timestamp` would make values that JSON does not have.
    resolveKnownTags: false,
    uniqueKeys: true,
    stringKeys: true,
    strict: true,
    prettyErrors: false,
    logLevel: "silent",
  });
  const parser = new Parser(lines.addNewLine);
  lines.addNewLine(0);
  let lexemes = 0;
  for (const lexeme of new Lexer().lex(source)) {
    lexemes += 1;
    if (lexemes > LEXEMES_MAX) {
      throw refusal(origin, "the file holds too many values: split it into several files");
    }
    for (const token of parser.next(lexeme)) yield* composer.next(token);
    if (parser.stack.length > PARSER_STACK_MAX) {
      const where = `${origin}:${lines.linePos(parser.offset).line}`;
      throw refusal(where, `nested deeper than ${MANIFEST_DEPTH_MAX} levels: no kind needs that, write it flatter`);
    }
  }
  for (const token of parser.end()) yield* composer.next(token);
  yield* composer.end();
}

function readDocument(document: Document.Parsed, lines: LineCounter, origin: string): ParsedDocument[] {
  const line = lineOf(document.contents, lines) ?? lines.linePos(document.range[0]).line;
  const fault = document.errors[0] ?? document.warnings[0];
  const refuse = (error: StatusError): ParsedDocument[] => [{ ok: false, error, line, ...identityOf(document) }];
  if (fault !== undefined) return refuse(syntaxError(fault, lines, origin));
  if (document.contents === null) return [];

  let value: unknown;
  try {
    value = document.toJS({ maxAliasCount: ALIASES_MAX });
  } catch (error) {
    if (!(error instanceof ReferenceError)) throw error;
    const message = error.message.startsWith("Excessive")
      ? `aliases (*name) stand for more than ${ALIASES_MAX} nodes: write the values out`
      : `${withoutText(error.message)}: ${REMEDIES["BAD_ALIAS"]}`;
    return refuse(refusal(`${origin}:${line}`, message));
  }
  if (value === null) return [];
  const unsafe = unsafeKey(value);
  if (unsafe !== undefined) return refuse(refusal(`${origin}:${line}`, unsafe));
  if (!isRecord(value)) {
    return refuse(refusal(`${origin}:${line}`, "must be an object with apiVersion, kind, metadata and spec"));
  }
  if (value["kind"] !== "List" || !Array.isArray(value["items"])) return [readObject(value, line, origin)];
  return value["items"].map((item, index) => {
    const node = document.getIn(["items", index], true);
    return readObject(item, lineOf(node, lines) ?? line, origin);
  });
}

function lineOf(node: unknown, lines: LineCounter): number | undefined {
  return isNode(node) && node.range ? lines.linePos(node.range[0]).line : undefined;
}

const REMEDIES: Readonly<Record<string, string>> = {
  TAB_AS_INDENT: "indent with spaces, not with tabs",
  DUPLICATE_KEY: "remove one of the two",
  NON_STRING_KEY: "put the key in quotes",
  BAD_INDENT: "indent it like its neighbours",
  BLOCK_AS_IMPLICIT_KEY: "put a value that holds a colon in quotes, or start a new line for it",
  MULTILINE_IMPLICIT_KEY: "close the quote or bracket that is open before this line",
  MISSING_CHAR: "write the missing character, or put the value in quotes",
  BAD_ALIAS: "define the anchor first, or put a value that starts with * in quotes",
  TAG_RESOLVE_FAILED: "remove the tag",
};

function syntaxError(fault: YAMLError, lines: LineCounter, origin: string): StatusError {
  const { line, col } = lines.linePos(fault.pos[0]);
  const remedy = REMEDIES[fault.code] ?? "check the indentation, the quotes and the brackets here";
  return refusal(`${origin}:${line}:${col}`, `${withoutText(fault.message)}: ${remedy}`);
}

/** The parser quotes the file behind a colon. What stands there may be a part of a secret. */
function withoutText(message: string): string {
  const colon = message.search(/(?<=\S):\s/);
  return (colon < 0 ? message : message.slice(0, colon)).replaceAll(/\s+/g, " ").trim();
}

/** Kind and name of a document that cannot be read as a whole. */
function identityOf(document: Document.Parsed): { kind?: string; name?: string } {
  if (!isMap(document.contents)) return {};
  const kind = document.getIn(["kind"]);
  return identity(kind, isMap(document.contents.get("metadata")) ? document.getIn(["metadata", "name"]) : undefined);
}

function identity(kind: unknown, name: unknown): { kind?: string; name?: string } {
  return {
    ...(typeof kind === "string" && kind !== "" ? { kind } : {}),
    ...(typeof name === "string" && name !== "" ? { name } : {}),
  };
}

/** Why this value must not be handed on, found without recursion deeper than the bound. */
function unsafeKey(value: unknown, depth = 0): string | undefined {
  if (typeof value !== "object" || value === null) return undefined;
  if (depth >= MANIFEST_DEPTH_MAX) {
    return `nested deeper than ${MANIFEST_DEPTH_MAX} levels: no kind needs that, write it flatter`;
  }
  for (const [key, member] of Object.entries(value)) {
    if (key === "__proto__") return 'the key "__proto__" is not allowed: remove it';
    if (key === "<<") return 'merge keys ("<<") are not supported: write the fields out';
    const unsafe = unsafeKey(member, depth + 1);
    if (unsafe !== undefined) return unsafe;
  }
  return undefined;
}

function readObject(value: unknown, line: number, origin: string): ParsedDocument {
  const object = isRecord(value) ? value : {};
  const metadata = isRecord(object["metadata"]) ? object["metadata"] : {};
  const name = metadata["name"];
  const causes = [...typeCauses(object), ...nameCauses(object["metadata"], name)];
  if (causes.length === 0) return { ok: true, object: object as unknown as Manifest, line };

  const known = identity(object["kind"], name);
  const what = known.name === undefined ? (known.kind ?? "object") : `${known.kind ?? "object"} ${quote(known.name)}`;
  return { ok: false, error: invalid(`${origin}:${line}: ${what}`, causes), line, ...known };
}

function typeCauses(object: Record<string, unknown>): FieldCause[] {
  const causes: FieldCause[] = [];
  const { apiVersion, kind } = object;
  const wanted = apiVersionOf(String(kind));
  if (apiVersion === undefined) {
    causes.push({ field: "apiVersion", message: `is missing: write ${wanted}`, reason: "FieldValueRequired" });
  } else if (apiVersion !== wanted) {
    const message = `must be ${wanted}, got ${quote(apiVersion)}`;
    causes.push({ field: "apiVersion", message, reason: "FieldValueNotSupported" });
  }
  const kinds = oneOf(DECLARED_KINDS.map((each) => each.kind));
  if (kind === undefined) {
    causes.push({ field: "kind", message: `is missing: write ${kinds}`, reason: "FieldValueRequired" });
  } else if (!DECLARED_KINDS.some((each) => each.kind === kind)) {
    const message = `unknown kind ${quote(kind)}: write ${kinds}`;
    causes.push({ field: "kind", message, reason: "FieldValueNotSupported" });
  }
  return causes;
}

function nameCauses(metadata: unknown, name: unknown): FieldCause[] {
  const field = "metadata.name";
  if (metadata !== undefined && !isRecord(metadata)) {
    const message = "must be an object: write the name below it, as in { name: my-bottle }";
    return [{ field: "metadata", message, reason: "FieldValueInvalid" }];
  }
  if (name === undefined || name === "") {
    return [{ field, message: "is missing: write a name, e.g. my-bottle", reason: "FieldValueRequired" }];
  }
  if (typeof name === "string") return [];
  const message = `must be a string, got ${quote(name)}: put it in quotes`;
  return [{ field, message, reason: "FieldValueInvalid" }];
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
