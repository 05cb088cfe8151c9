import { createSocket, type Socket as UdpSocket } from "node:dgram";
import { once } from "node:events";
import { createServer, type AddressInfo, type Server, type Socket } from "node:net";

/** Addresses of a name, or what it answers at the n-th question (from 1) for that name and type. Others than A and AAAA have no records. */
export type DnsRecords = Readonly<Record<string, readonly string[] | ((n: number) => readonly string[])>>;

export interface DnsDouble {
  /** `127.0.0.1:PORT`, the same port for UDP and TCP. */
  address: string;
  /** Every question that was asked, in order. */
  queries: { name: string; type: string }[];
  close(): Promise<void>;
}

const TYPES: Readonly<Record<number, string>> = { 1: "A", 5: "CNAME", 16: "TXT", 28: "AAAA", 65: "HTTPS" };
const RESPONSE_FLAGS = 0x8180;
const SERVFAIL = 2;
const NXDOMAIN = 3;
const UDP_BYTES_MAX = 512;
const TRUNCATED = 0x0200;

/**
 * A name server on loopback. Names are looked up in lower case; one that is not in `records` does not exist (NXDOMAIN), one in
 * `failing` answers SERVFAIL and one in `silent` never answers.
 */
export async function startDnsDouble(options: {
  records: DnsRecords;
  failing?: readonly string[];
  silent?: readonly string[];
}): Promise<DnsDouble> {
  const queries: { name: string; type: string }[] = [];
  const counts = new Map<string, number>();
  const answer = (query: Buffer): Buffer | undefined => {
    const { name, type, questionEnd } = readQuestion(query);
    queries.push({ name, type });
    const key = `${type} ${name}`;
    const n = (counts.get(key) ?? 0) + 1;
    counts.set(key, n);
    if (options.silent?.includes(name) === true) return undefined;
    if (options.failing?.includes(name) === true) return response(query, questionEnd, { code: SERVFAIL, data: [] });
    const known = Object.hasOwn(options.records, name) ? options.records[name] : undefined;
    if (known === undefined) return response(query, questionEnd, { code: NXDOMAIN, data: [] });
    const addresses = typeof known === "function" ? known(n) : known;
    const data = addresses.filter((address) => type === (address.includes(":") ? "AAAA" : "A")).map(addressBytes);
    return response(query, questionEnd, { code: 0, data });
  };
  const { udp, tcp, port, sockets } = await listen(answer);
  return {
    address: `127.0.0.1:${port}`,
    queries,
    async close() {
      for (const socket of sockets) socket.destroy();
      const closed = [once(udp, "close"), once(tcp, "close")];
      udp.close();
      tcp.close();
      await Promise.all(closed);
    },
  };
}

/** TCP and UDP on one free port: the port UDP was given may be taken for TCP, so it tries again. */
async function listen(answer: (query: Buffer) => Buffer | undefined): Promise<{
  udp: UdpSocket;
  tcp: Server;
  port: number;
  sockets: Set<Socket>;
}> {
  for (let attempt = 0; attempt < 20; attempt += 1) {
    const udp = createSocket("udp4", (query, from) => {
      const reply = answer(query);
      if (reply !== undefined) udp.send(truncated(reply), from.port, from.address);
    });
    udp.bind(0, "127.0.0.1");
    await once(udp, "listening");
    const { port } = udp.address();
    const sockets = new Set<Socket>();
    const tcp = createServer((socket) => serveTcp(socket, sockets, answer));
    tcp.listen(port, "127.0.0.1");
    const listening = await Promise.race([
      once(tcp, "listening").then(
        () => true,
        () => false,
      ),
      once(tcp, "error").then(() => false),
    ]);
    if (listening) return { udp, tcp, port: (tcp.address() as AddressInfo).port, sockets };
    udp.close();
  }
  throw new Error("cannot start a name server: no port is free for both UDP and TCP on 127.0.0.1");
}

function serveTcp(socket: Socket, sockets: Set<Socket>, answer: (query: Buffer) => Buffer | undefined): void {
  sockets.add(socket);
  socket.on("close", () => sockets.delete(socket));
  socket.on("error", () => socket.destroy());
  let pending: Buffer = Buffer.alloc(0);
  socket.on("data", (chunk) => {
    pending = Buffer.concat([pending, chunk]);
    while (pending.length >= 2 && pending.length >= 2 + pending.readUInt16BE(0)) {
      const end = 2 + pending.readUInt16BE(0);
      const reply = answer(pending.subarray(2, end));
      pending = pending.subarray(end);
      if (reply === undefined) continue;
      const length = Buffer.alloc(2);
      length.writeUInt16BE(reply.length);
      socket.write(Buffer.concat([length, reply]));
    }
  });
}

/** An answer too long for UDP is sent without its records; the client asks again over TCP. */
function truncated(reply: Buffer): Buffer {
  if (reply.length <= UDP_BYTES_MAX) return reply;
  const short = Buffer.from(reply.subarray(0, readQuestion(reply).questionEnd));
  short.writeUInt16BE(RESPONSE_FLAGS | TRUNCATED, 2);
  short.writeUInt16BE(0, 6);
  return short;
}

function readQuestion(query: Buffer): { name: string; type: string; questionEnd: number } {
  const labels: string[] = [];
  let offset = 12;
  for (let length = query.readUInt8(offset); length > 0; length = query.readUInt8(offset)) {
    labels.push(query.toString("latin1", offset + 1, offset + 1 + length));
    offset += 1 + length;
  }
  const code = query.readUInt16BE(offset + 1);
  return { name: labels.join(".").toLowerCase(), type: TYPES[code] ?? `TYPE${code}`, questionEnd: offset + 5 };
}

function response(query: Buffer, questionEnd: number, answers: { code: number; data: readonly Buffer[] }): Buffer {
  const header = Buffer.alloc(12);
  query.copy(header, 0, 0, 2);
  header.writeUInt16BE(RESPONSE_FLAGS | answers.code, 2);
  header.writeUInt16BE(1, 4);
  header.writeUInt16BE(answers.data.length, 6);
  const records = answers.data.map((data) => {
    const record = Buffer.alloc(12);
    // The name is a pointer to the one in the question; no time to live: nobody may remember an answer.
    record.writeUInt16BE(0xc00c, 0);
    record.writeUInt16BE(data.length === 4 ? 1 : 28, 2);
    record.writeUInt16BE(1, 4);
    record.writeUInt16BE(data.length, 10);
    return Buffer.concat([record, data]);
  });
  return Buffer.concat([header, query.subarray(12, questionEnd), ...records]);
}

function addressBytes(address: string): Buffer {
  if (!address.includes(":")) return Buffer.from(address.split(".").map(Number));
  const mapped = /^(.*:)(\d+)\.(\d+)\.(\d+)\.(\d+)$/.exec(address);
  const text =
    mapped === null
      ? address
      : `${mapped[1]}${hexPair(Number(mapped[2]), Number(mapped[3]))}:${hexPair(Number(mapped[4]), Number(mapped[5]))}`;
  const [head = "", tail] = text.split("::");
  const left = head === "" ? [] : head.split(":");
  const right = tail === undefined || tail === "" ? [] : tail.split(":");
  const zeros = Array.from({ length: 8 - left.length - right.length }, () => "0");
  const bytes = Buffer.alloc(16);
  [...left, ...zeros, ...right].forEach((group, index) => bytes.writeUInt16BE(Number.parseInt(group, 16), 2 * index));
  return bytes;
}

function hexPair(high: number, low: number): string {
  return (high * 256 + low).toString(16);
}
