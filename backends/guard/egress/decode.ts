import type { Transform } from "node:stream";
import { setImmediate } from "node:timers/promises";
import * as zlib from "node:zlib";

/** Decodes a body for the scan while the body itself goes on as it came. Both throw for a body that cannot be looked into, with the reason. */
export interface Decoder {
  layers: number;
  /**
   * All that each layer decodes to so far and that was not given back yet, the outermost first; the last is the body itself. One call at a time.
   */
  push(chunk: Uint8Array): Promise<Uint8Array[][]>;
  /** Call once, after the last piece. */
  end(): Promise<Uint8Array[][]>;
}

type Stage = Transform & { bytesWritten: number };

/** `gzip` of `br` happens by accident; more layers are a way to hide. */
const LAYERS_MAX = 2;
/** What is small may be as dense as it likes; beyond that, text is seldom packed to a twentieth of its size. */
const FREE_BYTES = 1024 * 1024;
const RATIO_MAX = 100;
const DECODED_BYTES_MAX = 1024 * 1024 * 1024;

/** For the value of a Content-Encoding that is not `identity`; `undefined` for one that this guard cannot read. */
export function createDecoder(encoding: string): Decoder | undefined {
  const names = encoding
    .split(",")
    .map((name) => name.trim().toLowerCase())
    .filter((name) => name !== "" && name !== "identity");
  if (names.length > LAYERS_MAX) return undefined;
  // The last one was put on last, so it comes off first.
  const stages = names.toReversed().map(stageFor);
  const known = stages.filter((stage) => stage !== undefined);
  if (known.length < stages.length) return undefined;
  const size = { encoded: 0, decoded: 0 };
  const layers = known.map((stage) => createLayer(stage, size));
  return {
    layers: layers.length,
    async push(chunk) {
      size.encoded += chunk.length;
      const decoded: Uint8Array[][] = [];
      for (const layer of layers) decoded.push(await layer.decode(decoded.at(-1) ?? [chunk]));
      return decoded;
    },
    async end() {
      const decoded: Uint8Array[][] = [];
      for (const layer of layers) {
        decoded.push([...(await layer.decode(decoded.at(-1) ?? [])), ...(await layer.finish())]);
      }
      return decoded;
    },
  };
}

function stageFor(name: string): Stage | undefined {
  // Without this, inflate may keep back what it has decoded already, and the piece would be let go before that was scanned.
  const options = { finishFlush: zlib.constants.Z_FINISH, flush: zlib.constants.Z_SYNC_FLUSH };
  if (name === "gzip" || name === "x-gzip") return zlib.createGunzip(options);
  if (name === "deflate") return zlib.createInflate(options);
  if (name === "br") return zlib.createBrotliDecompress();
  return name === "zstd" ? createZstd() : undefined;
}

/** Node has it since 22.15. */
function createZstd(): Stage | undefined {
  const create: unknown = Reflect.get(zlib, "createZstdDecompress");
  return typeof create === "function" ? (create() as Stage) : undefined;
}

interface Layer {
  decode(pieces: readonly Uint8Array[]): Promise<Uint8Array[]>;
  finish(): Promise<Uint8Array[]>;
}

function createLayer(stage: Stage, size: { encoded: number; decoded: number }): Layer {
  const state: { out: Buffer[]; fed: number; failure?: Error } = { out: [], fed: 0 };
  // A stage that is destroyed calls nobody back.
  const closed = new Promise<void>((resolve) => void stage.once("close", resolve));
  stage.on("error", (error) => (state.failure ??= new Error(`it does not decode (${codeOf(error)})`)));
  stage.on("data", (piece: Buffer) => {
    state.out.push(piece);
    size.decoded += piece.length;
    if (!isTooDense(size)) return;
    state.failure ??= new Error("it decodes to far more than it is");
    stage.destroy();
  });

  async function settled(act: (done: () => void) => void): Promise<void> {
    if (state.failure === undefined) await Promise.race([closed, new Promise<void>(act)]);
    if (state.failure !== undefined) throw state.failure;
  }

  /** Waits for what was decoded to arrive here: a stream may hand it over after it has called back. */
  async function taken(): Promise<Uint8Array[]> {
    while (state.failure === undefined && stage.readableLength > 0) await setImmediate();
    if (state.failure !== undefined) throw state.failure;
    return state.out.splice(0);
  }

  return {
    async decode(pieces) {
      for (const piece of pieces) {
        state.fed += piece.length;
        if (stage.readableEnded) throw new Error(TRAILING);
        await settled((done) => stage.write(piece, () => done()));
      }
      return taken();
    },
    async finish() {
      if (state.fed === 0) return [];
      await settled((done) => (stage.readableEnded ? done() : stage.once("end", done).end()));
      if (stage.bytesWritten < state.fed) throw new Error(TRAILING);
      return taken();
    },
  };
}

/** Behind the end of a compressed stream anything may stand, and a decoder does not read it. */
const TRAILING = "bytes follow the end of what is encoded";

function isTooDense({ encoded, decoded }: { encoded: number; decoded: number }): boolean {
  return decoded > DECODED_BYTES_MAX || decoded > FREE_BYTES + RATIO_MAX * encoded;
}

/** Messages of libraries may quote what they read; codes do not. */
function codeOf(error: Error): string {
  return "code" in error && typeof error.code === "string" ? error.code : error.name;
}
