import { parseAddress, type Address } from "./address.ts";
import { codePoint } from "./text.ts";

/**
 * Where something is to go. There is one parser and one spelling: this value is decided, resolved, dialled, injected into and
 * logged, so that nothing can be decided on one name and sent to another.
 */
export interface Destination {
  /** Lower case, no trailing dot, punycode; IP addresses in their one spelling, without brackets. */
  host: string;
  port: number;
  /** Present if the host is an IP address. */
  address?: Address;
}

export type Parsed = { ok: true; destination: Destination } | { ok: false; reason: string };
export type ParsedHost = { ok: true; host: string; address?: Address } | { ok: false; reason: string };
export type ParsedAbsolute = { ok: true; destination: Destination; target: string } | { ok: false; reason: string };

const TEXT_LENGTH_MAX = 1024;
const NAME_LENGTH_MAX = 253;
const LABEL_LENGTH_MAX = 63;
const HTTP_PORT = 80;
const PORT = /^[1-9][0-9]{0,4}$/;
/** A character that no host holds: of ASCII all but a few, of the others what has no picture of its own. The rest is left to the rules for international names. */
const FORBIDDEN = /[^A-Za-z0-9._\-\u0080-\u{10ffff}]|\p{Cc}|\p{Cf}|\p{Cs}|\p{Z}|\p{Default_Ignorable_Code_Point}/u;
const ASCII = /^[A-Za-z0-9._-]*$/;
const LABEL = /^[a-z0-9_](?:[-a-z0-9_]*[a-z0-9_])?$/;
/** A last label that could be read as a number makes the whole name an IP address for some programs. */
const LAST_LABEL = /^[a-z](?:[-a-z0-9]*[a-z0-9])?$/;

/** Reads the target of CONNECT: host and port, both required. Never throws. */
export function parseAuthority(text: string): Parsed {
  return parse(text, undefined);
}

/** Reads a Host header, an `:authority` or a server name; without a port it has `defaultPort`. Never throws. */
export function parseHost(text: string, defaultPort: number): Parsed {
  return parse(text, defaultPort);
}

/** Reads the absolute form of a request target, which is for http only. `target` is what the request line says upstream. Never throws. */
export function parseAbsolute(target: string): ParsedAbsolute {
  const scheme = /^http:\/\//i.exec(target)?.[0];
  if (scheme === undefined) return refused("only http:// may be asked for in absolute form: use CONNECT for others");
  const rest = target.slice(scheme.length);
  const end = rest.search(/[/?#]/);
  const parsed = parse(end === -1 ? rest : rest.slice(0, end), HTTP_PORT);
  if (!parsed.ok) return parsed;
  const path = end === -1 ? "/" : rest.slice(end);
  return { ok: true, destination: parsed.destination, target: path.startsWith("/") ? path : `/${path}` };
}

/** The same host on the same port: what CONNECT, the server name and every Host of a tunnel must be to each other. */
export function sameAuthority(a: Destination, b: Destination): boolean {
  return a.host === b.host && a.port === b.port;
}

/** `host:port` as CONNECT writes it. */
export function authorityOf(destination: Destination): string {
  return `${destination.address?.family === 6 ? `[${destination.host}]` : destination.host}:${destination.port}`;
}

/** Brings a host without port and brackets into its one spelling, or says why there is none. Never throws. */
export function canonicalHost(text: string): ParsedHost {
  if (text === "") return refused("the host is empty");
  if (text.length > TEXT_LENGTH_MAX) return refused(`the host is longer than ${NAME_LENGTH_MAX} characters`);
  const address = parseAddress(text);
  if (address !== undefined) return { ok: true, host: address.text, address };
  const forbidden = FORBIDDEN.exec(text)?.[0];
  if (forbidden !== undefined)
    return refused(`the host holds the character ${codePoint(forbidden)}, which no host may`);
  const ascii = ASCII.test(text) ? text.toLowerCase() : asciiOf(text);
  if (ascii === undefined) return refused("the host is no valid internationalised name");
  return canonicalName(ascii.endsWith(".") ? ascii.slice(0, -1) : ascii);
}

function canonicalName(name: string): ParsedHost {
  if (name.length > NAME_LENGTH_MAX) return refused(`the host is longer than ${NAME_LENGTH_MAX} characters`);
  const labels = name.split(".");
  if (labels.includes("")) return refused("the host has an empty label");
  const long = labels.some((label) => label.length > LABEL_LENGTH_MAX);
  if (long) return refused(`the host has a label of more than ${LABEL_LENGTH_MAX} characters`);
  const last = labels.at(-1) ?? "";
  if (/^[0-9]/.test(last)) {
    return refused("the host ends in a number but is no canonical IP address: write four decimal numbers, or a name");
  }
  if (!LAST_LABEL.test(last) || !labels.every((label) => LABEL.test(label))) {
    return refused("the host has a label that begins or ends with '-', or a last label that holds '_'");
  }
  // Punycode that decodes to nothing, or to what is written otherwise, is no spelling of any name.
  if (labels.some((label) => label.startsWith("xn--")) && asciiOf(name) !== name) {
    return refused("the host is no valid internationalised name");
  }
  return { ok: true, host: name };
}

function parse(text: string, defaultPort: number | undefined): Parsed {
  if (text.length > TEXT_LENGTH_MAX) return refused(`the host is longer than ${NAME_LENGTH_MAX} characters`);
  if (text.includes("@")) return refused("a user name before the host is not allowed");
  const bracketed = /^\[([^\]]*)\](.*)$/s.exec(text);
  if (bracketed === null && text.indexOf(":") !== text.lastIndexOf(":")) {
    return refused("an IPv6 address must be written in brackets, and a port once");
  }
  const colon = text.indexOf(":");
  const name = bracketed?.[1] ?? (colon === -1 ? text : text.slice(0, colon));
  const rest = bracketed?.[2] ?? (colon === -1 ? "" : text.slice(colon));
  const host = bracketed === null ? canonicalHost(name) : ipv6(name);
  if (!host.ok) return host;
  const port = rest === "" ? defaultPort : portOf(rest);
  if (port === undefined) {
    return refused(
      rest === "" ? "the port is missing" : "the port must be a number from 1 to 65535 without leading zeros",
    );
  }
  const { address } = host;
  return { ok: true, destination: { host: host.host, port, ...(address === undefined ? {} : { address }) } };
}

function ipv6(text: string): ParsedHost {
  const address = parseAddress(text);
  if (address?.family !== 6) return refused("what stands in brackets is no IPv6 address, or has a zone");
  return { ok: true, host: address.text, address };
}

function portOf(rest: string): number | undefined {
  const digits = rest.slice(1);
  const port = Number(digits);
  return rest.startsWith(":") && PORT.test(digits) && port <= 65_535 ? port : undefined;
}

/** The name as a URL would have it, in punycode. Only called for text without any character that means something in a URL. */
function asciiOf(text: string): string | undefined {
  const url = `http://${text}/`;
  return URL.canParse(url) ? new URL(url).hostname : undefined;
}

function refused(reason: string): { ok: false; reason: string } {
  return { ok: false, reason };
}
