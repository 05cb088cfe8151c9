import { posix } from "node:path";
import { Readable } from "node:stream";
import { rootCertificates } from "node:tls";
import tar from "tar-stream";
import { CA_BUNDLE_FILE, CA_FILE, HOME, TRUST_DIR } from "../ports/backend.ts";

/** The public authorities that come with Node, as one file: its hundred and forty parts are joined once. */
const PUBLIC_ROOTS = `${rootCertificates.join("\n")}\n`;

/** An archive to be unpacked in the agent's home: what its programs need to trust a guard. Everybody may read it, and nothing in it is secret. */
export function trustArchive(caCertificate: string): Readable {
  const authority = `${caCertificate.trimEnd()}\n`;
  const pack = tar.pack();
  pack.entry({ name: `${inHome(TRUST_DIR)}/`, type: "directory", mode: 0o755 });
  pack.entry({ name: inHome(CA_FILE), mode: 0o644 }, authority);
  pack.entry({ name: inHome(CA_BUNDLE_FILE), mode: 0o644 }, PUBLIC_ROOTS + authority);
  pack.finalize();
  return Readable.from(pack);
}

function inHome(path: string): string {
  return posix.relative(HOME, path);
}
