import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { connect, createServer, type AddressInfo, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { createControlClient } from "../../backends/guard/control-client.ts";
import { nodeEnv, nodeFlags } from "../../backends/guard/doors.ts";
import type {
  AuditLine,
  AuditPage,
  GuardConfig,
  GuardConfigured,
  GuardPolicy,
  GuardRule,
} from "../../controller/ports/guard.ts";
import { BUILD_DIR } from "./build.ts";

const START_MS_MAX = 20_000;
const CONTROL_MS_MAX = 20_000;
const AUDIT_MS_MAX = 15_000;
const STOP_MS_MAX = 5_000;
const AUDIT_PAGE_LINES = 1_000;
const TOKEN = "token-of-this-test-bottle";

export interface GuardProgramOptions {
  /** `ADDRESS:PORT` of the name server it asks. */
  dns?: string;
  /** Authorities of upstreams, beside the public ones. */
  upstreamCa?: string;
  /** Addresses of the host, which no rule opens. */
  hostAddresses?: readonly string[];
  /** A folder of the caller's for the audit, for tests that break or outlive it. */
  auditDir?: string;
  roles?: string;
  /** Options of Node in the place of those that a bottle's guard gets. */
  nodeFlags?: readonly string[];
  /** Environment of the guard itself. */
  env?: Readonly<Record<string, string>>;
}

/** The guard as a bottle has it, on this machine and without a bottle: the real program, configured through its real control socket. */
export interface GuardProgram {
  pid: number;
  /** Where the agent connects; what the holder would forward from. */
  port: number;
  sockets: string;
  egressSocket: string;
  token: string;
  /** With the token. */
  proxyUrl: string;
  /** The guard's authority, as `configure` answered it last. */
  caFile: string;
  /** The same followed by nothing else: no test dials a public host. */
  caBundleFile: string;
  /** The variables of an agent that lead programs through the guard, and nothing else but PATH and HOME. */
  clientEnv(): Record<string, string>;
  configure(config: GuardConfig): Promise<GuardConfigured>;
  /** One page, as the controller reads it. */
  audit(request: { cursor: string; waitMs?: number }): Promise<AuditPage>;
  /** All lines so far. Not together with `audit`: what one reads the other does not see. */
  auditLines(): Promise<AuditLine[]>;
  /** Waits until a line is there; says which ones are if it does not come. */
  auditLine(matches: (line: AuditLine) => boolean): Promise<AuditLine>;
  /** What it wrote to stderr, at most the last 64 KiB. */
  stderr(): string;
  stop(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

/** A rule with everything left out filled in: HTTPS on 443 to a host on loopback, allowed. */
export function rule(part: Partial<GuardRule> & { name: string; host: string }): GuardRule {
  return {
    ports: [443],
    protocol: "HTTPS",
    action: "Allow",
    cidrs: ["127.0.0.0/8"],
    webSocket: false,
    uninspected: "Refuse",
    inject: [],
    ...part,
  };
}

/** Settings with these rules; a new digest for each call, as for each change. */
export function guardConfig(
  part: Partial<Omit<GuardConfig, "policy">> & { policy?: Partial<GuardPolicy> } = {},
): GuardConfig {
  const policy: GuardPolicy = { rules: [], dlp: "Block", audit: "Full", budget: {}, ...part.policy };
  const secrets = part.secrets ?? {};
  const settings = { token: TOKEN, placeholders: {}, secretRefs: Object.keys(secrets).sort() };
  return { digest: `test-${performance.now()}`, ...settings, ...part, secrets, policy };
}

/** Starts the guard that `npm run build` made. It refuses everything until it is configured. */
export async function startGuardProgram(options: GuardProgramOptions = {}): Promise<GuardProgram> {
  const program = join(BUILD_DIR, "guard", "main.js");
  if (!existsSync(program)) throw new Error(`cannot start the guard: "${program}" is not there; run npm run build`);
  const dir = mkdtempSync(join(tmpdir(), "bb-guard-"));
  const sockets = join(dir, "sockets");
  const auditDir = options.auditDir ?? join(dir, "audit");
  for (const made of [sockets, auditDir]) mkdirSync(made, { recursive: true });
  const child = spawn(
    process.execPath,
    [...(options.nodeFlags ?? nodeFlags("guard")), program, ...programArguments(options, { dir, sockets, auditDir })],
    {
      env: { PATH: process.env["PATH"], ...nodeEnv("guard"), ...options.env },
      stdio: ["ignore", "pipe", "pipe"],
    },
  );
  const stderr = tail(child);
  try {
    await untilReady(child, stderr);
    return await around(child, { dir, sockets, stderr });
  } catch (error) {
    await end(child);
    rmSync(dir, { recursive: true, force: true });
    throw error;
  }
}

function programArguments(
  options: GuardProgramOptions,
  { dir, sockets, auditDir }: { dir: string; sockets: string; auditDir: string },
): string[] {
  const args = ["guard", "--sockets", sockets, "--control", "socket", "--audit", auditDir];
  for (const address of options.hostAddresses ?? []) args.push("--host-address", address);
  if (options.dns !== undefined) args.push("--dns", options.dns);
  if (options.roles !== undefined) args.push("--roles", options.roles);
  if (options.upstreamCa !== undefined) {
    const file = join(dir, "upstream-ca.pem");
    writeFileSync(file, options.upstreamCa);
    args.push("--upstream-ca", file);
  }
  return args;
}

async function around(
  child: ChildProcess,
  { dir, sockets, stderr }: { dir: string; sockets: string; stderr: () => string },
): Promise<GuardProgram> {
  const egressSocket = join(sockets, "egress.sock");
  const control = connect({ path: join(sockets, "control.sock") });
  await once(control, "connect");
  control.on("error", () => control.destroy());
  const client = createControlClient(control);
  const holder = await forward(egressSocket);
  const [caFile, caBundleFile] = [join(dir, "ca.pem"), join(dir, "ca-bundle.pem")];
  let token = TOKEN;
  const audit = (request: { cursor: string; waitMs?: number }): Promise<AuditPage> =>
    client.audit({ waitMs: 0, linesMax: AUDIT_PAGE_LINES, ...request }, AbortSignal.timeout(CONTROL_MS_MAX));
  const proxyUrl = (): string => `http://bottle:${token}@127.0.0.1:${holder.port}`;
  const stop = async (): Promise<void> => {
    client.close();
    control.destroy();
    await holder.close();
    await end(child);
    rmSync(dir, { recursive: true, force: true });
  };
  return {
    pid: child.pid ?? 0,
    port: holder.port,
    sockets,
    egressSocket,
    caFile,
    caBundleFile,
    get token() {
      return token;
    },
    get proxyUrl() {
      return proxyUrl();
    },
    clientEnv: () => clientEnv({ proxyUrl: proxyUrl(), caFile, caBundleFile, home: dir }),
    async configure(config) {
      const configured = await client.configure(config, AbortSignal.timeout(CONTROL_MS_MAX));
      token = config.token;
      for (const file of [caFile, caBundleFile]) writeFileSync(file, configured.caCertificate);
      return configured;
    },
    audit,
    ...auditReader(audit),
    stderr,
    stop,
    [Symbol.asyncDispose]: stop,
  };
}

/** As `plan` makes it for an agent. */
function clientEnv(given: {
  proxyUrl: string;
  caFile: string;
  caBundleFile: string;
  home: string;
}): Record<string, string> {
  const env: Record<string, string> = { PATH: process.env["PATH"] ?? "", HOME: given.home, LANG: "C.UTF-8" };
  for (const name of ["HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"]) env[name] = given.proxyUrl;
  for (const name of ["NO_PROXY", "no_proxy"]) env[name] = "127.0.0.1,localhost,::1";
  const bundled = ["SSL_CERT_FILE", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "GIT_SSL_CAINFO", "PIP_CERT"];
  for (const name of [...bundled, "NPM_CONFIG_CAFILE", "npm_config_cafile"]) env[name] = given.caBundleFile;
  return { ...env, NODE_EXTRA_CA_CERTS: given.caFile, NODE_USE_ENV_PROXY: "1" };
}

type ReadAudit = (request: { cursor: string; waitMs?: number }) => Promise<AuditPage>;

/** The guard lets go of what was read, so whoever asks for all lines must have kept them. */
function auditReader(audit: ReadAudit): Pick<GuardProgram, "auditLines" | "auditLine"> {
  const lines: AuditLine[] = [];
  let cursor = "";
  const pull = async (waitMs: number): Promise<readonly AuditLine[]> => {
    const page = await audit({ cursor, waitMs });
    cursor = page.cursor;
    lines.push(...page.lines);
    return page.lines;
  };
  return {
    async auditLines() {
      while ((await pull(0)).length > 0);
      return [...lines];
    },
    async auditLine(matches) {
      const deadline = performance.now() + AUDIT_MS_MAX;
      let found = lines.find(matches);
      while (found === undefined && performance.now() < deadline) found = (await pull(1_000)).find(matches);
      if (found !== undefined) return found;
      const seen = lines.map((line) => JSON.stringify(line)).join("\n");
      throw new Error(`no such line in the audit within ${AUDIT_MS_MAX} ms; it has:\n${seen}`);
    },
  };
}

/** What the holder does: bytes from a port to the guard's socket. */
async function forward(path: string): Promise<{ port: number; close(): Promise<void> }> {
  const sockets = new Set<Socket>();
  const server: Server = createServer({ allowHalfOpen: true, noDelay: true }, (agent) => {
    const guard = connect({ path, allowHalfOpen: true });
    for (const [from, to] of [
      [agent, guard],
      [guard, agent],
    ] as const) {
      sockets.add(from);
      from.on("error", () => to.destroy());
      from.on("close", () => sockets.delete(from));
      from.pipe(to);
    }
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return {
    port: (server.address() as AddressInfo).port,
    async close() {
      const closed = once(server, "close");
      server.close();
      for (const socket of sockets) socket.destroy();
      await closed;
    },
  };
}

async function untilReady(child: ChildProcess, stderr: () => string): Promise<void> {
  if (child.stdout === null) throw new Error("the guard was started without a pipe for its output");
  const lines = createInterface({ input: child.stdout });
  const timeout = setTimeout(() => lines.close(), START_MS_MAX);
  try {
    for await (const line of lines) {
      if (line.includes('"ready":true')) return;
    }
  } finally {
    clearTimeout(timeout);
    child.stdout.resume();
  }
  throw new Error(`the guard did not start within ${START_MS_MAX} ms: ${stderr() || "it wrote nothing"}`);
}

function tail(child: ChildProcess): () => string {
  let text = "";
  child.stderr?.on("data", (chunk: Buffer) => (text = (text + chunk.toString()).slice(-65_536)));
  return () => text;
}

/** By its process id; SIGKILL if it does not end in time. */
async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const ended = once(child, "exit");
  child.kill("SIGTERM");
  const timeout = setTimeout(() => child.kill("SIGKILL"), STOP_MS_MAX);
  await ended;
  clearTimeout(timeout);
}
