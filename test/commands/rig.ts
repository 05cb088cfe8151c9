import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Readable, Writable } from "node:stream";
import { createFakeBackend, World, type Program } from "../../backends/fake/index.ts";
import { admit } from "../../controller/api/admit.ts";
import type { Bottle, BottleSpec } from "../../controller/api/bottle.ts";
import { API_VERSION } from "../../controller/api/meta.ts";
import type { CommandContext } from "../../controller/commands/context.ts";
import { CommandError } from "../../controller/commands/exit.ts";
import { waitFor } from "../../controller/commands/wait.ts";
import { createBackendSet } from "../../controller/loop/backend-set.ts";
import { createController } from "../../controller/loop/controller.ts";
import { createEventRecorder } from "../../controller/loop/events.ts";
import type { Log } from "../../controller/ports/log.ts";
import { openDatabase } from "../../controller/stores/sqlite/open-database.ts";

const SILENT: Log = { debug() {}, info() {}, warn() {}, error() {} };
const DEADLINE_MS = 20_000;

export interface CliRig {
  context: CommandContext;
  world: World;
  /** A folder for files of the test. */
  dir: string;
  file(name: string, text: string): string;
  out(): string;
  err(): string;
  /** Forgets what was printed so far. */
  clear(): void;
  /** As Ctrl-C. */
  interrupt(): void;
  stdin(text: string): void;
  bottle(name?: string): Promise<Bottle>;
  create(spec?: Partial<BottleSpec>, name?: string): Promise<Bottle>;
  /** Waits until the bottle looks like this. */
  until(check: (bottle: Bottle) => boolean, name?: string): Promise<Bottle>;
  [Symbol.asyncDispose](): Promise<void>;
}

/** A command line over a store in memory and a fake engine; with `serve` the real control loop runs beside it. */
export function cliRig(options: { serve?: boolean; program?: Program } = {}): CliRig {
  const dir = mkdtempSync(join(tmpdir(), "bot-bottle-cli-"));
  const world = new World({ nowMs: Date.now() });
  // The engine and the controller share a clock, as they do on one machine: whether a run ended before it was stopped is a matter of times.
  const now = () => {
    world.advance(Math.max(0, Date.now() - world.now()));
    return world.now();
  };
  const database = openDatabase({ file: ":memory:", admission: admit, now });
  if (options.program !== undefined) world.program = options.program;
  const backend = createFakeBackend({ world, owner: database.installationId, now });
  const stop = new AbortController();
  const loop = new AbortController();
  const text = { out: "", err: "" };
  const context: CommandContext = {
    ...database,
    stateDir: dir,
    namespace: "default",
    backendNames: ["fake"],
    backend(name) {
      if (name !== "fake") throw new CommandError(1, `no backend "${name}" here`);
      return backend;
    },
    controllerPid: () => (options.serve === true ? process.pid : undefined),
    now,
    io: {
      stdin: Readable.from([]),
      stdout: capture((chunk) => (text.out += chunk)),
      stderr: capture((chunk) => (text.err += chunk)),
      isTerminal: false,
      showsOutput: false,
      color: false,
    },
    env: {},
    signal: stop.signal,
  };
  const running = options.serve === true ? serve(context, backend, loop.signal) : Promise.resolve();
  const rig: CliRig = {
    context,
    world,
    dir,
    file(name, content) {
      writeFileSync(join(dir, name), content);
      return join(dir, name);
    },
    out: () => text.out,
    err: () => text.err,
    clear: () => void Object.assign(text, { out: "", err: "" }),
    interrupt: () => stop.abort(),
    stdin: (content) => void (context.io.stdin = Readable.from([Buffer.from(content)])),
    async bottle(name = "b") {
      const bottle = await database.store.get("Bottle", { namespace: "default", name });
      if (bottle === undefined) throw new Error(`no bottle "${name}"`);
      return bottle;
    },
    create: (spec = {}, name = "b") =>
      database.store.create<"Bottle">({
        apiVersion: API_VERSION,
        kind: "Bottle",
        metadata: { name, namespace: "default" },
        spec: {
          operatingMode: "Running",
          agent: { provider: { type: "Custom", custom: { command: ["agent"] } } },
          turns: [{ id: "1", prompt: "hello" }],
          ...spec,
        },
      }),
    until: (check, name = "b") =>
      waitFor(
        { store: database.store, signal: loop.signal },
        { kind: "Bottle", key: { namespace: "default", name }, timeoutMs: DEADLINE_MS, what: `bottle "${name}"` },
        (bottle) => (bottle !== undefined && check(bottle) ? bottle : undefined),
      ),
    async [Symbol.asyncDispose]() {
      stop.abort();
      loop.abort();
      await running;
      database.close();
      rmSync(dir, { recursive: true, force: true });
    },
  };
  return rig;
}

function serve(context: CommandContext, backend: ReturnType<typeof createFakeBackend>, signal: AbortSignal) {
  const { store, journal, transcripts, auditLog, guardKey, now } = context;
  const controller = createController({
    store,
    journal,
    transcripts,
    auditLog,
    guardKey,
    backends: createBackendSet([backend], async () => ({ ok: true, name: "fake" })),
    events: createEventRecorder({ store, now, log: SILENT }),
    log: SILENT,
    now,
    random: () => 0.5,
    defaultImage: "image",
    workers: 2,
  });
  return controller.run(signal);
}

function capture(take: (text: string) => void): Writable {
  return new Writable({
    write(chunk: Buffer, _encoding, done) {
      take(chunk.toString("utf8"));
      done();
    },
  });
}

export function isFrozen(bottle: Bottle): boolean {
  const frozen = bottle.status?.conditions?.find((condition) => condition.type === "Frozen");
  return frozen?.status === "True" && bottle.status?.observedGeneration === bottle.metadata.generation;
}

export function runs(bottle: Bottle): boolean {
  return bottle.status?.turns?.some((turn) => turn.state === "Running") === true;
}

/** The exit code and first line of a refusal. */
export async function refusal(run: Promise<number>): Promise<{ exitCode: number; message: string }> {
  const { exitCodeOf } = await import("../../controller/commands/exit.ts");
  try {
    return { exitCode: await run, message: "it was not refused" };
  } catch (error) {
    return { exitCode: exitCodeOf(error), message: error instanceof Error ? error.message : String(error) };
  }
}
