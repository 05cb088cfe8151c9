import { createHash } from "node:crypto";
import type { IncomingMessage, ServerResponse } from "node:http";
import { setTimeout as wait } from "node:timers/promises";
import { brotliCompressSync, gzipSync } from "node:zlib";

const BLOCK_BYTES = 64 * 1024;
const REDIRECT_STATUS = 302;

type Route = (request: IncomingMessage, response: ServerResponse, url: URL) => void | Promise<void>;

/**
 * What every upstream answers:
 * /headers — the request's headers as JSON · /echo — the body as it comes · /upload — its length and SHA-256 ·
 * /events?n=8&ms=20 — server-sent events, each with the time it was sent · /bytes?n=1000 — so many bytes, with ETag and Range ·
 * /gzip, /br — compressed JSON · /negotiated — the same, compressed if the client says that it can read it · /redirect?to=URL · /slow?ms=100 — an answer after a while · /status?code=404.
 */
export function answerRoute(request: IncomingMessage, response: ServerResponse): void {
  const url = new URL(request.url ?? "/", "https://upstream.test");
  const route = Object.hasOwn(ROUTES, url.pathname) ? ROUTES[url.pathname] : undefined;
  response.on("error", () => response.destroy());
  void Promise.resolve((route ?? answerOk)(request, response, url)).catch(() => response.destroy());
}

const ROUTES: Readonly<Record<string, Route>> = {
  "/headers": (request, response) => sendJson(response, request.headers),
  "/echo": (request, response) => {
    response.writeHead(200, { "content-type": request.headers["content-type"] ?? "application/octet-stream" });
    request.pipe(response);
  },
  "/upload": sendDigest,
  "/events": sendEvents,
  "/bytes": sendBytes,
  "/gzip": (_request, response) => sendCompressed(response, { encoding: "gzip", compress: gzipSync }),
  "/br": (_request, response) => sendCompressed(response, { encoding: "br", compress: brotliCompressSync }),
  "/negotiated": (request, response) => {
    const accepted = String(request.headers["accept-encoding"] ?? "");
    if (accepted.includes("gzip")) sendCompressed(response, { encoding: "gzip", compress: gzipSync });
    else sendJson(response, { encoding: "identity" });
  },
  "/redirect": (_request, response, url) => {
    response.writeHead(REDIRECT_STATUS, { location: url.searchParams.get("to") ?? "/", "content-length": "0" }).end();
  },
  "/slow": async (_request, response, url) => {
    await wait(number(url, "ms", 100));
    sendJson(response, { slow: true });
  },
  "/status": (request, response, url) => {
    request.resume();
    response.writeHead(number(url, "code", 200), { "content-type": "text/plain" }).end("status\n");
  },
};

function answerOk(request: IncomingMessage, response: ServerResponse): void {
  // Answers when the body is there: what a test asks of it afterwards is then complete.
  request.resume().on("end", () => {
    response.writeHead(200, { "content-type": "text/plain", "content-length": "3" }).end("ok\n");
  });
}

async function sendDigest(request: IncomingMessage, response: ServerResponse): Promise<void> {
  const hash = createHash("sha256");
  let bytes = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    bytes += chunk.length;
    hash.update(chunk);
  }
  sendJson(response, { bytes, sha256: hash.digest("hex") });
}

async function sendEvents(_request: IncomingMessage, response: ServerResponse, url: URL): Promise<void> {
  const [count, ms] = [number(url, "n", 8), number(url, "ms", 20)];
  response.writeHead(200, { "content-type": "text/event-stream", "cache-control": "no-store" });
  response.flushHeaders();
  for (let n = 1; n <= count && !response.destroyed; n += 1) {
    response.write(`id: ${n}\ndata: ${JSON.stringify({ n, sentMs: performance.timeOrigin + performance.now() })}\n\n`);
    if (n < count) await wait(ms);
  }
  response.end();
}

/** As a package index serves its files: a strong ETag, ranges, 304 and 416. */
async function sendBytes(request: IncomingMessage, response: ServerResponse, url: URL): Promise<void> {
  const total = number(url, "n", 1000);
  const etag = `"bytes-${total}"`;
  const common = { etag, "accept-ranges": "bytes", "content-type": "application/octet-stream" };
  if (request.headers["if-none-match"] === etag) return void response.writeHead(304, common).end();
  const range = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? "");
  const first = Number(range?.[1] ?? 0);
  const last = Math.min(range?.[2] ? Number(range[2]) : total - 1, total - 1);
  if (range !== null && first > last) {
    return void response.writeHead(416, { ...common, "content-range": `bytes */${total}` }).end();
  }
  const length = String(last - first + 1);
  if (range === null) response.writeHead(200, { ...common, "content-length": length });
  else {
    response.writeHead(206, {
      ...common,
      "content-length": length,
      "content-range": `bytes ${first}-${last}/${total}`,
    });
  }
  if (request.method === "HEAD") return void response.end();
  for (let at = first; at <= last && !response.destroyed; at += BLOCK_BYTES) {
    if (!response.write(patternBytes(at, Math.min(BLOCK_BYTES, last + 1 - at)))) await drained(response);
  }
  response.end();
}

/** Byte n of the file is n modulo 251, so that a misplaced range shows. */
export function patternBytes(first: number, length: number): Buffer {
  const start = first % 251;
  return PATTERN.subarray(start, start + length);
}
const PATTERN = Buffer.from(Uint8Array.from({ length: BLOCK_BYTES + 251 }, (_, n) => n % 251));

function drained(response: ServerResponse): Promise<void> {
  return new Promise((resolve) => {
    const done = (): void => {
      response.off("drain", done).off("close", done);
      resolve();
    };
    response.once("drain", done).once("close", done);
  });
}

function sendCompressed(
  response: ServerResponse,
  options: { encoding: string; compress: (text: string) => Buffer },
): void {
  const body = options.compress(JSON.stringify({ encoding: options.encoding, text: "compressed ".repeat(100) }));
  response.writeHead(200, {
    "content-type": "application/json",
    "content-encoding": options.encoding,
    "content-length": body.length,
  });
  response.end(body);
}

function sendJson(response: ServerResponse, value: unknown): void {
  const body = JSON.stringify(value);
  response.writeHead(200, { "content-type": "application/json", "content-length": Buffer.byteLength(body) }).end(body);
}

function number(url: URL, name: string, otherwise: number): number {
  const value = Number(url.searchParams.get(name) ?? otherwise);
  return Number.isFinite(value) ? value : otherwise;
}
