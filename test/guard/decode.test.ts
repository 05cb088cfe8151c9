import * as fc from "fast-check";
import { randomBytes } from "node:crypto";
import * as zlib from "node:zlib";
import { describe, expect, it } from "vitest";
import { createDecoder, type Decoder } from "../../backends/guard/egress/decode.ts";

const ENCODERS: readonly [name: string, encode: (body: Uint8Array) => Buffer][] = [
  ["gzip", (body) => zlib.gzipSync(body)],
  ["x-gzip", (body) => zlib.gzipSync(body)],
  ["GZip", (body) => zlib.gzipSync(body)],
  ["deflate", (body) => zlib.deflateSync(body)],
  ["br", (body) => zlib.brotliCompressSync(body)],
  ["gzip, br", (body) => zlib.brotliCompressSync(zlib.gzipSync(body))],
  ["identity, gzip", (body) => zlib.gzipSync(body)],
];

describe("a decoder of request bodies", () => {
  it.each(ENCODERS)("decodes %s, wherever the body is cut", async (name, encode) => {
    await fc.assert(
      fc.asyncProperty(
        fc.uint8Array({ minLength: 1, maxLength: 3_000 }),
        fc.integer({ min: 1, max: 500 }),
        async (body, size) => {
          expect((await decodeAll(decoderFor(name), cut(encode(body), size))).equals(Buffer.from(body))).toBe(true);
        },
      ),
      { numRuns: 25 },
    );
  });

  it.each(ENCODERS)("gives back with each piece of %s what that piece holds", async (name) => {
    const decoder = decoderFor(name);
    const text = randomBytes(30_000).toString("base64");
    const { stream, written } = flushing(name);
    let decoded = 0;
    for (let at = 0; at < text.length; at += 10_000) {
      const piece = await written(text.slice(at, at + 10_000));
      for (const part of (await decoder.push(piece)).at(-1) ?? []) decoded += part.length;
      expect(decoded).toBe(Math.min(text.length, at + 10_000));
    }
    stream.destroy();
  });

  it.each(["compress", "gzip, gzip, gzip", "exi", "aes128gcm", "gzip;q=1", "none"])(
    "knows nothing of %s",
    (encoding) => {
      expect(createDecoder(encoding)).toBeUndefined();
    },
  );

  it("decodes zstd where Node can", async () => {
    const compress: unknown = Reflect.get(zlib, "zstdCompressSync");
    if (typeof compress !== "function") return expect(createDecoder("zstd")).toBeUndefined();
    const body = Buffer.from("zstandard");
    expect(await decodeAll(decoderFor("zstd"), [compress(body) as Buffer])).toEqual(body);
  });

  it.each([
    ["is not what it says", "gzip", Buffer.from("plain text")],
    ["is raw deflate", "deflate", zlib.deflateRawSync("raw deflate")],
    ["ends too early", "gzip", zlib.gzipSync(randomBytes(500)).subarray(0, -20)],
    ["has text behind its end", "gzip", Buffer.concat([zlib.gzipSync("a"), Buffer.from("the secret")])],
    ["has text behind zeros behind its end", "gzip", Buffer.concat([zlib.gzipSync("a"), Buffer.from("\0\0secret")])],
    ["has text behind its end", "deflate", Buffer.concat([zlib.deflateSync("a"), Buffer.from("the secret")])],
    ["has text behind its end", "br", Buffer.concat([zlib.brotliCompressSync("a"), Buffer.from("the secret")])],
    [
      "has text behind the end of its inner layer",
      "gzip, br",
      zlib.brotliCompressSync(Buffer.concat([zlib.gzipSync("a"), Buffer.from("the secret")])),
    ],
  ])("refuses a body that %s (%s)", async (_, encoding, body) => {
    for (const size of [1, 7, body.length]) {
      await expect(decodeAll(decoderFor(encoding), cut(body, size)), `pieces of ${size}`).rejects.toThrow();
    }
  });

  it("decodes members of gzip one after the other", async () => {
    const members = [zlib.gzipSync("one "), zlib.gzipSync("two")];
    for (const chunks of [members, [Buffer.concat(members)], cut(Buffer.concat(members), 1)]) {
      expect((await decodeAll(decoderFor("gzip"), chunks)).toString()).toBe("one two");
    }
  });

  it.each([
    ["gzip", zlib.gzipSync(Buffer.alloc(64 * 1024 * 1024))],
    [
      "br",
      zlib.brotliCompressSync(Buffer.alloc(64 * 1024 * 1024), { params: { [zlib.constants.BROTLI_PARAM_QUALITY]: 1 } }),
    ],
  ])("refuses a bomb of %s before it has grown", async (encoding, bomb) => {
    const decoder = decoderFor(encoding);
    await expect(decodeAll(decoder, [bomb])).rejects.toThrow("far more than it is");
    // Once refused it stays refused.
    await expect(decoder.push(Buffer.from("x"))).rejects.toThrow("far more than it is");
  });

  it("decodes nothing to nothing", async () => {
    expect((await decodeAll(decoderFor("gzip"), [])).length).toBe(0);
  });
});

function decoderFor(encoding: string): Decoder {
  const decoder = createDecoder(encoding);
  if (decoder === undefined) throw new Error(`there is no decoder for "${encoding}"`);
  return decoder;
}

async function decodeAll(decoder: Decoder, chunks: readonly Uint8Array[]): Promise<Buffer> {
  const out: Uint8Array[] = [];
  for (const chunk of chunks) out.push(...((await decoder.push(chunk)).at(-1) ?? []));
  out.push(...((await decoder.end()).at(-1) ?? []));
  return Buffer.concat(out);
}

function cut(body: Buffer, size: number): Buffer[] {
  return Array.from({ length: Math.ceil(body.length / size) }, (_, index) =>
    body.subarray(index * size, (index + 1) * size),
  );
}

/** A compressor that gives out all it has after each piece of text, as a client does that sends events. */
function flushing(name: string): { stream: { destroy(): void }; written(text: string): Promise<Buffer> } {
  const layers = name.split(", ").map((layer) => {
    if (layer === "identity") return undefined;
    if (layer === "br") return zlib.createBrotliCompress();
    return layer === "deflate" ? zlib.createDeflate() : zlib.createGzip();
  });
  return {
    stream: { destroy: () => layers.forEach((layer) => layer?.destroy()) },
    async written(text) {
      let piece: Buffer = Buffer.from(text);
      for (const layer of layers) if (layer !== undefined) piece = await through(layer, piece);
      return piece;
    },
  };
}

async function through(stream: zlib.Gzip | zlib.BrotliCompress, piece: Uint8Array): Promise<Buffer> {
  const out: Buffer[] = [];
  const collect = (chunk: Buffer) => out.push(chunk);
  stream.on("data", collect);
  await new Promise<void>((resolve) => void stream.write(piece, () => stream.flush(() => resolve())));
  stream.off("data", collect);
  return Buffer.concat(out);
}
