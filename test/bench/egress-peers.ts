import { execFileSync, spawn, spawnSync, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { chmodSync, closeSync, mkdirSync, openSync, writeFileSync, writeSync } from "node:fs";
import { connect, createServer, type AddressInfo } from "node:net";
import { join } from "node:path";
import { patternBytes } from "../helpers/upstream-routes.ts";

const START_MS_MAX = 20_000;
const STOP_MS_MAX = 5_000;
const FILE_BLOCK_BYTES = 64 * 1024;
/** The name of the upstream for a proxy that can be told names; the others know it as localhost. */
export const BENCH_HOST = "bench.test";
/** What a proxy puts in place of the agent's own credential. */
export const BENCH_CREDENTIAL = "credential-that-the-agent-never-sees";

/** A way to the upstream: straight, or through a proxy. */
export interface Subject {
  name: "direct" | "guard" | "squid" | "mitmproxy";
  /** Names of the upstream on this way. */
  host: string;
  proxy?: { port: number; credentials?: string };
  /** Of the proxy, for its CPU and memory. */
  pid?: number;
  /** Limits the idle tunnels that are opened. */
  tunnelsMax?: number;
  end(): Promise<void>;
}

export interface PeerOptions {
  /** A folder of its own. */
  dir: string;
  /** PEM file of the upstream's authority. */
  caFile: string;
}

export function isInstalled(program: string): boolean {
  return spawnSync("sh", ["-c", `command -v ${program}`]).status === 0;
}

/** nginx with one worker over TLS: `/` answers 64 bytes, `/file` is a download. */
export async function startNginx(options: {
  dir: string;
  tls: { key: string; cert: string };
  fileBytes: number;
}): Promise<{ port: number; end(): Promise<void> }> {
  const { dir, tls } = options;
  const port = await freePort();
  mkdirSync(join(dir, "www"), { recursive: true });
  writePattern(join(dir, "www", "file"), options.fileBytes);
  writeFileSync(join(dir, "key.pem"), tls.key, { mode: 0o600 });
  writeFileSync(join(dir, "cert.pem"), tls.cert);
  const temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map((name) => `${name}_temp_path ${dir}/tmp;`);
  const lines = [
    "daemon off; worker_processes 1;",
    `pid ${dir}/nginx.pid; error_log ${dir}/error.log;`,
    process.getuid?.() === 0 ? "user root;" : "",
    "events { worker_connections 4096; }",
    `http { access_log off; keepalive_requests 100000000; keepalive_timeout 600s; ${temporary.join(" ")}`,
    `server { listen 127.0.0.1:${port} ssl backlog=4096; ssl_certificate ${dir}/cert.pem; ssl_certificate_key ${dir}/key.pem;`,
    `ssl_session_cache shared:bench:8m; location = / { return 200 "${"x".repeat(63)}\\n"; }`,
    `location = /file { root ${dir}/www; } } }`,
  ];
  writeFileSync(join(dir, "nginx.conf"), lines.join("\n"));
  const args = ["-p", dir, "-c", join(dir, "nginx.conf"), "-e", join(dir, "error.log")];
  return { port, end: await daemon({ command: ["nginx", ...args], port }) };
}

/** Squid with ssl-bump: it ends TLS, replaces the credential and writes a line for each request, as the guard does; it scans nothing. */
export async function startSquid({ dir, caFile }: PeerOptions): Promise<Subject> {
  const port = await freePort();
  mkdirSync(dir, { recursive: true });
  const openssl = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"];
  const made = ["-keyout", join(dir, "ca.key"), "-out", join(dir, "ca.pem"), "-subj", "/CN=bench"];
  execFileSync("openssl", [...openssl, ...made], { stdio: "ignore" });
  const certgen = "/usr/lib/squid/security_file_certgen";
  execFileSync(certgen, ["-c", "-s", join(dir, "certificates"), "-M", "4MB"], { stdio: "ignore" });
  writeFileSync(join(dir, "hosts"), `127.0.0.1 ${BENCH_HOST}\n`);
  const lines = [
    `http_port 127.0.0.1:${port} ssl-bump generate-host-certificates=on dynamic_cert_mem_cache_size=4MB cert=${dir}/ca.pem key=${dir}/ca.key`,
    `sslcrtd_program ${certgen} -s ${dir}/certificates -M 4MB`,
    "sslcrtd_children 1",
    "ssl_bump bump all",
    `tls_outgoing_options cafile=${caFile}`,
    `hosts_file ${dir}/hosts`,
    "http_access allow all",
    "request_header_access Authorization deny all",
    `request_header_replace Authorization Bearer ${BENCH_CREDENTIAL}`,
    `access_log stdio:${dir}/access.log`,
    `cache_log ${dir}/cache.log`,
    `coredump_dir ${dir}`,
    `pid_filename ${dir}/squid.pid`,
    "cache deny all",
    "cache_mem 8 MB",
    "max_filedescriptors 8192",
    "pinger_enable off",
    "icp_port 0",
    "shutdown_lifetime 0 seconds",
  ];
  writeFileSync(join(dir, "squid.conf"), `${lines.join("\n")}\n`);
  // Started as root it becomes the user of its package.
  if (process.getuid?.() === 0) execFileSync("chown", ["-R", "proxy:proxy", dir]);
  const command = ["squid", "-N", "-f", join(dir, "squid.conf")];
  const child = await daemonProcess({ command, port });
  return { name: "squid", host: BENCH_HOST, proxy: { port }, ...child };
}

export async function startMitmproxy({ dir, caFile }: PeerOptions): Promise<Subject> {
  const port = await freePort();
  mkdirSync(dir, { recursive: true });
  const listen = ["--listen-host", "127.0.0.1", "--listen-port", String(port)];
  const settings = [`confdir=${dir}`, `ssl_verify_upstream_trusted_ca=${caFile}`, "stream_large_bodies=64k"];
  const replaced = `/~q/Authorization/Bearer ${BENCH_CREDENTIAL}`;
  const options = settings.flatMap((one) => ["--set", one]);
  const command = ["mitmdump", "--quiet", ...listen, ...options, "--modify-headers", replaced];
  const child = await daemonProcess({ command, port });
  return { name: "mitmproxy", host: "localhost", proxy: { port }, ...child };
}

export async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, "close");
  return port;
}

function writePattern(path: string, bytes: number): void {
  const block = Buffer.concat(Array.from({ length: 64 }, () => patternBytes(0, FILE_BLOCK_BYTES)));
  const file = openSync(path, "w");
  for (let left = bytes; left > 0; left -= block.length) writeSync(file, block, 0, Math.min(left, block.length));
  closeSync(file);
  chmodSync(path, 0o644);
}

async function daemon(options: { command: readonly string[]; port: number }): Promise<() => Promise<void>> {
  return (await daemonProcess(options)).end;
}

/** Starts a program in the foreground and waits until it listens. It is ended by its process id. */
async function daemonProcess(options: {
  command: readonly string[];
  port: number;
}): Promise<{ pid: number; end(): Promise<void> }> {
  const [program = "", ...args] = options.command;
  const child = spawn(program, args, { stdio: ["ignore", "ignore", "pipe"] });
  let stderr = "";
  child.stderr.on("data", (chunk: Buffer) => (stderr = (stderr + chunk.toString()).slice(-2_000)));
  const deadline = performance.now() + START_MS_MAX;
  while (!(await listens(options.port))) {
    if (child.exitCode !== null || performance.now() > deadline) {
      await end(child);
      throw new Error(`cannot start "${program}": it does not listen on 127.0.0.1:${options.port}; it said: ${stderr}`);
    }
    await new Promise((done) => setTimeout(done, 50));
  }
  return { pid: child.pid ?? 0, end: () => end(child) };
}

function listens(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ port, host: "127.0.0.1" });
    const answer = (found: boolean): void => {
      socket.destroy();
      resolve(found);
    };
    socket.once("connect", () => answer(true)).once("error", () => answer(false));
  });
}

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const ended = once(child, "exit");
  child.kill("SIGTERM");
  const timeout = setTimeout(() => child.kill("SIGKILL"), STOP_MS_MAX);
  await ended;
  clearTimeout(timeout);
}
