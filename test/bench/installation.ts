import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createBackend } from "../../backends/index.ts";
import { admit } from "../../controller/api/admit.ts";
import type { Bottle } from "../../controller/api/bottle.ts";
import { runController } from "../../controller/commands/run-controller.ts";
import { waitFor } from "../../controller/commands/wait.ts";
import { createEventRecorder } from "../../controller/loop/events.ts";
import type { Backend } from "../../controller/ports/backend.ts";
import type { Log } from "../../controller/ports/log.ts";
import type { Store } from "../../controller/ports/store.ts";
import { openDatabase } from "../../controller/stores/sqlite/open-database.ts";

const STATE_MS_MAX = 60_000;

/** Called around every request to the engine and after every step, to see where the time goes. */
export type Trace = (what: string) => void;

/** A whole installation in this process, as `bot-bottle serve` runs it: store on disk, control loop, Docker. */
export interface Installation {
  store: Store;
  backend: Backend;
  /** Owner label of all that it makes. */
  owner: string;
  /** Waits until the bottle looks like this (absent: `undefined`) and says when that was seen. */
  until(name: string, check: (bottle: Bottle | undefined) => boolean): Promise<{ bottle?: Bottle; atMs: number }>;
  /** Deletes all bottles, waits until they are destroyed, and ends. */
  end(): Promise<void>;
}

export async function startInstallation(options: { image: string; trace?: Trace | undefined }): Promise<Installation> {
  const stateDir = mkdtempSync(join(tmpdir(), "bot-bottle-bench-"));
  const now = Date.now;
  const log = traceLog(options.trace);
  const database = openDatabase({ file: join(stateDir, "bot-bottle.db"), admission: admit, now });
  const { store, installationId: owner } = database;
  const failpoint = (label: string, phase: string) => options.trace?.(`engine ${phase} ${label}`);
  const backend = createBackend("docker", { stateDir, owner, now, log, failpoint });
  const stop = new AbortController();
  const events = createEventRecorder({ store, log, now });
  const parts = { ...database, backends: [backend], events, log, now, backendName: "docker" };
  let running: Promise<void> = Promise.resolve();
  await new Promise<void>((ready, failed) => {
    running = runController({ ...parts, defaultImage: options.image, signal: stop.signal, ready });
    running.catch(failed);
  });

  const until: Installation["until"] = async (name, check) => {
    const target = { kind: "Bottle", timeoutMs: STATE_MS_MAX, what: `bottle "${name}"` } as const;
    const key = { namespace: "default", name };
    return waitFor({ store, signal: stop.signal }, { ...target, key }, (bottle) =>
      check(bottle) ? { bottle, atMs: wallMs() } : undefined,
    );
  };
  return {
    store,
    backend,
    owner,
    until,
    async end() {
      const { items } = await store.list("Bottle");
      for (const { metadata } of items) {
        await store.delete("Bottle", metadata);
        await until(metadata.name, (bottle) => bottle === undefined);
      }
      stop.abort();
      await running;
      database.close();
      rmSync(stateDir, { recursive: true, force: true });
    },
  };
}

/** The wall clock, which the engine's times are of, in fractions of a millisecond. */
export function wallMs(): number {
  return performance.timeOrigin + performance.now();
}

function traceLog(trace: Trace | undefined): Log {
  const tell = (fields: object, message: string): void => trace?.(`${message} ${JSON.stringify(fields)}`);
  return trace === undefined
    ? { debug: silent, info: silent, warn: complain, error: complain }
    : { debug: tell, info: tell, warn: tell, error: tell };
}

function silent(): void {}

export function complain(fields: object, message: string): void {
  process.stderr.write(`${message} ${JSON.stringify(fields)}\n`);
}
