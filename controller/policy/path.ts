/**
 * A request target brought into one spelling. A refusal that is `ambiguous` is a target that is sound on the wire but means
 * different paths to different servers: rules that compare paths cannot allow it, rules that do not may (packages of npm with
 * a scope are asked for as `/@scope%2fname`). Any other refusal is no valid request.
 */
export type NormalizedPath =
  | { ok: true; path: string; /** Begins with `?`, or is empty: `path + query` is what is sent. */ query: string }
  | { ok: false; reason: string; ambiguous: boolean };

const TARGET_BYTES_MAX = 8192;
const UNRESERVED = /^[A-Za-z0-9_~-]$/;

/** Reads the origin form of a request target. Idempotent, never throws; the path of the answer has no dot segment and no hidden separator. */
export function normalizePath(target: string): NormalizedPath {
  if (target.length > TARGET_BYTES_MAX) return bad(`the path is longer than ${TARGET_BYTES_MAX} characters`);
  if (!target.startsWith("/")) return bad("the path must begin with a slash");
  if (/[^\x21-\x7e]/.test(target)) return bad("the path holds a character that must be percent-encoded");
  if (target.includes("#")) return bad("the path holds a fragment");
  const mark = target.indexOf("?");
  const raw = mark === -1 ? target : target.slice(0, mark);
  const query = mark === -1 ? "" : target.slice(mark);
  if (raw.includes("\\")) return bad("the path holds a backslash");
  if (/%(?![0-9A-Fa-f]{2})/.test(raw)) return bad("the path holds a percent sign without two hexadecimal digits");
  if (/%(?:[01][0-9A-Fa-f]|7[Ff])/.test(raw)) return bad("the path holds an encoded control character");
  if (hasDotSegment(raw)) return bad("the path holds a dot segment");
  const unclear = whyAmbiguous(raw);
  if (unclear !== undefined)
    return { ok: false, reason: `the path is ambiguous: it holds ${unclear}`, ambiguous: true };
  return { ok: true, path: raw.replaceAll(/%[0-9A-Fa-f]{2}/g, oneSpelling), query };
}

/** Also behind parameters (`..;x`) and encoded separators, where some servers find them. */
function hasDotSegment(raw: string): boolean {
  return raw
    .replaceAll(/%2e/gi, ".")
    .split(/\/|%2f|%5c/i)
    .some((segment) => /^\.\.?(?:;|%3b|$)/i.test(segment));
}

function whyAmbiguous(raw: string): string | undefined {
  if (raw.includes("//")) return "an empty segment";
  if (raw.includes(";")) return "a semicolon";
  if (/%2e/i.test(raw)) return "an encoded dot";
  if (/%2f/i.test(raw)) return "an encoded slash";
  if (/%5c/i.test(raw)) return "an encoded backslash";
  return isUtf8(raw) ? undefined : "encoded bytes that are not UTF-8";
}

/** Overlong forms (`%c0%af` for a slash) are not UTF-8, and a server that reads them all the same sees another path. */
function isUtf8(raw: string): boolean {
  try {
    decodeURIComponent(raw);
    return true;
  } catch {
    return false;
  }
}

function oneSpelling(escape: string): string {
  const character = String.fromCharCode(Number.parseInt(escape.slice(1), 16));
  return UNRESERVED.test(character) ? character : escape.toUpperCase();
}

function bad(reason: string): NormalizedPath {
  return { ok: false, reason, ambiguous: false };
}
