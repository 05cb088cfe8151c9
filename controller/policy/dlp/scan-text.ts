import { inHost, type DlpRules } from "./compile.ts";
import { percentDecoded as percentDecodedBytes } from "./percent.ts";
import { search, type Found, type SearchIndex } from "./search.ts";

/** Readings of one text are bounded; what is longer is refused before it comes here. */
const PARAMETERS_MAX = 256;

/**
 * Ids found in a short text such as the target of a request or the value of a header. It is read as it stands, percent-decoded once and
 * twice, and after `Basic` decoded from base64. The values of query parameters are also read as one text in their order, so a secret
 * that is split over neighbouring parameters is found; one whose parts are shuffled, or mixed with other text, is not.
 *
 * A secret of fewer than eight characters is found only where it is a whole value: all of the text, what follows the scheme of an
 * authorization, user or password of `Basic`, a query parameter, a cookie, a segment of a path.
 */
export function scanText(rules: DlpRules, text: string): string[] {
  return scanTexts(rules, [text]);
}

/** The same for texts that leave together, such as target and header values of a request, and for all of them joined in their order. */
export function scanTexts(rules: DlpRules, texts: readonly string[]): string[] {
  const found = new Set<string>();
  const readings = [...texts, ...texts.flatMap(otherReadings)];
  // One search for all is far cheaper than one for each. No token reaches across the separator.
  searchText(rules.everything, readings.join(SEPARATOR), (id) => void found.add(id));
  // Two texts that meet by chance may look like a token; only known values count across the border.
  const joined = [...(texts.length > 1 ? [texts.join("")] : []), ...texts.flatMap(joinedParameters)];
  if (joined.length > 0) {
    searchText(rules.everything, joined.join(SEPARATOR), (id) => void (isKnown(id) && found.add(id)));
  }
  for (const value of rules.short.size === 0 ? [] : readings.flatMap(valuesOf)) {
    for (const id of rules.short.get(value) ?? []) found.add(id);
  }
  return [...found].sort();
}

/**
 * Ids of secrets and placeholders found in the name of a host, which is in lower case and may be cut into labels anywhere. Other encodings, such
 * as base32, are not found: rules name the hosts to which an agent may connect, and a budget bounds what it can write into names.
 */
export function scanHost(rules: DlpRules, host: string): string[] {
  const found = new Set<string>();
  searchText(rules.hosts, inHost(host), (id) => void found.add(id));
  return [...found].sort();
}

const SEPARATOR = "\n\n";

function searchText(index: SearchIndex, text: string, found: Found): void {
  const bytes = Buffer.from(text);
  search(index, bytes, { from: 0, to: bytes.length }, found);
}

function isKnown(id: string): boolean {
  return !id.startsWith("pattern:");
}

/** How else a text may be read than as it stands. */
function otherReadings(text: string): string[] {
  const userinfo = basicUserinfo(text);
  if (!text.includes("%")) return userinfo;
  const once = percentDecoded(text);
  return [once, percentDecoded(once), ...userinfo];
}

/** `user:password` of a Basic authorization. */
function basicUserinfo(text: string): string[] {
  const credentials = /^\s*basic\s+([A-Za-z0-9+/_=-]+)\s*$/i.exec(text)?.[1];
  return credentials === undefined ? [] : [Buffer.from(credentials, "base64").toString()];
}

function percentDecoded(text: string): string {
  return text.includes("%") ? percentDecodedBytes(Buffer.from(text)).toString() : text;
}

/** The values of the parameters of a query as one text. */
function joinedParameters(text: string): string[] {
  const question = text.indexOf("?");
  if (question === -1) return [];
  const parameters = text.slice(question + 1).split("&", PARAMETERS_MAX);
  return [parameters.map((parameter) => percentDecoded(parameter.slice(parameter.indexOf("=") + 1))).join("")];
}

function valuesOf(text: string): string[] {
  const parts = text.split(/[?&;,/]/, PARAMETERS_MAX).map((part) => part.slice(part.indexOf("=") + 1).trim());
  const afterScheme = text.trim().replace(/^[A-Za-z][\w-]*\s+/, "");
  const colon = text.indexOf(":");
  const userinfo = colon === -1 ? [] : [text.slice(0, colon), text.slice(colon + 1)];
  return [text.trim(), afterScheme, ...parts, ...userinfo];
}
