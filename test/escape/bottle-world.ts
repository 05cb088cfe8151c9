import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { connect, createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import type { EgressRule } from "../../controller/api/egress.ts";
import type { BackendType } from "../../controller/api/template.ts";
import { startDnsDouble, type DnsDouble, type DnsRecords } from "../helpers/dns-double.ts";
import { createTestAuthority } from "../helpers/test-certificates.ts";
import { ensureToolsImage } from "../helpers/tools-image.ts";
import { startUpstream, type Upstream, type UpstreamHandler } from "../helpers/upstreams.ts";

const START_MS_MAX = 60_000;

/** What lies outside a bottle: a name server and one TLS upstream that all names lead to, where the bottle's guard can reach them. */
export interface BottleWorld {
  upstream: Upstream;
  dns: DnsDouble;
  /** Of the upstream, as guards see it. */
  address: string;
  port: number;
  /** Tells `serve` of it. */
  env: Readonly<Record<string, string>>;
  at(host: string): string;
  url(host: string, path: string): string;
  /** A rule of a template for a name of the upstream. */
  rule(part: Partial<EgressRule> & { name: string; host: string }): EgressRule;
  [Symbol.asyncDispose](): Promise<void>;
}

export interface BottleWorldOptions {
  hosts: readonly string[];
  /** Further names, with addresses of their own. */
  records?: DnsRecords;
  handlers?: readonly UpstreamHandler[];
}

/** Guards of bubblewrap are processes of this machine and reach its loopback; those of Docker reach a container that leads there. */
export async function startBottleWorld(type: BackendType, options: BottleWorldOptions): Promise<BottleWorld> {
  const dir = mkdtempSync(join(tmpdir(), "bb-world-"));
  const closers: (() => Promise<void> | void)[] = [() => rmSync(dir, { recursive: true, force: true })];
  const close = async (): Promise<void> => {
    for (const closer of closers.splice(0).toReversed()) await closer();
  };
  try {
    const authority = await createTestAuthority();
    const tls = await authority.issue({ hosts: options.hosts });
    const handler: UpstreamHandler = (request, response) =>
      (options.handlers ?? []).some((one) => one(request, response));
    const upstream = await startUpstream({ tls, handler });
    closers.push(() => upstream[Symbol.asyncDispose]());
    const known = new Map<string, readonly string[]>();
    const names = Object.fromEntries(options.hosts.map((host) => [host, () => known.get("upstream") ?? []]));
    const dns = await startDnsDouble({ records: { ...names, ...options.records } });
    closers.push(() => dns.close());
    const { address, server } = await placeOf(type, { dir, upstream, dns, closers });
    known.set("upstream", [address]);
    const ca = join(dir, "upstream-ca.pem");
    writeFileSync(ca, authority.certificate);
    const { port } = upstream;
    return {
      upstream,
      dns,
      address,
      port,
      env: {
        BOT_BOTTLE_BACKEND: type.toLowerCase(),
        BOT_BOTTLE_GUARD_DNS: server,
        BOT_BOTTLE_GUARD_CA: ca,
        ...(type === "Docker" ? { BOT_BOTTLE_IMAGE: ensureToolsImage() } : {}),
      },
      at: (host) => `${host}:${port}`,
      url: (host, path) => `https://${host}:${port}${path}`,
      rule: (part) => ({ ports: [port], cidrs: [`${address}/32`], action: "Allow", ...part }),
      [Symbol.asyncDispose]: close,
    };
  } catch (error) {
    await close();
    throw error;
  }
}

interface Made {
  dir: string;
  upstream: Upstream;
  dns: DnsDouble;
  closers: (() => Promise<void> | void)[];
}

/** The upstream's address and the name server's, for guards of this backend. */
async function placeOf(
  type: BackendType,
  { dir, upstream, dns, closers }: Made,
): Promise<{ address: string; server: string }> {
  if (type === "Bubblewrap") return { address: "127.0.0.1", server: dns.address };
  const dnsPort = Number(dns.address.split(":")[1]);
  closers.push(await leadTo(upstream.port, join(dir, "https.sock")), await leadTo(dnsPort, join(dir, "dns.sock")));
  const relay = await startRelay(dir, { [upstream.port]: "/world/https.sock", 53: "/world/dns.sock" });
  closers.push(relay.stop);
  return { address: relay.address, server: relay.address };
}

/** A Unix socket that leads to a port on loopback. */
async function leadTo(port: number, path: string): Promise<() => Promise<void>> {
  const sockets = new Set<Socket>();
  const server: Server = createServer({ allowHalfOpen: true }, (from) => {
    const to = connect({ port, host: "127.0.0.1", allowHalfOpen: true });
    for (const [one, other] of [
      [from, to],
      [to, from],
    ] as const) {
      sockets.add(one);
      one.on("error", () => other.destroy());
      one.on("close", () => (sockets.delete(one), other.destroy()));
      one.pipe(other);
    }
  });
  await new Promise<void>((resolve) => server.listen(path, resolve));
  chmodSync(path, 0o666);
  return async () => {
    for (const socket of sockets) socket.destroy();
    await new Promise((resolve) => server.close(resolve));
  };
}

/** One of the programs beside this file, as one text without imports of ours. */
export async function bundled(file: "bottle-relay.ts" | "bottle-attacker.ts"): Promise<string> {
  const { outputFiles } = await build({
    entryPoints: [fileURLToPath(new URL(file, import.meta.url))],
    bundle: true,
    write: false,
    minify: true,
    platform: "node",
    target: "node20",
    format: "cjs",
  });
  return outputFiles[0]?.text ?? "";
}

async function startRelay(
  dir: string,
  ports: Readonly<Record<number, string>>,
): Promise<{ address: string; stop(): Promise<void> }> {
  const name = `bb-world-${randomBytes(6).toString("hex")}`;
  const place = ["--name", name, "--volume", `${dir}:/world`, "--network", "bridge"];
  const program = ["node", "--eval", await bundled("bottle-relay.ts"), JSON.stringify(ports)];
  const args = ["run", "--rm", "--interactive", "--pull", "never", ...place, ensureToolsImage(), ...program];
  // It ends with its input: also when this process is killed.
  const child = spawn("docker", args, { stdio: "pipe" });
  const ended = new Promise<void>((resolve) => child.once("close", () => resolve()));
  const stop = async (): Promise<void> => {
    child.stdin.end();
    await ended;
  };
  child.stdin.on("error", () => undefined);
  let said = "";
  const ready = new Promise<string>((resolve, reject) => {
    const fail = (why: string): void =>
      reject(new Error(`the relay "${name}" did not start: ${why}; it said: ${said}`));
    const timeout = setTimeout(() => fail(`not within ${START_MS_MAX} ms`), START_MS_MAX);
    const look = (text: string): void => {
      said += text;
      const address = /^ready ([0-9.]+)$/m.exec(said)?.[1];
      if (address === undefined) return;
      clearTimeout(timeout);
      resolve(address);
    };
    child.stdout.setEncoding("utf8").on("data", look);
    child.stderr.setEncoding("utf8").on("data", look);
    void ended.then(() => (clearTimeout(timeout), fail("it ended")));
  });
  try {
    return { address: await ready, stop };
  } catch (error) {
    await stop();
    throw error;
  }
}
