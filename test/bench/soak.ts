import { CONNECTIONS_MAX } from "../../backends/guard/doors.ts";
import { openTunnel, type Tunnel } from "../helpers/tunnel-client.ts";
import { startWorld, type World } from "../helpers/world.ts";
import { limited, measured, median, reported, type Measurement } from "./measurement.ts";
import { memoryMiB } from "./processes.ts";

const REQUESTS = 100_000;
const WORKERS = Math.min(16, CONNECTIONS_MAX);
const SAMPLE_EVERY = 500;
const AUDIT_DRAIN_MS_MAX = 30_000;
const HOST = "soak.test";
const STRANGER = "stranger.test";
const SECRET = "soak-secret-that-must-not-leave";
const SMALL = Buffer.alloc(10 * 1024, "a small body, ");
const LARGE = Buffer.alloc(300 * 1024, "a large body; ");
const LEAK = Buffer.from(JSON.stringify({ text: "x".repeat(2_000), key: SECRET }));

/** One kind of request and what must be answered. */
interface Kind {
  /** Of 100. */
  share: number;
  status: number;
  request: { method?: string; path: string; body?: Buffer };
  /** On a new tunnel, closed afterwards. */
  tunnel?: "new" | "stranger";
}

const KINDS: readonly Kind[] = [
  { share: 58, status: 200, request: { path: "/status" } },
  { share: 14, status: 200, request: { method: "POST", path: "/upload", body: SMALL } },
  { share: 2, status: 200, request: { method: "POST", path: "/upload", body: LARGE } },
  { share: 3, status: 200, request: { path: "/events?n=5&ms=1" } },
  { share: 8, status: 403, request: { method: "DELETE", path: "/status" } },
  { share: 2, status: 403, request: { path: `/status?key=${SECRET}` } },
  { share: 7, status: 403, request: { method: "POST", path: "/upload", body: LEAK } },
  { share: 4, status: 200, request: { path: "/headers" }, tunnel: "new" },
  { share: 2, status: 403, request: { path: "/" }, tunnel: "stranger" },
];

/** The same mixture in every stretch of 100 requests, so that memory can be compared between parts of the run. */
const PATTERN = KINDS.flatMap((kind) => Array.from({ length: kind.share }, () => kind)).map(
  (_, index, all) => all[(index * 37) % all.length] ?? KINDS[0],
);

interface Soak {
  world: World;
  done: number;
  unexpected: number;
  rssMiB: number[];
}

/** A long life in a short time: what grows with the number of requests, and whether each left its line in the audit. */
export async function benchSoak(): Promise<Measurement[]> {
  await using world = await startWorld({ hosts: [HOST, STRANGER] });
  const rules = [world.rule({ name: "soak", host: HOST, methods: ["GET", "POST"] })];
  await world.configure({ secrets: { "soak/key": SECRET }, policy: { rules } });
  const soak: Soak = { world, done: 0, unexpected: 0, rssMiB: [] };
  const audit = countAudit(world);
  const began = performance.now();
  await Promise.all(Array.from({ length: WORKERS }, () => work(soak)));
  const seconds = (performance.now() - began) / 1000;
  const lines = await audit.total();
  process.stderr.write(`  ${REQUESTS} requests in ${seconds.toFixed(0)} s; lines by verdict: ${audit.text()}\n`);
  const third = Math.floor(soak.rssMiB.length / 3);
  const [first, middle, last] = [0, 1, 2].map((n) => median(soak.rssMiB.slice(n * third, (n + 1) * third)));
  return [
    reported("soak, RSS of the last third and of the first, MiB", { ours: [last ?? 0], peer: [first ?? 0] }),
    measured(
      "soak, RSS of the last third and of the middle one, MiB",
      { ours: [last ?? 0], peer: [middle ?? 0] },
      { atMost: 1.15 },
    ),
    measured("soak, lines in the audit and requests", { ours: [lines], peer: [REQUESTS] }, { atLeast: 1 }),
    limited("soak, unexpected answers", { ours: [soak.unexpected] }, { atMost: 0, unit: "answers" }),
  ];
}

async function work(soak: Soak): Promise<void> {
  let kept: Tunnel | undefined;
  while (soak.done < REQUESTS) {
    const kind = PATTERN[soak.done % PATTERN.length];
    soak.done += 1;
    if (soak.done % SAMPLE_EVERY === 0) sample(soak);
    if (kind === undefined) continue;
    try {
      if (kind.tunnel !== undefined) {
        await onNewTunnel(soak, kind);
        continue;
      }
      kept = kept === undefined || kept.socket.destroyed ? await open(soak.world, HOST) : kept;
      const { status, headers } = await kept.ask(kind.request);
      if (status !== kind.status) soak.unexpected += 1;
      if (headers.connection === "close") kept.close();
    } catch {
      soak.unexpected += 1;
      kept?.close();
    }
  }
  kept?.close();
}

async function onNewTunnel(soak: Soak, kind: Kind): Promise<void> {
  const tunnel = await open(soak.world, kind.tunnel === "stranger" ? STRANGER : HOST);
  try {
    const { status } = await tunnel.ask(kind.request);
    if (status !== kind.status) soak.unexpected += 1;
  } finally {
    tunnel.close();
  }
}

function open({ guard, upstream }: World, host: string): Promise<Tunnel> {
  const credentials = `bottle:${guard.token}`;
  return openTunnel({ proxy: { port: guard.port }, credentials, authority: `${host}:${upstream.port}` });
}

/** What the upstream saw is dropped: the memory that counts is the guard's, and this process has to last. */
function sample({ world, rssMiB }: Soak): void {
  world.upstream.seen.length = 0;
  rssMiB.push(memoryMiB(world.guard.pid));
}

/** Reads the audit as the controller does, all the time, and counts the lines of requests. */
function countAudit({ guard }: World): { total(): Promise<number>; text(): string } {
  const verdicts = new Map<string, number>();
  let [count, isOver, deadline] = [0, false, 0];
  const read = async (): Promise<void> => {
    for (let cursor = ""; ;) {
      const page = await guard.audit({ cursor, waitMs: 500 });
      cursor = page.cursor;
      for (const { kind, verdict, rule } of page.lines) {
        if (kind !== "request") continue;
        count += 1;
        const key = verdict === "Allowed" ? verdict : `${verdict} by ${rule}`;
        verdicts.set(key, (verdicts.get(key) ?? 0) + 1);
      }
      if (isOver && (page.lines.length === 0 || performance.now() > deadline)) return;
    }
  };
  const reading = read();
  return {
    async total() {
      isOver = true;
      deadline = performance.now() + AUDIT_DRAIN_MS_MAX;
      await reading;
      return count;
    },
    text: () => [...verdicts].map(([verdict, lines]) => `${verdict} ${lines}`).join(", "),
  };
}
