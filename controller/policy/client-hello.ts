/** What the first bytes of a TLS client say, as far as they have come. */
export type ClientHello =
  | { state: "incomplete" }
  /** These bytes are no ClientHello and no further ones can make them one. */
  | { state: "refused"; reason: string }
  | {
      state: "hello";
      /** As the client wrote it; letters, digits, '.', '-' and '_' only. Absent: the client named no server. */
      serverName?: string;
      /** An inner hello is, or may be, hidden in this one: what `serverName` says is then not where the client wants to go. */
      ech: boolean;
      alpn: string[];
    };

type Refused = Extract<ClientHello, { state: "refused" }>;

/** Bytes of TLS records that are looked into; real hellos, with post-quantum keys, have under 2 KiB. */
const HELLO_BYTES_MAX = 65_536;
const RECORD_HEADER_BYTES = 5;
const RECORD_BYTES_MAX = 16_384;
const MESSAGE_HEADER_BYTES = 4;
const HANDSHAKE_RECORD = 22;
const CLIENT_HELLO = 1;
const TLS_MAJOR = 3;
const EXTENSION = { serverName: 0, alpn: 16, ech: 0xfe0d, echOuter: 0xfd00, esni: 0xffce } as const;
const HOST_NAME = 0;

/**
 * Reads the ClientHello out of all bytes that a client has sent so far. A pure function of them, however they were split: once
 * it says anything but "incomplete", more bytes change nothing. Never throws, and looks at no byte behind the hello.
 */
export function readClientHello(bytes: Uint8Array): ClientHello {
  const looked = bytes.subarray(0, HELLO_BYTES_MAX);
  const message = joinRecords(looked);
  if (message.state === "message") return readMessage(message.body);
  if (message.state === "incomplete" && bytes.length >= HELLO_BYTES_MAX) {
    return refused(`the ClientHello does not end within ${HELLO_BYTES_MAX} bytes`);
  }
  return message;
}

type Joined = { state: "message"; body: Uint8Array } | { state: "incomplete" } | Refused;

/** Takes the first handshake message out of the records it was cut into. Checks are in the order of the bytes, so that a split changes no answer. */
function joinRecords(bytes: Uint8Array): Joined {
  const parts: Uint8Array[] = [];
  const header: number[] = [];
  let have = 0;
  for (let at = 0; at < bytes.length;) {
    const record = bytes.subarray(at, at + RECORD_HEADER_BYTES);
    const wrong = whyNotRecord(record, at === 0);
    if (wrong !== undefined) return wrong;
    if (record.length < RECORD_HEADER_BYTES) return { state: "incomplete" };
    const length = numberIn(record, 3, 2);
    const start = at + RECORD_HEADER_BYTES;
    const part = bytes.subarray(start, start + length);
    parts.push(part);
    header.push(...part.subarray(0, MESSAGE_HEADER_BYTES - header.length));
    const odd = whyNotHello(header, have + length);
    if (odd !== undefined) return odd;
    if (part.length < length) return { state: "incomplete" };
    have += length;
    at = start + length;
    if (header.length === MESSAGE_HEADER_BYTES && have === messageBytes(header)) {
      return { state: "message", body: joined(parts, have).subarray(MESSAGE_HEADER_BYTES) };
    }
  }
  return { state: "incomplete" };
}

/** What is wrong with the bytes of a record header that have come. */
function whyNotRecord(record: Uint8Array, first: boolean): Refused | undefined {
  const [type, major, minor] = record;
  if (type !== undefined && type !== HANDSHAKE_RECORD) {
    return refused(first ? "the first bytes are not TLS" : "another record interrupts the ClientHello");
  }
  if (major !== undefined && major !== TLS_MAJOR) return refused("the first bytes are not TLS");
  if (minor !== undefined && minor > 4) return refused("the first bytes are not TLS");
  if (record.length < RECORD_HEADER_BYTES) return undefined;
  const length = numberIn(record, 3, 2);
  return length === 0 || length > RECORD_BYTES_MAX ? refused("a TLS record has no valid length") : undefined;
}

/** What is wrong with the header of the handshake message as far as it has come, and with the bytes the records announce. */
function whyNotHello(header: readonly number[], announced: number): Refused | undefined {
  if (header[0] !== undefined && header[0] !== CLIENT_HELLO) return refused("the first TLS message is no ClientHello");
  if (header.length < MESSAGE_HEADER_BYTES) return undefined;
  const length = messageBytes(header);
  if (length > HELLO_BYTES_MAX) return refused(`the ClientHello has more than ${HELLO_BYTES_MAX} bytes`);
  return announced > length ? refused("a record holds more than the ClientHello") : undefined;
}

function messageBytes(header: readonly number[]): number {
  return MESSAGE_HEADER_BYTES + numberIn(header, 1, 3);
}

/** A part of the message that is read from the front. */
interface Cursor {
  readonly bytes: Uint8Array;
  at: number;
}

function readMessage(body: Uint8Array): ClientHello {
  const cursor: Cursor = { bytes: body, at: 0 };
  const version = take(cursor, 2);
  const random = take(cursor, 32);
  const session = vector(cursor, 1);
  const ciphers = vector(cursor, 2);
  const compressions = vector(cursor, 1);
  if (version === undefined || random === undefined || session === undefined) return malformed("its beginning");
  if (version[0] !== TLS_MAJOR || version[1] === 0) return refused("the ClientHello is older than TLS 1.0");
  if (ciphers === undefined || ciphers.length === 0 || ciphers.length % 2 !== 0) return malformed("its cipher suites");
  if (session.length > 32 || compressions === undefined || compressions.length === 0) return malformed("its beginning");
  if (cursor.at === body.length) return { state: "hello", ech: false, alpn: [] };
  const extensions = vector(cursor, 2);
  if (extensions === undefined || cursor.at !== body.length) return malformed("its extensions");
  return readExtensions(extensions);
}

function readExtensions(bytes: Uint8Array): ClientHello {
  const cursor: Cursor = { bytes, at: 0 };
  const byType = new Map<number, Uint8Array>();
  while (cursor.at < bytes.length) {
    const type = take(cursor, 2);
    const value = vector(cursor, 2);
    if (type === undefined || value === undefined) return malformed("its extensions");
    const key = numberIn(type, 0, 2);
    if (byType.has(key)) return refused("the ClientHello holds an extension twice");
    byType.set(key, value);
  }
  const name = byType.get(EXTENSION.serverName);
  const protocols = byType.get(EXTENSION.alpn);
  const serverName = name === undefined ? undefined : readServerName(name);
  const alpn = protocols === undefined ? [] : readAlpn(protocols);
  if (name !== undefined && serverName === undefined) return malformed("its server name");
  if (alpn === undefined) return malformed("its list of protocols");
  const ech = byType.has(EXTENSION.ech) || byType.has(EXTENSION.echOuter) || byType.has(EXTENSION.esni);
  return { state: "hello", ...(serverName === undefined ? {} : { serverName }), ech, alpn };
}

/** Exactly one entry, and it is a host name: with two, servers differ in which one they take. */
function readServerName(bytes: Uint8Array): string | undefined {
  const outer: Cursor = { bytes, at: 0 };
  const list = vector(outer, 2);
  if (list === undefined || outer.at !== bytes.length) return undefined;
  const inner: Cursor = { bytes: list, at: 0 };
  const type = take(inner, 1);
  const name = vector(inner, 2);
  if (type?.[0] !== HOST_NAME || name === undefined || inner.at !== list.length) return undefined;
  const text = latin1(name);
  return /^[A-Za-z0-9._-]{1,255}$/.test(text) ? text : undefined;
}

function readAlpn(bytes: Uint8Array): string[] | undefined {
  const outer: Cursor = { bytes, at: 0 };
  const list = vector(outer, 2);
  if (list === undefined || list.length === 0 || outer.at !== bytes.length) return undefined;
  const inner: Cursor = { bytes: list, at: 0 };
  const protocols: string[] = [];
  while (inner.at < list.length) {
    const protocol = vector(inner, 1);
    if (protocol === undefined || protocol.length === 0) return undefined;
    protocols.push(latin1(protocol));
  }
  return protocols;
}

/** The next `count` bytes; undefined, and nothing taken, if there are fewer. */
function take(cursor: Cursor, count: number): Uint8Array | undefined {
  if (cursor.at + count > cursor.bytes.length) return undefined;
  cursor.at += count;
  return cursor.bytes.subarray(cursor.at - count, cursor.at);
}

/** The next bytes with their length before them, in a number of `width` bytes. */
function vector(cursor: Cursor, width: 1 | 2): Uint8Array | undefined {
  const length = take(cursor, width);
  return length === undefined ? undefined : take(cursor, numberIn(length, 0, width));
}

function numberIn(bytes: ArrayLike<number>, at: number, width: number): number {
  let value = 0;
  for (let index = at; index < at + width; index += 1) value = value * 256 + (bytes[index] ?? 0);
  return value;
}

function joined(parts: readonly Uint8Array[], length: number): Uint8Array {
  const all = new Uint8Array(length);
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

/** Names of protocols are bytes; some clients send meaningless ones on purpose. */
function latin1(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => String.fromCharCode(byte)).join("");
}

function malformed(part: string): Refused {
  return refused(`the ClientHello is malformed in ${part}`);
}

function refused(reason: string): Refused {
  return { state: "refused", reason };
}
