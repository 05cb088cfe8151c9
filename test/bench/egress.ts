import { chmodSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { CONNECTIONS_MAX } from "../../backends/guard/doors.ts";
import { startDnsDouble } from "../helpers/dns-double.ts";
import { guardConfig, rule, startGuardProgram } from "../helpers/guard-program.ts";
import { createTestAuthority } from "../helpers/test-certificates.ts";
import { startUpstream } from "../helpers/upstreams.ts";
import { loadDownload, loadEvents, loadIdleTunnels, loadRequests, type RequestLoad } from "./egress-load.ts";
import {
  BENCH_CREDENTIAL,
  BENCH_HOST,
  isInstalled,
  startMitmproxy,
  startNginx,
  startSquid,
  type PeerOptions,
  type Subject,
} from "./egress-peers.ts";
import { limited, measured, median, reported, type Measurement } from "./measurement.ts";
import { memoryMiB } from "./processes.ts";

const CONNECTIONS = [1, 16, 64] as const;
const ROUNDS = 2;
const SECONDS = 3;
const WARM_SECONDS = 4;
const FILE_BYTES = 500 * 1024 * 1024;
const IDLE_TUNNELS = 1_000;
const SECRETS = 5;
const LOAD_TOOLS: Readonly<Record<string, string>> = {
  nginx: "nginx-light",
  wrk: "wrk",
  proxychains4: "proxychains4",
  curl: "curl",
};

interface Figures {
  subject: Subject;
  idleMiB: number;
  /** By number of connections, one for each round. */
  requests: Map<number, RequestLoad[]>;
  downloads: Awaited<ReturnType<typeof loadDownload>>[];
  tunnels: Awaited<ReturnType<typeof loadIdleTunnels>>;
  events: { delayMsMax: number };
}

/** The guard's egress beside squid and mitmproxy, on one upstream, taking turns so that all meet the same load. */
export async function benchEgress(): Promise<Measurement[]> {
  const missing = Object.entries(LOAD_TOOLS).filter(([program]) => !isInstalled(program));
  if (missing.length > 0) {
    say(`left out, because something is missing: apt-get install -y ${missing.map(([, name]) => name).join(" ")}`);
    return [];
  }
  const dir = mkdtempSync(join(tmpdir(), "bb-egress-"));
  // Squid and nginx give up root and must still reach their own folders.
  chmodSync(dir, 0o755);
  const closers: (() => Promise<void>)[] = [];
  try {
    const world = await startUpstreams(dir, closers);
    const subjects = await startSubjects({ ...world, dir }, closers);
    const figures = await measureAll(subjects, { ...world, dir });
    for (const one of figures) say(describe(one));
    return rows(figures);
  } finally {
    for (const close of closers.toReversed()) await close();
    rmSync(dir, { recursive: true, force: true });
  }
}

interface BenchWorld {
  caFile: string;
  ca: string;
  /** Of nginx and of the server that sends events. */
  ports: { requests: number; events: number };
}

async function startUpstreams(dir: string, closers: (() => Promise<void>)[]): Promise<BenchWorld> {
  const authority = await createTestAuthority();
  const caFile = join(dir, "upstream-ca.pem");
  writeFileSync(caFile, authority.certificate);
  const tls = await authority.issue({ hosts: [BENCH_HOST, "localhost", "127.0.0.1"] });
  const nginx = await startNginx({ dir: join(dir, "nginx"), tls, fileBytes: FILE_BYTES });
  closers.push(nginx.end);
  const events = await startUpstream({ tls });
  closers.push(() => events[Symbol.asyncDispose]());
  return { caFile, ca: authority.certificate, ports: { requests: nginx.port, events: events.port } };
}

async function startSubjects(
  options: BenchWorld & { dir: string },
  closers: (() => Promise<void>)[],
): Promise<Subject[]> {
  const subjects: Subject[] = [{ name: "direct", host: "localhost", end: async () => {} }];
  const add = (subject: Subject): void => {
    subjects.push(subject);
    closers.push(() => subject.end());
  };
  add(await startGuard(options));
  const peers: readonly [string, string, (options: PeerOptions) => Promise<Subject>][] = [
    ["squid", "squid-openssl", startSquid],
    ["mitmdump", "mitmproxy", startMitmproxy],
  ];
  for (const [program, debianPackage, start] of peers) {
    if (!isInstalled(program)) say(`${program} is left out: apt-get install -y ${debianPackage}`);
    else add(await start({ dir: join(options.dir, program), caFile: options.caFile }));
  }
  return subjects;
}

/** As a bottle has it: requests read, five secrets scanned for, one injected, every request audited. */
async function startGuard({ ca, ports }: BenchWorld): Promise<Subject> {
  const dns = await startDnsDouble({ records: { [BENCH_HOST]: ["127.0.0.1"] } });
  const guard = await startGuardProgram({ dns: dns.address, upstreamCa: ca });
  const others = Array.from({ length: SECRETS - 1 }, (_, n) => [`bench/other-${n}`, `secret-${n}-that-nobody-sends`]);
  const secrets = { "bench/key": BENCH_CREDENTIAL, ...Object.fromEntries(others) };
  const inject = [{ header: "authorization", valueTemplate: "Bearer {value}", secret: "bench/key" }];
  const rules = [rule({ name: "bench", host: BENCH_HOST, ports: [ports.requests, ports.events], inject })];
  await guard.configure(guardConfig({ secrets, policy: { rules } }));
  // Somebody reads the audit, as the controller does: unread, it would fill up.
  const reading = new AbortController();
  const read = readAudit(guard, reading.signal);
  return {
    name: "guard",
    host: BENCH_HOST,
    proxy: { port: guard.port, credentials: `bottle:${guard.token}` },
    pid: guard.pid,
    tunnelsMax: CONNECTIONS_MAX - 6,
    async end() {
      reading.abort();
      await read;
      await guard.stop();
      await dns.close();
    },
  };
}

async function readAudit(guard: Awaited<ReturnType<typeof startGuardProgram>>, signal: AbortSignal): Promise<void> {
  for (let cursor = ""; !signal.aborted;) ({ cursor } = await guard.audit({ cursor, waitMs: 1_000 }));
}

async function measureAll(subjects: readonly Subject[], world: BenchWorld & { dir: string }): Promise<Figures[]> {
  const figures = subjects.map((subject): Figures => {
    const idleMiB = subject.pid === undefined ? 0 : memoryMiB(subject.pid);
    const none = { tunnels: { tunnels: 0, grownMiB: 0, openedMs: 0 }, events: { delayMsMax: 0 } };
    return { subject, idleMiB, requests: new Map(CONNECTIONS.map((count) => [count, []])), downloads: [], ...none };
  });
  const port = world.ports.requests;
  // Programs that compile while they run, and whose memory still holds what they started with, are measured when that is over.
  for (const { subject } of figures) {
    await loadRequests(subject, { dir: world.dir, port, connections: 16, seconds: WARM_SECONDS });
  }
  for (const one of figures) {
    if (one.subject.proxy === undefined) continue;
    one.tunnels = await loadIdleTunnels(one.subject, { port, count: IDLE_TUNNELS });
    one.events = await loadEvents(one.subject, { port: world.ports.events });
  }
  for (let round = 0; round < ROUNDS; round += 1) {
    // Mitmproxy is an order of magnitude away: once is enough to see that.
    const compared = figures.filter(({ subject }) => round === 0 || subject.name !== "mitmproxy");
    for (const connections of CONNECTIONS) {
      for (const { subject, requests } of compared) {
        const load = await loadRequests(subject, { dir: world.dir, port, connections, seconds: SECONDS });
        requests.get(connections)?.push(load);
      }
    }
    for (const { subject, downloads } of compared) {
      downloads.push(await loadDownload(subject, { port, bytes: FILE_BYTES }));
    }
  }
  return figures;
}

function rows(figures: readonly Figures[]): Measurement[] {
  const [direct, guard] = [figures[0], figures[1]];
  if (direct === undefined || guard === undefined) throw new Error("the bench has lost its subjects");
  const squid = figures.find(({ subject }) => subject.name === "squid");
  const mitmproxy = figures.find(({ subject }) => subject.name === "mitmproxy");
  const added = (one: Figures, connections: number, field: "p50Ms" | "p99Ms"): number[] => {
    const base = valuesOf(direct, connections, field);
    return valuesOf(one, connections, field).map((value, round) => value - (base[round] ?? Number.NaN));
  };
  const perConnections = CONNECTIONS.flatMap((count) => [
    ...(squid === undefined
      ? [
          reported(`egress, CPU of the guard, µs/request, ${count} conn.`, {
            ours: valuesOf(guard, count, "cpuMicros"),
          }),
        ]
      : [cpuRow({ guard, squid, count })]),
    reported(`egress, CPU of the forwarder before it, µs/request, ${count} conn.`, {
      ours: valuesOf(guard, count, "forwarderMicros"),
    }),
    reported(
      `egress, requests/s, ${count} conn. (squid)`,
      both(guard, squid, (one) => valuesOf(one, count, "requestsPerSecond")),
    ),
    reported(
      `egress, added p99, ms, ${count} conn. (squid)`,
      both(guard, squid, (one) => added(one, count, "p99Ms")),
    ),
  ]);
  const grown = (one: Figures): number[] => [(one.tunnels.grownMiB * 1_000) / one.tunnels.tunnels];
  return [
    ...perConnections,
    reported(
      "egress, requests/s, 16 conn. (mitmproxy)",
      both(guard, mitmproxy, (one) => valuesOf(one, 16, "requestsPerSecond")),
    ),
    limited(
      "egress, added p50, ms, 1 conn. (squid)",
      both(guard, squid, (one) => added(one, 1, "p50Ms")),
      { atMost: 0.3, unit: "ms" },
    ),
    reported(
      "egress, 500 MiB download, MiB/s (squid)",
      both(guard, squid, (one) => one.downloads.map((run) => run.mibPerSecond)),
    ),
    reported(
      "egress, the same, CPU s/GiB (squid)",
      both(guard, squid, (one) => one.downloads.map((run) => run.cpuSecondsPerGib)),
    ),
    reported(
      "egress, peak RSS, MiB (squid)",
      both(guard, squid, (one) => one.downloads.map((run) => run.peakMiB)),
    ),
    limited(
      `egress, growth for 1,000 idle tunnels, from ${guard.tunnels.tunnels}, MiB (squid)`,
      both(guard, squid, grown),
      { atMost: 60, unit: "MiB" },
    ),
    limited(
      "egress, largest delay of an event, ms (squid)",
      both(guard, squid, (one) => [one.events.delayMsMax]),
      { atMost: 10, unit: "ms" },
    ),
    limited(
      "egress, guard RSS idle, MiB (squid)",
      both(guard, squid, (one) => [one.idleMiB]),
      { atMost: 90, unit: "MiB" },
    ),
  ];
}

function cpuRow({ guard, squid, count }: { guard: Figures; squid: Figures; count: number }): Measurement {
  const runs = { ours: valuesOf(guard, count, "cpuMicros"), peer: valuesOf(squid, count, "cpuMicros") };
  return measured(`egress, CPU µs/request, ${count} conn. (squid)`, runs, { atMost: 1.2 });
}

function both(
  guard: Figures,
  peer: Figures | undefined,
  values: (one: Figures) => number[],
): { ours: number[]; peer?: number[] } {
  return peer === undefined ? { ours: values(guard) } : { ours: values(guard), peer: values(peer) };
}

function valuesOf(one: Figures, connections: number, field: keyof RequestLoad): number[] {
  return (one.requests.get(connections) ?? []).map((load) => load[field]);
}

/** Everything about one way, in one line. */
function describe(one: Figures): string {
  const of = (field: keyof RequestLoad, digits: number): string =>
    CONNECTIONS.map((count) => median(valuesOf(one, count, field)).toFixed(digits)).join(" / ");
  const down = (field: keyof Figures["downloads"][number], digits: number): string =>
    median(one.downloads.map((run) => run[field])).toFixed(digits);
  const { tunnels, grownMiB, openedMs } = one.tunnels;
  return [
    `${one.subject.name}, ${CONNECTIONS.join(" / ")} connections: ${of("requestsPerSecond", 0)} requests/s`,
    `p50 ${of("p50Ms", 2)} ms, p99 ${of("p99Ms", 2)} ms, CPU ${of("cpuMicros", 0)} µs/request, errors ${of("errors", 0)}`,
    `download ${down("mibPerSecond", 0)} MiB/s, ${down("cpuSecondsPerGib", 2)} CPU s/GiB, peak ${down("peakMiB", 0)} MiB`,
    `${tunnels} idle tunnels ${((grownMiB * 1024) / tunnels).toFixed(0)} KiB each, opened in ${openedMs.toFixed(0)} ms`,
    `event delay ${one.events.delayMsMax.toFixed(1)} ms, idle ${one.idleMiB.toFixed(0)} MiB`,
  ].join("; ");
}

function say(text: string): void {
  process.stderr.write(`  ${text}\n`);
}
