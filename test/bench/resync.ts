import { createFakeBackend, World } from "../../backends/fake/index.ts";
import { admit } from "../../controller/api/admit.ts";
import type { Bottle } from "../../controller/api/bottle.ts";
import { conditionOf } from "../../controller/api/conditions.ts";
import { API_VERSION, keyOf, keyText } from "../../controller/api/meta.ts";
import { createAuditCollector } from "../../controller/loop/audit-collector.ts";
import { createBackendSet, type BackendSet } from "../../controller/loop/backend-set.ts";
import { Cache } from "../../controller/loop/cache.ts";
import { deepEqual } from "../../controller/api/deep-equal.ts";
import { createJournals } from "../../controller/loop/journals.ts";
import { Queue } from "../../controller/loop/queue.ts";
import { Reconciler } from "../../controller/loop/reconcile.ts";
import { planBottle } from "../../controller/plan/plan-bottle.ts";
import type { Backend } from "../../controller/ports/backend.ts";
import type { JournalEntry } from "../../controller/ports/journal.ts";
import { openDatabase, type OpenedDatabase } from "../../controller/stores/sqlite/open-database.ts";
import { complain } from "./installation.ts";
import { limited, measured, type Measurement } from "./measurement.ts";
import { realisticBottle } from "./objects.ts";

const BOTTLES = 10_000;
const ROUNDS = 9;
const WORKERS = 8;
const NOW_MS = Date.parse("2026-01-02T00:00:00Z");
const now = (): number => NOW_MS;
const WRITES = ["create", "update", "patchStatus", "delete", "append", "forget", "save"];

/** Work that others asked of the store and the backend. */
interface Counts {
  writes: number;
  looks: number;
}

/** One pass over ten thousand finished bottles in which nothing changed, against comparing the same objects with copies. Needs node --expose-gc. */
export async function benchResync(): Promise<Measurement[]> {
  const database = openDatabase({ file: ":memory:", admission: admit, now });
  const world = new World({ nowMs: NOW_MS });
  const fake = createFakeBackend({ world, owner: database.installationId });
  await fill(database, world);
  // The first pass writes each status; it is not measured.
  await passOver(await loop(database, fake));

  const counts: Counts = { writes: 0, looks: 0 };
  const listBytes = await listSize(database);
  const before = heapBytes();
  const parts = await loop(counting(database, counts), watched(fake, counts));
  const heap = heapBytes() - before;
  const copies = structuredClone([...parts.cache.bottles()]);

  await passOver(parts);
  assertAtRest(parts.cache);
  Object.assign(counts, { writes: 0, looks: 0 });
  const ours: number[] = [];
  const peer: number[] = [];
  for (let round = 0; round < ROUNDS; round += 1) {
    ours.push(await timed(() => passOver(parts)));
    peer.push(await timed(async () => compareAll([...parts.cache.bottles()], copies)));
  }
  database.close();
  const size = Math.round(listBytes / BOTTLES);
  return [
    measured(`resync of ${BOTTLES} unchanged bottles of ${size} bytes, ms`, { ours, peer }, { atMost: 3 }),
    limited("writes of a resync", { ours: [counts.writes] }, { atMost: 0, unit: "writes" }),
    limited("looks at the backend of a resync", { ours: [counts.looks / ROUNDS] }, { atMost: 2, unit: "looks" }),
    measured("heap of the cache against the list's JSON, MB", mega(heap, listBytes), { atMost: 2.5 }),
  ];
}

/** On its own, so that nothing of the list is alive when the heap is measured. */
async function listSize({ store }: OpenedDatabase): Promise<number> {
  const { items } = await store.list("Bottle");
  return Buffer.byteLength(JSON.stringify(items));
}

interface Loop {
  cache: Cache;
  queue: Queue;
  backends: BackendSet;
  marks: Map<string, number>;
}

/** The parts of a controller, put together as it does it, without its timers. */
async function loop(database: OpenedDatabase, backend: Backend): Promise<Loop> {
  const log = { debug() {}, info() {}, warn: complain, error: complain };
  const backends = createBackendSet([backend], async () => ({ ok: true, name: backend.name }));
  const cache = new Cache(database.store, log);
  await cache.load();
  const reconciler = new Reconciler({
    ...database,
    cache,
    journals: createJournals(database.journal),
    backends,
    collector: createAuditCollector({ auditLog: database.auditLog, log, now, changed() {} }),
    events: { record: async () => {} },
    log,
    now,
    defaultImage: "image",
    plan: planBottle,
    signal: new AbortController().signal,
  });
  const marks = new Map<string, number>();
  const queue = new Queue({
    workers: WORKERS,
    now,
    random: () => 0.5,
    process: async (key) => {
      const result = await reconciler.reconcile(key, marks.get(key) ?? backends.mark());
      return result.requeueAfterMs === undefined ? undefined : { requeueAfterMs: result.requeueAfterMs };
    },
  });
  return { cache, queue, backends, marks };
}

async function passOver({ cache, queue, backends, marks }: Loop): Promise<void> {
  for (const bottle of cache.bottles()) {
    const key = keyText(keyOf(bottle));
    marks.set(key, backends.mark());
    queue.add(key);
  }
  await queue.idle();
}

/** What is measured must be what was meant. */
function assertAtRest(cache: Cache): void {
  for (const bottle of cache.bottles()) {
    const frozen = conditionOf(bottle.status?.conditions, "Frozen");
    const finished = conditionOf(bottle.status?.conditions, "Finished");
    if (frozen?.status !== "True" || finished?.status !== "True") {
      throw new Error(`bottle "${bottle.metadata.name}" is not at rest: ${JSON.stringify(bottle.status?.conditions)}`);
    }
  }
}

function compareAll(objects: readonly Bottle[], copies: readonly Bottle[]): void {
  for (const [index, object] of objects.entries()) {
    const copy = copies[index];
    if (!deepEqual(object, copy)) throw new Error(`copy of "${object.metadata.name}" differs`);
  }
}

/** Bottles that have worked, each with its journal, and their disks on the backend. */
async function fill({ store, journal, installationId }: OpenedDatabase, world: World): Promise<void> {
  const custom = { command: ["/usr/local/bin/implement", "--headless"] };
  await store.create<"Agent">({
    apiVersion: API_VERSION,
    kind: "Agent",
    metadata: { name: "implementer" },
    spec: { provider: { type: "Custom", custom } },
  });
  for (const name of ["claude", "dev"]) {
    const env = ["LANG", "EDITOR", `${name.toUpperCase()}_MODE`].map((variable) => ({ name: variable, value: name }));
    const spec = { image: `registry.example/team/${name}:1`, env, resources: { cpu: "1", memory: "2Gi" } };
    await store.create<"BottleTemplate">({ apiVersion: API_VERSION, kind: "BottleTemplate", metadata: { name }, spec });
  }
  for (let n = 0; n < BOTTLES; n += 1) {
    const { metadata } = await store.create<"Bottle">(realisticBottle(`bottle-${n}`));
    const { uid, namespace, name } = metadata;
    await journal.append(uid, history());
    for (const part of ["home", "workspace"] as const) {
      const id = `bot-bottle-${uid}-${part}`;
      const identity = { uid, namespace, name, id, owner: installationId };
      world.volumes.set(id, { ...identity, part, createdMs: NOW_MS - 5000, seeded: true, files: new Map() });
    }
  }
}

function history(): JournalEntry[] {
  const timeMs = NOW_MS - 5000;
  const turns = ["one", "two"].flatMap((turn): JournalEntry[] => [
    { type: "TurnStarting", timeMs, turn, attempt: 1 },
    { type: "TurnFinished", timeMs, turn, attempt: 1, outcome: "Done", exitCode: 0, startMs: timeMs, endMs: timeMs },
  ]);
  return [
    { type: "LaunchIntended", timeMs, backend: "fake", generation: 1, templateDigest: "sha256:0" },
    { type: "Probed", timeMs, holderId: "holder", passed: true, detail: "loopback only; no route" },
    ...turns,
    { type: "Frozen", timeMs },
  ];
}

/** Counts what is written, to the store, the journal and the transcripts. */
function counting(database: OpenedDatabase, counts: Counts): OpenedDatabase {
  const counted = <T extends object>(port: T): T =>
    new Proxy(port, {
      get(target, name) {
        if (WRITES.includes(String(name))) counts.writes += 1;
        return Reflect.get(target, name) as unknown;
      },
    });
  const { store, journal, transcripts } = database;
  return { ...database, store: counted(store), journal: counted(journal), transcripts: counted(transcripts) };
}

function watched(backend: Backend, counts: Counts): Backend {
  return {
    ...backend,
    observe: (signal) => {
      counts.looks += 1;
      return backend.observe(signal);
    },
  };
}

async function timed(work: () => Promise<void>): Promise<number> {
  globalThis.gc?.();
  const began = performance.now();
  await work();
  return performance.now() - began;
}

function heapBytes(): number {
  if (globalThis.gc === undefined) throw new Error("the heap cannot be measured: run node with --expose-gc");
  for (let n = 0; n < 3; n += 1) globalThis.gc();
  return process.memoryUsage().heapUsed;
}

function mega(ours: number, peer: number): { ours: number[]; peer: number[] } {
  return { ours: [ours / 1e6], peer: [peer / 1e6] };
}
