import { EMBEDDINGS, METADATA_ADDRESSES, SPECIAL_RANGES, type AddressClass } from "./special-ranges.ts";

export type { AddressClass } from "./special-ranges.ts";

/** An IP address in its one spelling: dotted quad, or IPv6 as RFC 5952 and URLs write it (no dotted tail), lower case. */
export interface Address {
  text: string;
  family: 4 | 6;
  bytes: Uint8Array;
}

/** A network: its first address and the number of bits that are fixed. */
export interface Cidr {
  text: string;
  family: 4 | 6;
  bytes: Uint8Array;
  bits: number;
}

const OCTET = /^(?:0|[1-9][0-9]{0,2})$/;
const GROUP = /^[0-9a-f]{1,4}$/i;
const ADDRESS_LENGTH_MAX = 45;
const GROUPS = 8;

/**
 * Reads an address as RFC 791 and RFC 4291 write it, and nothing else: no leading zeros (some programs read them as octal),
 * no short or numeric forms, no zone, no brackets. Undefined: it is none.
 */
export function parseAddress(text: string): Address | undefined {
  if (text.length > ADDRESS_LENGTH_MAX) return undefined;
  const bytes = text.includes(":") ? bytesOfIpv6(text) : bytesOfIpv4(text);
  return bytes === undefined ? undefined : addressOf(bytes);
}

/** A network such as `10.0.0.0/8`. Undefined: it is none, or has bits set behind its length, where one cannot know what was meant. */
export function parseCidr(text: string): Cidr | undefined {
  const [head = "", tail, more] = text.split("/");
  const address = parseAddress(head);
  if (address === undefined || tail === undefined || more !== undefined || !OCTET.test(tail)) return undefined;
  const bits = Number(tail);
  if (bits > address.bytes.length * 8) return undefined;
  const cidr = { text: `${address.text}/${bits}`, family: address.family, bytes: address.bytes, bits };
  return address.bytes.every((byte, index) => (byte & ~maskAt(bits, index) & 0xff) === 0) ? cidr : undefined;
}

/** Families never mix: an IPv4 network does not contain an IPv6 address that leads to it. */
export function cidrContains(cidr: Cidr, address: Address): boolean {
  if (cidr.family !== address.family) return false;
  return cidr.bytes.every((byte, index) => byte === ((address.bytes[index] ?? 0) & maskAt(cidr.bits, index)));
}

/** The IPv4 addresses that a packet to this IPv6 address may end at. */
export function embeddedAddresses(address: Address): Address[] {
  return embeddings
    .filter(({ cidr }) => cidrContains(cidr, address))
    .map(({ places, inverted }) =>
      addressOf(Uint8Array.from(places, (place) => (address.bytes[place] ?? 0) ^ (inverted ? 0xff : 0))),
    );
}

/** The class of an address, or of the worst address that is hidden in it. */
export function classOf(address: Address): AddressClass {
  return embeddedAddresses(address)
    .map(ownClass)
    .reduce((worst, next) => (BADNESS[next] > BADNESS[worst] ? next : worst), ownClass(address));
}

const BADNESS: Readonly<Record<AddressClass, number>> = {
  Public: 0,
  Reserved: 1,
  Multicast: 2,
  Private: 3,
  LinkLocal: 4,
  Loopback: 5,
  Metadata: 6,
};

const ranges = SPECIAL_RANGES.map(([network, kind]) => ({ cidr: knownCidr(network), kind }));
const embeddings = EMBEDDINGS.map(({ network, bytes, inverted }) => ({
  cidr: knownCidr(network),
  places: bytes,
  inverted: inverted === true,
}));

function ownClass(address: Address): AddressClass {
  if (METADATA_ADDRESSES.includes(address.text)) return "Metadata";
  return ranges.find(({ cidr }) => cidrContains(cidr, address))?.kind ?? "Reserved";
}

function knownCidr(text: string): Cidr {
  const cidr = parseCidr(text);
  if (cidr === undefined) throw new Error(`not a network: ${text}`);
  return cidr;
}

/** The bits of the byte at `index` that a prefix of `bits` bits fixes. */
function maskAt(bits: number, index: number): number {
  const fixed = Math.min(Math.max(bits - index * 8, 0), 8);
  return (0xff << (8 - fixed)) & 0xff;
}

function bytesOfIpv4(text: string): Uint8Array | undefined {
  const octets = text.split(".");
  if (octets.length !== 4 || !octets.every((octet) => OCTET.test(octet) && Number(octet) <= 255)) return undefined;
  return Uint8Array.from(octets, Number);
}

function bytesOfIpv6(text: string): Uint8Array | undefined {
  const [left = "", right, more] = text.split("::");
  if (more !== undefined) return undefined;
  const head = groupsOf(left, right === undefined);
  const tail = right === undefined ? [] : groupsOf(right, true);
  if (head === undefined || tail === undefined) return undefined;
  const gap = GROUPS - head.length - tail.length;
  // "::" stands for at least one group.
  if (right === undefined ? gap !== 0 : gap < 1) return undefined;
  const groups = [...head, ...Array.from({ length: gap }, () => 0), ...tail];
  return Uint8Array.from(groups.flatMap((group) => [group >> 8, group & 0xff]));
}

/** The 16-bit groups of one side of "::"; only the last side may end in a dotted quad. */
function groupsOf(text: string, last: boolean): number[] | undefined {
  if (text === "") return [];
  const parts = text.split(":");
  const quad = last && parts.at(-1)?.includes(".") === true ? bytesOfIpv4(parts.pop() ?? "") : new Uint8Array();
  if (quad === undefined || !parts.every((part) => GROUP.test(part))) return undefined;
  const groups = parts.map((part) => Number.parseInt(part, 16));
  const [a, b, c, d] = quad;
  if (a === undefined || b === undefined || c === undefined || d === undefined) return groups;
  return [...groups, (a << 8) | b, (c << 8) | d];
}

function addressOf(bytes: Uint8Array): Address {
  if (bytes.length === 4) return { text: bytes.join("."), family: 4, bytes };
  const groups = Array.from(
    { length: GROUPS },
    (_, index) => ((bytes[index * 2] ?? 0) << 8) | (bytes[index * 2 + 1] ?? 0),
  );
  const hex = groups.map((group) => group.toString(16));
  const { start, length } = longestZeros(groups);
  if (length < 2) return { text: hex.join(":"), family: 6, bytes };
  const text = `${hex.slice(0, start).join(":")}::${hex.slice(start + length).join(":")}`;
  return { text, family: 6, bytes };
}

/** The first of the longest runs of zero groups. */
function longestZeros(groups: readonly number[]): { start: number; length: number } {
  let best = { start: 0, length: 0 };
  for (let start = 0; start < groups.length; start += 1) {
    const end = groups.findIndex((group, index) => index >= start && group !== 0);
    const length = (end === -1 ? groups.length : end) - start;
    if (length > best.length) best = { start, length };
  }
  return best;
}
