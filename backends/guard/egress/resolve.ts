import { Resolver as DnsResolver } from "node:dns/promises";
import { readFile } from "node:fs/promises";
import { parseAddress, type Address } from "../../../controller/policy/address.ts";

/** Looks names up. Only what a rule allowed is ever asked: a question for a name is bytes that leave. */
export interface Resolver {
  /** All addresses of a canonical name, in no order; throws a ResolveError. Takes 5 s at most. */
  resolve(host: string, signal?: AbortSignal): Promise<Address[]>;
}

/** `NotFound`: the name has no address. `Failed`: nobody could be asked, which may be better in a moment. */
export class ResolveError extends Error {
  readonly kind: "NotFound" | "Failed";

  constructor(kind: "NotFound" | "Failed", message: string) {
    super(message);
    this.name = "ResolveError";
    this.kind = kind;
  }
}

const LOOKUP_MS_MAX = 5_000;
const QUERY_MS_MAX = 2_000;
const QUERY_TRIES = 2;
const HOSTS_FILE = "/etc/hosts";

/**
 * `dns`: servers as `ADDRESS` or `ADDRESS:PORT`; absent: those of the machine, and names of `/etc/hosts` come first. One lookup is one
 * question for A and one for AAAA; nothing is remembered, so the address that is checked is as fresh as the connection. No search domain is
 * ever added: what was decided is what is asked.
 */
export function createResolver({
  dns,
  hostsFile = HOSTS_FILE,
}: { dns?: readonly string[]; hostsFile?: string } = {}): Resolver {
  return {
    async resolve(host, signal) {
      if (dns === undefined) {
        const written = addressesIn(await readHosts(hostsFile), host);
        if (written.length > 0) return written;
      }
      return ask(host, dns, signal);
    },
  };
}

async function ask(host: string, dns: readonly string[] | undefined, signal?: AbortSignal): Promise<Address[]> {
  // One for each lookup, because cancelling it cancels everything it does.
  const resolver = new DnsResolver({ timeout: QUERY_MS_MAX, tries: QUERY_TRIES });
  if (dns !== undefined) resolver.setServers(dns);
  const deadline = AbortSignal.timeout(LOOKUP_MS_MAX);
  const ended = signal === undefined ? deadline : AbortSignal.any([signal, deadline]);
  const cancel = () => resolver.cancel();
  ended.addEventListener("abort", cancel, { once: true });
  try {
    if (ended.aborted) throw new ResolveError("Failed", `looking up "${host}" was given up`);
    const [a, aaaa] = await Promise.allSettled([resolver.resolve4(host), resolver.resolve6(host)]);
    const texts = [a, aaaa].flatMap((answer) => (answer.status === "fulfilled" ? answer.value : []));
    // Some servers cannot answer for AAAA. What they do answer is all that is checked and dialled, so nothing is lost by it.
    if (texts.length > 0) return parsed(host, texts);
    throw noAddress(host, [a, aaaa]);
  } finally {
    ended.removeEventListener("abort", cancel);
  }
}

function parsed(host: string, texts: readonly string[]): Address[] {
  return [...new Set(texts)].map((text) => {
    const address = parseAddress(text);
    if (address === undefined)
      throw new ResolveError("Failed", `a name server answered "${host}" with what is no address`);
    return address;
  });
}

function noAddress(host: string, answers: readonly PromiseSettledResult<string[]>[]): ResolveError {
  const codes = answers.map((answer) => (answer.status === "rejected" ? codeOf(answer.reason) : "ENODATA"));
  const failed = codes.find((code) => code !== "ENOTFOUND" && code !== "ENODATA");
  if (failed === undefined) return new ResolveError("NotFound", `the name "${host}" has no address`);
  return new ResolveError("Failed", `looking up "${host}" failed: ${failed}`);
}

function codeOf(error: unknown): string {
  return error instanceof Error && "code" in error ? String(error.code) : "unknown error";
}

/** A machine without the file has no names of its own. */
async function readHosts(path: string): Promise<string> {
  try {
    return await readFile(path, "utf8");
  } catch {
    return "";
  }
}

function addressesIn(hosts: string, host: string): Address[] {
  return hosts.split("\n").flatMap((line) => {
    const [address = "", ...names] = line.replace(/#.*/, "").trim().split(/\s+/);
    const found = names.some((name) => name.toLowerCase() === host) ? parseAddress(address) : undefined;
    return found === undefined ? [] : [found];
  });
}
