import type { Readable } from "node:stream";

export interface Frame {
  stream: "stdout" | "stderr";
  data: Buffer;
}

const HEADER_BYTES = 8;
const STDERR = 2;

/** Takes the engine's frames apart: stream number, three zero bytes, length as 32 bits. A frame larger than a chunk is passed on in pieces. */
export async function* demultiplex(source: AsyncIterable<unknown> | Readable): AsyncGenerator<Frame> {
  let pending: Buffer = Buffer.alloc(0);
  let left = 0;
  let stream: Frame["stream"] = "stdout";
  for await (const chunk of source) {
    pending = pending.length === 0 ? toBuffer(chunk) : Buffer.concat([pending, toBuffer(chunk)]);
    while (left > 0 ? pending.length > 0 : pending.length >= HEADER_BYTES) {
      if (left === 0) {
        stream = pending.readUInt8(0) === STDERR ? "stderr" : "stdout";
        left = pending.readUInt32BE(4);
        pending = pending.subarray(HEADER_BYTES);
        continue;
      }
      const data = pending.subarray(0, left);
      pending = pending.subarray(data.length);
      left -= data.length;
      yield { stream, data };
    }
  }
}

function toBuffer(chunk: unknown): Buffer {
  return Buffer.isBuffer(chunk) ? chunk : Buffer.from(String(chunk));
}
