import * as fc from "fast-check";
import { once } from "node:events";
import { createServer, type AddressInfo } from "node:net";
import { connect, type ConnectionOptions } from "node:tls";
import { describe, expect, it } from "vitest";
import { readClientHello } from "../../controller/policy/client-hello.ts";

const INCOMPLETE = { state: "incomplete" };

/** A hello of which a test chooses every part; the extensions in the order given. */
interface Parts {
  extensions?: [type: number, value: number[]][];
  version?: number[];
  ciphers?: number[];
  rest?: number[];
}

const anyExtension = fc.tuple(
  fc.oneof(fc.constantFrom(0, 16, 0xfe0d, 0xfd00, 43), fc.integer({ min: 0, max: 65_535 })),
  fc.oneof(
    fc.array(fc.integer({ min: 0, max: 255 }), { maxLength: 12 }),
    fc.constantFrom(serverName("allowed.test"), alpn("h2", "http/1.1")),
  ),
);
const anyMessage = fc
  .record({ extensions: fc.array(anyExtension, { maxLength: 4 }), rest: fc.constantFrom<number[]>([], [], [0]) })
  .map((parts) => message(parts));
/** Hellos cut into records anywhere, sometimes with one byte changed, and with something behind them. */
const anyBytes = fc.oneof(
  fc
    .tuple(anyMessage, fc.array(fc.integer({ min: 1, max: 40 }), { maxLength: 4 }), fc.uint8Array({ maxLength: 8 }))
    .map(([hello, sizes, behind]) => Uint8Array.of(...records(hello, sizes), ...behind)),
  fc
    .tuple(anyMessage, fc.array(fc.integer({ min: 1, max: 40 }), { maxLength: 4 }), fc.nat(), fc.nat(255))
    .map(([hello, sizes, place, value]) => {
      const bytes = records(hello, sizes);
      bytes[place % bytes.length] = value;
      return bytes;
    }),
  fc.uint8Array({ maxLength: 80 }),
);

describe("readClientHello of real clients", () => {
  it.each([
    ["TLS 1.3 and 1.2", { servername: "allowed.test", ALPNProtocols: ["h2", "http/1.1"] }],
    ["TLS 1.3 only", { servername: "allowed.test", ALPNProtocols: ["h2", "http/1.1"], minVersion: "TLSv1.3" }],
    ["TLS 1.2 only", { servername: "allowed.test", ALPNProtocols: ["h2", "http/1.1"], maxVersion: "TLSv1.2" }],
  ] as [string, ConnectionOptions][])("reads the server name and the protocols of node:tls, %s", async (_, options) => {
    const bytes = await captured(options);

    expect(readClientHello(bytes)).toEqual({
      state: "hello",
      serverName: "allowed.test",
      ech: false,
      alpn: ["h2", "http/1.1"],
    });
  });

  it("says that a client named no server", async () => {
    expect(readClientHello(await captured({}))).toEqual({ state: "hello", ech: false, alpn: [] });
  });

  it("waits for the last byte, and needs none behind it", async () => {
    const bytes = await captured({ servername: "allowed.test" });
    const whole = readClientHello(bytes);

    for (let length = 0; length < bytes.length; length += 1) {
      expect(readClientHello(bytes.subarray(0, length))).toEqual(INCOMPLETE);
    }
    expect(readClientHello(Uint8Array.of(...bytes, 1, 2, 3))).toEqual(whole);
  });

  it("reads the same out of a hello that was cut into records of any size", async () => {
    const bytes = await captured({ servername: "allowed.test" });
    const whole = readClientHello(bytes);

    for (const size of [1, 2, 3, 4, 5, 7, 64, 100]) {
      const sizes = Array.from({ length: Math.ceil(bytes.length / size) }, () => size);
      expect(readClientHello(records(bytes.subarray(5), sizes))).toEqual(whole);
    }
  });
});

describe("readClientHello", () => {
  it.each([
    ["SSLv2", Uint8Array.of(0x80), "not TLS"],
    ["an SSH banner", new TextEncoder().encode("S"), "not TLS"],
    ["HTTP", new TextEncoder().encode("G"), "not TLS"],
    ["a TLS alert", Uint8Array.of(21), "not TLS"],
    ["another major version", Uint8Array.of(22, 2), "not TLS"],
    ["an unknown minor version", Uint8Array.of(22, 3, 5), "not TLS"],
    ["an empty record", Uint8Array.of(22, 3, 1, 0, 0), "valid length"],
    ["a record of more than 16 KiB", Uint8Array.of(22, 3, 1, 0x40, 1), "valid length"],
    ["a ServerHello", Uint8Array.of(22, 3, 1, 0, 4, 2), "no ClientHello"],
    ["a hello of 16 MiB", Uint8Array.of(22, 3, 1, 1, 0, 1, 0xff, 0xff, 0xff), "more than"],
    ["two messages in a record", Uint8Array.of(22, 3, 1, 0, 10, 1, 0, 0, 2), "more than the ClientHello"],
    ["an alert inside the hello", Uint8Array.of(22, 3, 1, 0, 1, 1, 21), "interrupts"],
  ])("refuses %s at the first byte that shows it", (_, bytes, reason) => {
    expect(readClientHello(bytes.subarray(0, -1))).toEqual(INCOMPLETE);
    expect(readClientHello(bytes)).toEqual({ state: "refused", reason: expect.stringContaining(reason) });
  });

  it.each([
    ["two names", { extensions: [[0, serverName("allowed.test", "evil.test")]] }],
    [
      "the name twice",
      {
        extensions: [
          [0, serverName("allowed.test")],
          [0, serverName("evil.test")],
        ],
      },
    ],
    ["an empty name", { extensions: [[0, serverName("")]] }],
    ["an empty server name", { extensions: [[0, []]] }],
    ["another type of name", { extensions: [[0, [0, 4, 1, 0, 1, 97]]] }],
    ["bytes behind the name", { extensions: [[0, [...serverName("a"), 0]]] }],
    ["a name with NUL", { extensions: [[0, serverName("evil.test\0.allowed.test")]] }],
    ["a name with a port", { extensions: [[0, serverName("allowed.test:80")]] }],
    ["a name in UTF-8", { extensions: [[0, serverName("b\u00fccher.test")]] }],
    ["an empty list of protocols", { extensions: [[16, [0, 0]]] }],
    ["an empty protocol", { extensions: [[16, [0, 1, 0]]] }],
    ["SSL 3.0", { version: [3, 0] }],
    ["no cipher suites", { ciphers: [] }],
    ["half a cipher suite", { ciphers: [1] }],
    ["bytes behind the extensions", { rest: [0] }],
  ] as [string, Parts][])("refuses a hello with %s", (_, parts) => {
    expect(readClientHello(records(message(parts), []))).toMatchObject({ state: "refused" });
  });

  it.each([
    ["an encrypted hello, outer", 0xfe0d, [0, 0, 1, 0, 1, 7, 0, 0, 0, 0]],
    ["an encrypted hello, inner", 0xfe0d, [1]],
    ["a list of outer extensions", 0xfd00, [2, 0, 0]],
    ["an encrypted server name", 0xffce, [0]],
  ])("says that there is %s", (_, type, value) => {
    const bytes = records(
      message({
        extensions: [
          [0, serverName("allowed.test")],
          [type, value],
        ],
      }),
      [],
    );

    expect(readClientHello(bytes)).toEqual({ state: "hello", serverName: "allowed.test", ech: true, alpn: [] });
  });

  it("reads a hello without extensions", () => {
    const bytes = message({});
    const short = bytes.subarray(0, -2);
    short[3] = short.length - 4;

    expect(readClientHello(records(short, []))).toEqual({ state: "hello", ech: false, alpn: [] });
  });

  it("gives up after 64 KiB, whatever comes then", () => {
    const hello = message({ extensions: [[21, Array.from({ length: 65_000 }, () => 0)]] });
    const bytes = records(
      hello,
      Array.from({ length: 30_000 }, () => 1),
    );

    expect(readClientHello(bytes.subarray(0, 65_535))).toEqual(INCOMPLETE);
    expect(readClientHello(bytes.subarray(0, 65_536))).toMatchObject({ state: "refused" });
    expect(readClientHello(bytes)).toEqual(readClientHello(bytes.subarray(0, 65_536)));
  });

  it("never throws, and once it has an answer more bytes do not change it", () => {
    fc.assert(
      fc.property(anyBytes, (bytes) => {
        const answers = Array.from({ length: bytes.length + 1 }, (_, length) =>
          readClientHello(bytes.subarray(0, length)),
        );

        const first = answers.findIndex((answer) => answer.state !== "incomplete");
        const later = first === -1 ? [] : answers.slice(first);
        expect(later).toEqual(later.map(() => answers[first]));
      }),
      { numRuns: 1000 },
    );
  });

  it("reads nothing outside the bytes it is given", () => {
    fc.assert(
      fc.property(anyBytes, fc.uint8Array({ maxLength: 40 }), (bytes, around) => {
        const all = Uint8Array.of(...around, ...bytes, ...around);

        const view = all.subarray(around.length, around.length + bytes.length);
        expect(readClientHello(view)).toEqual(readClientHello(bytes));
      }),
    );
  });
});

function message({ extensions = [], version = [3, 3], ciphers = [0x13, 0x01], rest = [] }: Parts): Uint8Array {
  const body = [
    ...version,
    ...Array.from({ length: 32 }, () => 7),
    ...sized(1, []),
    ...sized(2, ciphers),
    ...sized(1, [0]),
    ...sized(
      2,
      extensions.flatMap(([type, value]) => [type >> 8, type & 255, ...sized(2, value)]),
    ),
    ...rest,
  ];
  return Uint8Array.from([1, ...sized(3, body)]);
}

/** The message in records of these sizes, and the rest in as few as it takes. */
function records(hello: Uint8Array, sizes: readonly number[]): Uint8Array {
  const bytes: number[] = [];
  let at = 0;
  for (const size of [...sizes, ...Array.from({ length: 6 }, () => 16_384)]) {
    if (at >= hello.length) break;
    bytes.push(22, 3, 1, ...sized(2, [...hello.subarray(at, at + size)]));
    at += size;
  }
  return Uint8Array.from(bytes);
}

function serverName(...names: string[]): number[] {
  return sized(
    2,
    names.flatMap((name) => [0, ...sized(2, [...new TextEncoder().encode(name)])]),
  );
}

function alpn(...protocols: string[]): number[] {
  return sized(
    2,
    protocols.flatMap((protocol) => sized(1, [...new TextEncoder().encode(protocol)])),
  );
}

function sized(width: number, bytes: readonly number[]): number[] {
  const length = Array.from({ length: width }, (_, index) => (bytes.length >> (8 * (width - 1 - index))) & 255);
  return [...length, ...bytes];
}

/** What a TLS client of Node sends before it hears anything. */
async function captured(options: ConnectionOptions): Promise<Uint8Array> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const accepted = once(server, "connection");
  const client = connect({ ...options, host: "127.0.0.1", port: (server.address() as AddressInfo).port });
  client.on("error", () => {});
  try {
    const [socket] = await accepted;
    const chunks: Buffer[] = [];
    for await (const chunk of socket) {
      chunks.push(chunk);
      if (readClientHello(Buffer.concat(chunks)).state !== "incomplete") break;
    }
    return Uint8Array.from(Buffer.concat(chunks));
  } finally {
    client.destroy();
    server.close();
  }
}
