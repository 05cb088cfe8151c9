import type { Admitted } from "./decide.ts";
import { BUDGET_SPENT, dlpReason } from "./decide.ts";
import { bodyLength, readBody, type BodyReader } from "./body-reader.ts";
import type { Incoming } from "./egress.ts";
import type { Exchange } from "./exchange.ts";
import { createInspection, Uninspectable, type Inspection } from "./inspection.ts";
import { refused, type Refused } from "./respond.ts";

/** A body on its way out. */
export interface UploadBody {
  content: Buffer | AsyncIterable<Buffer> | null;
  /** Absent: it is not known, or the content knows it. */
  length?: number;
}

/** So much of a body is looked into before anybody is dialled: most bodies end within it, and then nothing of a refused one has left. */
export const HELD_BYTES_MAX = 1024 * 1024;
/** Of all bodies together; beyond it bodies are scanned while they stream. */
const HELD_TOTAL_MAX = 64 * 1024 * 1024;

/** Ends a body that must not go on; what is told of it was told already. */
class Stopped extends Error {
  constructor() {
    super("the request was refused in the middle of its body");
    this.name = "Stopped";
  }
}

/**
 * Makes a body ready to be sent, or refuses its exchange and gives nothing. Short bodies are read and scanned whole; long ones are released
 * behind the scan, which then may end the request in the middle.
 */
export async function prepareUpload(
  exchange: Exchange,
  admitted: Admitted,
  request: Incoming,
): Promise<UploadBody | undefined> {
  const length = bodyLength(request) ?? 0;
  const reader = readBody(request);
  exchange.onStop(() => reader.stop());
  const upload: Upload = { exchange, admitted, reader, request };
  const known = length === -1 ? {} : { length };
  if (admitted.settings.source.dlp === "Off") return { content: passUnread(upload), ...known };
  if (length > HELD_BYTES_MAX) return { content: passScanned(upload, []), ...known };
  const { load } = exchange.egress;
  let bytes = 0;
  exchange.onStop(() => void (load.heldBytes -= bytes));
  const chunks: Buffer[] = [];
  while (bytes <= HELD_BYTES_MAX && load.heldBytes < HELD_TOTAL_MAX) {
    const chunk = await take(upload);
    if (exchange.ended()) return undefined;
    if (chunk === undefined) return scanned(upload, Buffer.concat(chunks));
    chunks.push(chunk);
    bytes += chunk.length;
    load.heldBytes += chunk.length;
  }
  return { content: passScanned(upload, chunks), ...known };
}

interface Upload {
  exchange: Exchange;
  admitted: Admitted;
  reader: BodyReader;
  request: Incoming;
}

/** The next chunk, after it was paid for. */
async function take({ exchange, admitted, reader }: Upload): Promise<Buffer | undefined> {
  const chunk = await reader.next();
  if (chunk === undefined || exchange.ended()) return undefined;
  const { egress, entry } = exchange;
  const settings = egress.settings.current() ?? admitted.settings;
  if (!egress.budget.take(settings, entry.host, chunk.length)) {
    exchange.refuse(refused("budget", BUDGET_SPENT));
    return undefined;
  }
  entry.bytesUp += chunk.length;
  return chunk;
}

async function scanned(upload: Upload, content: Buffer): Promise<UploadBody | undefined> {
  const inspection = inspect(upload);
  try {
    await inspection.push(content);
    await inspection.end();
  } catch (error) {
    upload.exchange.refuse(refusalOf(error));
    return undefined;
  }
  return upload.exchange.ended() ? undefined : { content };
}

async function* passUnread(upload: Upload): AsyncGenerator<Buffer> {
  for (let chunk = await take(upload); chunk !== undefined; chunk = await take(upload)) yield chunk;
  if (upload.exchange.ended()) throw new Stopped();
}

async function* passScanned(upload: Upload, first: readonly Buffer[]): AsyncGenerator<Buffer> {
  const { exchange } = upload;
  const inspection = inspect(upload);
  try {
    for (const chunk of first) yield* await inspection.push(chunk);
    for (let chunk = await take(upload); chunk !== undefined; chunk = await take(upload))
      yield* await inspection.push(chunk);
    if (!exchange.ended()) yield* await inspection.end();
  } catch (error) {
    exchange.refuse(refusalOf(error));
  }
  // A body that only seemed to end would be taken for the whole by a host that was told no length.
  if (exchange.ended()) throw new Stopped();
}

function inspect({ exchange, admitted, request }: Upload): Inspection {
  return createInspection({
    settings: admitted.settings,
    encoding: String(request.headers["content-encoding"] ?? ""),
    uninspected: admitted.matched.rule.uninspected,
    found(findings) {
      exchange.entry.dlp = [...new Set([...exchange.entry.dlp, ...findings])];
      if (findings.some((finding) => admitted.isRefused(finding))) throw new Found(findings);
    },
  });
}

class Found extends Error {
  readonly findings: readonly string[];

  constructor(findings: readonly string[]) {
    super("the body carries what must not leave");
    this.name = "Found";
    this.findings = findings;
  }
}

function refusalOf(error: unknown): Refused {
  if (error instanceof Found) return refused("dlp", dlpReason(error.findings));
  if (error instanceof Uninspectable) return refused("uninspectable", error.message);
  throw error;
}
