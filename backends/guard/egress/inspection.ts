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
  const scan = createScan(settings.dlp, { mode: blocks ? "Block" : "Audit" });
  const heard = ({ findings, release }: ScanStep): Uint8Array[] => {
    if (findings.length > 0) found(findings);
    return release;
  };
  const plain: Inspection = {
    push: async (chunk) => heard(scan.push(chunk)).map(asBuffer),
    end: async () => heard(scan.end()).map(asBuffer),
  };
  if (/^\s*(identity\s*)?$/i.test(encoding)) return plain;
  const decoder = createDecoder(encoding);
  const mayPass = !blocks || options.uninspected === "Allow";
  if (decoder !== undefined)
    return decoding(decoder, { push: (chunk) => heard(scan.push(chunk)), end: () => heard(scan.end()), mayPass });
  if (mayPass) return { push: async (chunk) => [chunk], end: async () => [] };
  const why = `its encoding is none that the guard knows`;
  return { push: () => Promise.reject(new Uninspectable(why)), end: () => Promise.reject(new Uninspectable(why)) };
}

interface Scanned {
  push(chunk: Uint8Array): Uint8Array[];
  end(): Uint8Array[];
  mayPass: boolean;
}

/**
 * What is scanned is the decoded body, what goes on is the encoded one: a piece is let go when all that it decodes to has been released. A body
 * that does not decode cannot be looked into any further.
 */
function decoding(decoder: Decoder, scan: Scanned): Inspection {
  const waiting: { chunk: Buffer; decodedEnd: number }[] = [];
  let decoded = 0;
  let released = 0;
  let unread = false;
  const look = (pieces: readonly Uint8Array[]): void => {
    for (const piece of pieces) {
      decoded += piece.length;
      released += bytesOf(scan.push(piece));
    }
  };
  const free = (): Buffer[] => {
    const kept = waiting.findIndex(({ decodedEnd }) => !unread && decodedEnd > released);
    return waiting.splice(0, kept === -1 ? waiting.length : kept).map(({ chunk }) => chunk);
  };
  const decode = async (pieces: () => Promise<Uint8Array[]>): Promise<Uint8Array[]> => {
    if (unread) return [];
    try {
      return await pieces();
    } catch (error) {
      if (!scan.mayPass) throw new Uninspectable(error instanceof Error ? error.message : "it does not decode");
      unread = true;
      return [];
    }
  };
  return {
    async push(chunk) {
      look(await decode(() => decoder.push(chunk)));
      waiting.push({ chunk, decodedEnd: decoded });
      return free();
    },
    async end() {
      look(await decode(() => decoder.end()));
      released += bytesOf(scan.end());
      released = decoded;
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
