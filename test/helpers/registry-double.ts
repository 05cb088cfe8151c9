import { createHash } from "node:crypto";
import type { IncomingMessage, ServerResponse } from "node:http";
import { crc32, gzipSync } from "node:zlib";
import { pack } from "tar-stream";
import type { UpstreamHandler } from "./upstreams.ts";

export interface TestPackage {
  name: string;
  version: string;
  /** What its module says. */
  text: string;
}

/** Serves one package as an npm registry does: metadata with integrity, and its tarball. */
export async function npmRegistry(one: TestPackage): Promise<UpstreamHandler> {
  const tarball = await npmTarball(one);
  const file = `${one.name}-${one.version}.tgz`;
  const integrity = `sha512-${createHash("sha512").update(tarball).digest("base64")}`;
  const shasum = createHash("sha1").update(tarball).digest("hex");
  return (request, response) => {
    const { pathname } = new URL(request.url ?? "/", "https://registry.test");
    if (pathname === `/${one.name}/-/${file}`) {
      return send(request, response, { body: tarball, type: "application/octet-stream" });
    }
    if (pathname !== `/${one.name}`) return false;
    const dist = { tarball: `https://${request.headers.host}/${one.name}/-/${file}`, shasum, integrity };
    const version = { name: one.name, version: one.version, main: "index.js", dist };
    const body = { name: one.name, "dist-tags": { latest: one.version }, versions: { [one.version]: version } };
    return send(request, response, { body: Buffer.from(JSON.stringify(body)), type: "application/json" });
  };
}

/** Serves one package as a simple index of Python packages does: a page of links with hashes, and the wheel. */
export function pythonIndex(one: TestPackage): UpstreamHandler {
  const wheel = pythonWheel(one);
  const file = `${one.name}-${one.version}-py3-none-any.whl`;
  const sha256 = createHash("sha256").update(wheel).digest("hex");
  return (request, response) => {
    const { pathname } = new URL(request.url ?? "/", "https://index.test");
    if (pathname === `/files/${file}`) {
      return send(request, response, { body: wheel, type: "application/octet-stream" });
    }
    if (pathname !== `/simple/${one.name}/`) return false;
    const page = `<!DOCTYPE html><html><body><a href="/files/${file}#sha256=${sha256}">${file}</a></body></html>`;
    return send(request, response, { body: Buffer.from(page), type: "text/html" });
  };
}

function send(
  request: IncomingMessage,
  response: ServerResponse,
  { body, type }: { body: Buffer; type: string },
): boolean {
  request.resume();
  response.writeHead(200, { "content-type": type, "content-length": body.length, etag: `"${crc32(body)}"` });
  response.end(request.method === "HEAD" ? undefined : body);
  return true;
}

async function npmTarball({ name, version, text }: TestPackage): Promise<Buffer> {
  const archive = pack();
  archive.entry({ name: "package/package.json" }, JSON.stringify({ name, version, main: "index.js" }));
  archive.entry({ name: "package/index.js" }, `module.exports = ${JSON.stringify(text)};\n`);
  archive.finalize();
  const chunks: Buffer[] = [];
  for await (const chunk of archive) chunks.push(Buffer.from(chunk as Uint8Array));
  return gzipSync(Buffer.concat(chunks));
}

function pythonWheel({ name, version, text }: TestPackage): Buffer {
  const dist = `${name}-${version}.dist-info`;
  const files = {
    [`${name}.py`]: `TEXT = ${JSON.stringify(text)}\n`,
    [`${dist}/METADATA`]: `Metadata-Version: 2.1\nName: ${name}\nVersion: ${version}\n`,
    [`${dist}/WHEEL`]: "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
  };
  const record = [...Object.keys(files), `${dist}/RECORD`].map((path) => `${path},,\n`).join("");
  return storedZip({ ...files, [`${dist}/RECORD`]: record });
}

/** A zip archive without compression: a wheel is nothing else. */
function storedZip(files: Readonly<Record<string, string>>): Buffer {
  const locals: Buffer[] = [];
  const centrals: Buffer[] = [];
  let offset = 0;
  for (const [path, text] of Object.entries(files)) {
    const [name, data] = [Buffer.from(path), Buffer.from(text)];
    const common = Buffer.alloc(26);
    common.writeUInt16LE(20, 0);
    common.writeUInt16LE(0x21, 8);
    common.writeUInt32LE(crc32(data), 10);
    common.writeUInt32LE(data.length, 14);
    common.writeUInt32LE(data.length, 18);
    common.writeUInt16LE(name.length, 22);
    const local = Buffer.concat([Buffer.from("PK\u0003\u0004"), common, name, data]);
    const tail = Buffer.alloc(14);
    tail.writeUInt32LE(offset, 10);
    centrals.push(Buffer.concat([Buffer.from("PK\u0001\u0002\u0014\u0000"), common, tail, name]));
    locals.push(local);
    offset += local.length;
  }
  const directory = Buffer.concat(centrals);
  const end = Buffer.alloc(18);
  end.writeUInt16LE(centrals.length, 4);
  end.writeUInt16LE(centrals.length, 6);
  end.writeUInt32LE(directory.length, 8);
  end.writeUInt32LE(offset, 12);
  return Buffer.concat([...locals, directory, Buffer.from("PK\u0005\u0006"), end]);
}
