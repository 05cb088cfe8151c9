/** Headers as Node and undici have them raw: name, value, name, value. Order and doubles are kept. */
export type FlatHeaders = readonly string[];

/**
 * Not passed on. Most belong to one connection; the others say where a request came from, which is none of the agent's business to claim, or
 * change its method behind the rule's back.
 */
const DROPPED: ReadonlySet<string> = new Set([
  "connection",
  "keep-alive",
  "te",
  "trailer",
  "transfer-encoding",
  "upgrade",
  "http2-settings",
  "host",
  "content-length",
  "expect",
  "forwarded",
  "via",
  "x-real-ip",
  "x-http-method",
  "x-http-method-override",
  "x-method-override",
]);
const METHOD_OVERRIDES: readonly string[] = ["x-http-method", "x-http-method-override", "x-method-override"];
/** Of responses. `alt-svc` invites the client to a protocol that no bottle speaks. */
const RESPONSE_DROPPED: ReadonlySet<string> = new Set([
  "connection",
  "keep-alive",
  "te",
  "transfer-encoding",
  "upgrade",
  "alt-svc",
]);

/** Servers that make variables of headers take `x_api_key` for `x-api-key`, so both are one name here. */
export function headerName(name: string): string {
  return name.toLowerCase().replaceAll("_", "-");
}

export function headerValues(headers: FlatHeaders, name: string): string[] {
  const values: string[] = [];
  for (let at = 0; at + 1 < headers.length; at += 2) {
    if (headers[at]?.toLowerCase() === name) values.push(headers[at + 1] ?? "");
  }
  return values;
}

export function hasMethodOverride(headers: FlatHeaders): boolean {
  return headers.some((name, at) => at % 2 === 0 && METHOD_OVERRIDES.includes(headerName(name)));
}

/** What of the agent's headers goes on, and what was kept back because the guard speaks for the agent there. */
export function requestHeaders(
  headers: FlatHeaders,
  isStripped: (name: string) => boolean,
): { kept: string[]; stripped: string[] } {
  const [kept, stripped]: [string[], string[]] = [[], []];
  const named = connectionNames(headers);
  for (let at = 0; at + 1 < headers.length; at += 2) {
    const [name = "", value = ""] = [headers[at], headers[at + 1]];
    const plain = headerName(name);
    if (DROPPED.has(plain) || plain.startsWith(":") || plain.startsWith("proxy-") || named?.includes(plain) === true) {
      // Trailers of the answer are passed on, so a client that can read them may say so.
      if (plain === "te" && /\btrailers\b/i.test(value)) kept.push("te", "trailers");
    } else if (plain.startsWith("x-forwarded-")) continue;
    else (isStripped(plain) ? stripped : kept).push(name, value);
  }
  return { kept, stripped };
}

/** As undici has them: buffers in turn. Latin-1, byte for byte. */
export function responseHeaders(raw: readonly (Buffer | string)[]): string[] {
  const all = raw.map((text) => (typeof text === "string" ? text : text.toString("latin1")));
  const named = connectionNames(all);
  const kept: string[] = [];
  for (let at = 0; at + 1 < all.length; at += 2) {
    const [name = "", value = ""] = [all[at], all[at + 1]];
    const plain = name.toLowerCase();
    if (RESPONSE_DROPPED.has(plain) || plain.startsWith("proxy-") || named?.includes(plain) === true) continue;
    kept.push(name, value);
  }
  return kept;
}

/** HTTP/2 wants lower case and one entry a name. */
export function headerRecord(headers: FlatHeaders): Record<string, string | string[]> {
  const record: Record<string, string | string[]> = Object.create(null);
  for (let at = 0; at + 1 < headers.length; at += 2) {
    const [name = "", value = ""] = [headers[at]?.toLowerCase(), headers[at + 1]];
    const known = record[name];
    record[name] = known === undefined ? value : Array.isArray(known) ? [...known, value] : [known, value];
  }
  return record;
}

/** About what the head of a request takes on the wire: a path or a header carries data as well as a body does. */
export function headBytes(method: string, path: string, headers: FlatHeaders): number {
  let bytes = method.length + path.length + 12;
  for (const text of headers) bytes += text.length + 2;
  return bytes;
}

/** Headers that `Connection` declares to be of this connection only. `undefined`: none, which is nearly always so. */
function connectionNames(headers: FlatHeaders): string[] | undefined {
  let names: string[] | undefined;
  for (let at = 0; at + 1 < headers.length; at += 2) {
    const name = headers[at];
    if (name?.length !== 10 || name.toLowerCase() !== "connection") continue;
    const value = headers[at + 1] ?? "";
    if (/^(keep-alive|close)$/i.test(value)) continue;
    names = [...(names ?? []), ...value.split(",").map((one) => headerName(one.trim()))];
  }
  return names;
}
