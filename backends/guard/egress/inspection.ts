import { createScan, type ScanStep } from "../../../controller/policy/dlp/index.ts";
import type { ActiveSettings } from "../settings.ts";
import { createDecoder, type Decoder } from "./decode.ts";

/** A body that the policy wants looked into and that cannot be. */
export class Uninspectable extends Error {
  constructor(why: string) {
    super(`the body cannot be looked into: ${why}`);
    this.name = "Uninspectable";
  }
}

/** Looks into a body on its way: gives back what may go on, which is what came, later. Throws what `found` throws, and Uninspectable. */
export interface Inspection {
  push(chunk: Buffer): Promise<Buffer[]>;
  end(): Promise<Buffer[]>;
}

interface InspectionOptions {
  settings: ActiveSettings;
  /** The Content-Encoding of the body. */
  encoding: string;
  uninspected: "Refuse" | "Allow";
  /** Throws to end the body. */
  found(findings: readonly string[]): void;
}

export function createInspection(options: InspectionOptions): Inspection {
  const { settings, encoding, found } = options;
  const blocks = settings.source.dlp === "Block";
  const heard = ({ findings, release }: ScanStep): Uint8Array[] => {
    if (findings.length > 0) found(findings);
    return release;
  };
  const createScanned = (): Scanned => {
    const scan = createScan(settings.dlp, { mode: blocks ? "Block" : "Audit" });
    return { push: (chunk) => heard(scan.push(chunk)), end: () => heard(scan.end()) };
  };
  const plain = createScanned();
  if (/^\s*(identity\s*)?$/i.test(encoding)) {
    return { push: async (chunk) => plain.push(chunk).map(asBuffer), end: async () => plain.end().map(asBuffer) };
  }
  const decoder = createDecoder(encoding);
  const mayPass = !blocks || options.uninspected === "Allow";
  if (decoder !== undefined) return decoding(decoder, { createScanned, mayPass });
  if (mayPass) return { push: async (chunk) => [chunk], end: async () => [] };
  const why = `its encoding is none that the guard knows`;
  return { push: () => Promise.reject(new Uninspectable(why)), end: () => Promise.reject(new Uninspectable(why)) };
}

interface Scanned {
  push(chunk: Uint8Array): Uint8Array[];
  end(): Uint8Array[];
}

/**
 * What is scanned is the body as it came, which may carry plain bytes that no decoder gives back (names and comments of gzip, frames of zstd and
 * brotli that are to be skipped), and what each layer decodes to. What goes on is the body as it came: a piece is let go when all that was read
 * of it has been released. A body that does not decode cannot be looked into any further.
 */
function decoding(
  decoder: Decoder,
  { createScanned, mayPass }: { createScanned(): Scanned; mayPass: boolean },
): Inspection {
  const waiting: { chunk: Buffer; ends: number[] }[] = [];
  const readings = Array.from({ length: decoder.layers + 1 }, () => ({ scan: createScanned(), read: 0, released: 0 }));
  let unread = false;
  const look = (layer: number, pieces: readonly Uint8Array[]): void => {
    const reading = readings[layer];
    if (reading === undefined) return;
    for (const piece of pieces) {
      reading.read += piece.length;
      reading.released += bytesOf(reading.scan.push(piece));
    }
  };
  const isHeld = (end: number, layer: number): boolean => end > (readings[layer]?.released ?? 0);
  const free = (): Buffer[] => {
    const kept = waiting.findIndex(({ ends }) => ends.some(isHeld));
    return waiting.splice(0, kept === -1 ? waiting.length : kept).map(({ chunk }) => chunk);
  };
  const decode = async (pieces: () => Promise<Uint8Array[][]>): Promise<void> => {
    if (unread) return;
    let decoded: Uint8Array[][] = [];
    try {
      decoded = await pieces();
    } catch (error) {
      if (!mayPass) throw new Uninspectable(error instanceof Error ? error.message : "it does not decode");
      unread = true;
      for (const reading of readings.slice(1)) reading.released = reading.read;
    }
    for (const [at, layer] of decoded.entries()) look(at + 1, layer);
  };
  return {
    async push(chunk) {
      look(0, [chunk]);
      await decode(() => decoder.push(chunk));
      waiting.push({ chunk, ends: readings.map(({ read }) => read) });
      return free();
    },
    async end() {
      await decode(() => decoder.end());
      for (const reading of readings) {
        reading.scan.end();
        reading.released = reading.read;
      }
      return free();
    },
  };
}

function bytesOf(pieces: readonly Uint8Array[]): number {
  return pieces.reduce((sum, piece) => sum + piece.length, 0);
}

function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
