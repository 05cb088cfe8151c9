import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { networkInterfaces } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { BackendError } from "../controller/ports/backend.ts";

/** What a person decides about every guard of this installation. */
export interface GuardOptions {
  /** Name servers that guards ask, `ADDRESS` or `ADDRESS:PORT`. Absent: those of the host. */
  guardDns?: readonly string[] | undefined;
  /** A PEM file on this host with authorities that guards trust beside the public ones: a company's, or a test's. */
  guardUpstreamCa?: string | undefined;
}

/** Where the guard program finds what in its own file system. */
export interface GuardPlaces {
  sockets: string;
  /** For the guard alone. */
  audit: string;
  control: "stdio" | "socket";
  /** Present: a PEM file. */
  upstreamCa?: string | undefined;
}

/** A command line has an end; the first ones are those of the machine itself. */
const HOST_ADDRESSES_MAX = 32;

/** The guard's part of its command line. No secret is in it: others may list it. */
export function guardArguments(places: GuardPlaces, dns: readonly string[]): string[] {
  return [
    "guard",
    "--sockets",
    places.sockets,
    "--control",
    places.control,
    "--audit",
    places.audit,
    ...hostArguments(),
    ...dns.flatMap((server) => ["--dns", server]),
    ...(places.upstreamCa === undefined ? [] : ["--upstream-ca", places.upstreamCa]),
  ];
}

export function holderArguments(sockets: string): string[] {
  return ["holder", "--sockets", sockets, ...hostArguments()];
}

function hostArguments(): string[] {
  return hostAddresses().flatMap((address) => ["--host-address", address]);
}

/**
 * Addresses under which this host can be reached: the guard dials none that no CIDR of a rule names, and the probe proves that none is in reach. Those of one
 * link (fe80::) are left out: they mean nothing without the name of an interface, and no request can carry that.
 */
function hostAddresses(): string[] {
  const found = Object.values(networkInterfaces())
    .flatMap((addresses) => addresses ?? [])
    .filter(({ internal, address }) => !internal && !/^fe[89ab]/i.test(address));
  return [...new Set(found.map(({ address }) => address))].slice(0, HOST_ADDRESSES_MAX);
}

/** The folder of the guard program: in the build's own folder, and where tests run from sources in the folder of the build. */
export function builtGuardProgram(): { dir: string; isBuilt: boolean } {
  const [built = "", beside = ""] = ["../guard", "../.build/guard"].map((path) =>
    fileURLToPath(new URL(path, import.meta.url)),
  );
  const dir = existsSync(join(beside, "main.js")) ? beside : built;
  return { dir, isBuilt: existsSync(join(dir, "main.js")) };
}

const PEM_BYTES_MAX = 4 * 1024 * 1024;

/** The text of a PEM file that a person named in `guardUpstreamCa`. */
export async function readUpstreamCa(path: string): Promise<string> {
  const unusable = (why: string, cause?: unknown) => {
    const message = `cannot give guards the authorities in "${path}": ${why}; name a PEM file with certificates`;
    return new BackendError("Invalid", "UpstreamCaUnusable", message, { cause });
  };
  const text = await readFile(path, "utf8").catch((error: unknown) => {
    const code = error instanceof Error && "code" in error ? String(error.code) : "unknown error";
    throw unusable(`it cannot be read (${code})`, error);
  });
  if (text.length > PEM_BYTES_MAX) throw unusable(`it has more than ${PEM_BYTES_MAX} bytes`);
  if (!text.includes("-----BEGIN CERTIFICATE-----")) throw unusable("there is no certificate in it");
  return text;
}
