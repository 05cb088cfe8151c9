import { execFile } from "node:child_process";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { openTunnel, type Tunnel } from "../helpers/tunnel-client.ts";
import type { Subject } from "./egress-peers.ts";
import { cpuSeconds, memoryMiB } from "./processes.ts";

const execute = promisify(execFile);
const TUNNELS_AT_ONCE = 32;
const FIRST_TUNNELS = 32;
const SSE_EVENTS = 40;
const SSE_MS = 25;
const SETTLE_MS = 1_000;
const GIB = 1024 ** 3;
const MIB = 1024 ** 2;

export interface RequestLoad {
  requestsPerSecond: number;
  p50Ms: number;
  p99Ms: number;
  /** Of the proxy. */
  cpuMicros: number;
  /** Of this process, which stands for the holder and forwards to the guard. */
  forwarderMicros: number;
  errors: number;
}

/** Small GETs over kept connections, by wrk; proxychains makes it speak CONNECT, so that every way has the same generator. */
export async function loadRequests(
  subject: Subject,
  options: { dir: string; port: number; connections: number; seconds: number },
): Promise<RequestLoad> {
  const url = `https://${subject.host}:${options.port}/`;
  const agentHeader = ["--header", "Authorization: Bearer placeholder"];
  const times = ["--threads", "1", "--connections", String(options.connections), "--duration", `${options.seconds}s`];
  const wrk = ["wrk", ...times, "--latency", "--timeout", "5s", ...agentHeader, url];
  const [program = "", ...args] = subject.proxy === undefined ? wrk : [...proxychains(subject, options.dir), ...wrk];
  const before = { proxy: cpuOf(subject), own: ownSeconds() };
  const { stdout } = await execute(program, args, { timeout: (options.seconds + 30) * 1000 });
  const used = { proxy: cpuOf(subject) - before.proxy, own: ownSeconds() - before.own };
  const requests = Number(/(\d+) requests in/.exec(stdout)?.[1] ?? 0);
  // A slow peer on a busy machine may bring nothing through in time; of the others that is an error.
  if (requests === 0 && subject.name !== "mitmproxy") {
    throw new Error(`no request came through ${subject.name}: ${stdout.slice(-400)}`);
  }
  const failed = /Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)/.exec(stdout)?.slice(1) ?? [];
  const refused = Number(/Non-2xx or 3xx responses: (\d+)/.exec(stdout)?.[1] ?? 0);
  return {
    requestsPerSecond: Number(/Requests\/sec:\s+([\d.]+)/.exec(stdout)?.[1]),
    p50Ms: milliseconds(stdout, "50%"),
    p99Ms: milliseconds(stdout, "99%"),
    cpuMicros: (used.proxy * 1e6) / requests,
    forwarderMicros: (used.own * 1e6) / requests,
    errors: refused + failed.reduce((sum, count) => sum + Number(count), 0),
  };
}

/** One download by curl. */
export async function loadDownload(
  subject: Subject,
  options: { port: number; bytes: number },
): Promise<{ mibPerSecond: number; cpuSecondsPerGib: number; peakMiB: number }> {
  const via =
    subject.proxy === undefined
      ? []
      : ["--proxy", `http://127.0.0.1:${subject.proxy.port}`, ...login(subject.proxy.credentials)];
  const from = [
    "--resolve",
    `${subject.host}:${options.port}:127.0.0.1`,
    `https://${subject.host}:${options.port}/file`,
  ];
  const format = "%{size_download} %{time_total}";
  const before = cpuOf(subject);
  const args = ["--silent", "--show-error", "--insecure", "--output", "/dev/null", "--write-out", format];
  const { stdout } = await execute("curl", [...args, ...via, ...from], {
    timeout: 60_000,
    env: { PATH: process.env["PATH"] },
  });
  const [bytes = 0, seconds = 0] = stdout.split(" ").map(Number);
  if (bytes !== options.bytes) throw new Error(`${subject.name} let ${bytes} of ${options.bytes} bytes through`);
  return {
    mibPerSecond: bytes / seconds / MIB,
    cpuSecondsPerGib: ((cpuOf(subject) - before) * GIB) / bytes,
    peakMiB: subject.pid === undefined ? 0 : memoryMiB(subject.pid, "VmHWM"),
  };
}

/** What the proxy's memory grows by while so many tunnels are open and idle; each has served one request. */
export async function loadIdleTunnels(
  subject: Subject,
  options: { port: number; count: number },
): Promise<{ tunnels: number; grownMiB: number; openedMs: number }> {
  const { pid } = subject;
  if (pid === undefined) return { tunnels: 0, grownMiB: 0, openedMs: 0 };
  const count = Math.min(options.count, (subject.tunnelsMax ?? Infinity) - FIRST_TUNNELS);
  const open: Tunnel[] = [];
  try {
    // The first ones pay for what is made once: code that is compiled, certificates, connections to the upstream.
    await openTunnels(subject, { port: options.port, count: FIRST_TUNNELS, open });
    const before = memoryMiB(pid);
    const began = performance.now();
    await openTunnels(subject, { port: options.port, count: FIRST_TUNNELS + count, open });
    const openedMs = performance.now() - began;
    await new Promise((done) => setTimeout(done, SETTLE_MS));
    return { tunnels: count, grownMiB: memoryMiB(pid) - before, openedMs };
  } finally {
    for (const tunnel of open) tunnel.close();
  }
}

/** Until so many are open. */
async function openTunnels(
  subject: Subject,
  { port, count, open }: { port: number; count: number; open: Tunnel[] },
): Promise<void> {
  let begun = open.length;
  const worker = async (): Promise<void> => {
    while (begun < count) {
      begun += 1;
      const tunnel = await openTunnel(tunnelOptions(subject, port));
      open.push(tunnel);
      await tunnel.ask({ path: "/" });
    }
  };
  await Promise.all(Array.from({ length: TUNNELS_AT_ONCE }, worker));
}

/** The largest time between the sending of an event and its arrival; both clocks are this process's. */
export async function loadEvents(subject: Subject, options: { port: number }): Promise<{ delayMsMax: number }> {
  const tunnel = await openTunnel(tunnelOptions(subject, options.port));
  try {
    const response = await tunnel.send({ path: `/events?n=${SSE_EVENTS}&ms=${SSE_MS}` });
    let [delayMsMax, count] = [0, 0];
    for await (const chunk of response as AsyncIterable<Buffer>) {
      const now = performance.timeOrigin + performance.now();
      for (const [, sentMs] of chunk.toString().matchAll(/"sentMs":([\d.]+)/g)) {
        count += 1;
        delayMsMax = Math.max(delayMsMax, now - Number(sentMs));
      }
    }
    if (count !== SSE_EVENTS) throw new Error(`${subject.name} let ${count} of ${SSE_EVENTS} events through`);
    return { delayMsMax };
  } finally {
    tunnel.close();
  }
}

function tunnelOptions(subject: Subject, port: number): Parameters<typeof openTunnel>[0] {
  const { host, proxy } = subject;
  if (proxy === undefined) throw new Error(`"${subject.name}" is no proxy`);
  return { proxy: { port: proxy.port }, credentials: proxy.credentials, authority: `${host}:${port}` };
}

function proxychains(subject: Subject, dir: string): string[] {
  const [user = "", password = ""] = subject.proxy?.credentials?.split(":") ?? [];
  const file = join(dir, `proxychains-${subject.name}.conf`);
  const times = "tcp_read_time_out 15000\ntcp_connect_time_out 8000";
  const proxy = `http 127.0.0.1 ${subject.proxy?.port} ${user} ${password}`.trim();
  writeFileSync(file, `strict_chain\nquiet_mode\nproxy_dns\nremote_dns_subnet 224\n${times}\n[ProxyList]\n${proxy}\n`);
  return ["proxychains4", "-q", "-f", file];
}

function login(credentials: string | undefined): string[] {
  return credentials === undefined ? [] : ["--proxy-user", credentials];
}

function cpuOf(subject: Subject): number {
  return subject.pid === undefined ? 0 : cpuSeconds(subject.pid);
}

function ownSeconds(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1e6;
}

function milliseconds(text: string, percentile: string): number {
  const [, value, unit] = new RegExp(`${percentile}\\s+([\\d.]+)(us|ms|s)`).exec(text) ?? [];
  const factor = { us: 0.001, ms: 1, s: 1000 }[unit ?? ""] ?? Number.NaN;
  return Number(value) * factor;
}
