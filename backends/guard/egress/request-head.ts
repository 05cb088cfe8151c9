import { authorityOf, parseHost, sameAuthority } from "../../../controller/policy/destination.ts";
import type { Incoming, RequestContext } from "./egress.ts";
import { headerValues, type FlatHeaders } from "./headers.ts";
import { refused, type Refused } from "./respond.ts";

/** A request as it was sent, after everything in it that two servers could read differently was refused. */
export interface RequestHead {
  method: string;
  /** Origin form. */
  target: string;
  /** Raw; of HTTP/2 with its pseudo headers. */
  headers: FlatHeaders;
}

/** In a tunnel to one authority every request is for that authority. Credentials follow the destination, so this comes before everything else. */
export function readRequestHead(
  { destination, protocol }: RequestContext,
  request: Incoming,
  target: string,
): { ok: true; head: RequestHead } | { ok: false; refused: Refused } {
  const { rawHeaders: headers } = request;
  const method = request.method ?? "";
  if (method === "CONNECT" || method === "TRACE") {
    const reason = `${method} leads around the guard`;
    return { ok: false, refused: refused("method-refused", reason, { remedy: "ChangeRequest" }) };
  }
  const framing = whyUnclear(request, headers);
  if (framing !== undefined) return no("bad-request", framing);
  const hosts = [...headerValues(headers, "host"), ...headerValues(headers, ":authority")];
  const isHttp2 = request.httpVersionMajor === 2;
  if (hosts.length === 0) return no("bad-request", "the request names no host");
  if (!isHttp2 && hosts.length > 1) return no("bad-request", "the request has more than one Host header");
  const defaultPort = protocol === "HTTPS" ? 443 : 80;
  const usual = destination.port === defaultPort ? destination.host : authorityOf(destination);
  for (const host of hosts) {
    // The usual spelling needs no parser.
    if (host === usual) continue;
    const parsed = parseHost(host, defaultPort);
    if (!parsed.ok) return no("bad-request", `the Host header cannot be read: ${parsed.reason}`);
    if (sameAuthority(parsed.destination, destination)) continue;
    return no("authority-mismatch", "the request is for another host or port than its connection");
  }
  if (isHttp2 && headerValues(headers, ":scheme").join() !== "https")
    return no("bad-request", "the scheme is not https");
  if (!target.startsWith("/")) return no("bad-request", "the request target must be a path");
  return { ok: true, head: { method, target, headers } };
}

function no(rule: string, reason: string): { ok: false; refused: Refused } {
  return { ok: false, refused: refused(rule, reason) };
}

/** Node's parser refuses most of what servers disagree about; these it lets through. HTTP/2 frames a body by itself. */
function whyUnclear(request: Incoming, headers: FlatHeaders): string | undefined {
  if (request.httpVersionMajor === 2) return undefined;
  const encodings = headerValues(headers, "transfer-encoding");
  const lengths = headerValues(headers, "content-length");
  if (encodings.length > 1 || encodings.some((encoding) => encoding.toLowerCase() !== "chunked")) {
    return "the only transfer encoding is chunked";
  }
  if (lengths.length > 1) return "the request has more than one Content-Length";
  if (lengths.length > 0 && encodings.length > 0) return "the request has Content-Length and Transfer-Encoding";
  return undefined;
}
