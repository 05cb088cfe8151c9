import type { Bottle, BottleSpec } from "../../controller/api/bottle.ts";
import { API_VERSION } from "../../controller/api/meta.ts";
import type { SecretResource } from "../../controller/api/secret.ts";
import type { FollowedGuard, Heard } from "../../controller/loop/audit-collector.ts";
import type { EgressCounters } from "../../controller/ports/audit.ts";
import { openDatabase, type OpenedDatabase } from "../../controller/stores/sqlite/open-database.ts";
import type { AgentRun, Backend, Blueprint, Observation } from "../../controller/ports/backend.ts";
import { BackendError } from "../../controller/ports/backend.ts";
import type { EventRecorder, EventSubject, EventText } from "../../controller/ports/events.ts";
import type { Log } from "../../controller/ports/log.ts";
import type { Draft } from "../../controller/ports/store.ts";

export const SILENT: Log = { debug() {}, info() {}, warn() {}, error() {} };

/** A promise that is settled from outside. */
export interface Deferred<T> {
  promise: Promise<T>;
  resolve: (value: T) => void;
  reject: (error: unknown) => void;
}

export function deferred<T>(): Deferred<T> {
  const parts: Partial<Deferred<T>> = {};
  const promise = new Promise<T>((resolve, reject) => Object.assign(parts, { resolve, reject }));
  const { resolve = ignore, reject = ignore } = parts;
  return { promise, resolve, reject };
}

function ignore(): void {}

/** Lets everything run that waits for nothing but its turn. */
export function settled(): Promise<void> {
  return new Promise((done) => setImmediate(done));
}

/** Waits for a state. The deadline is generous, because no test proves speed. */
export async function until(what: string, holds: () => boolean | Promise<boolean>): Promise<void> {
  const endMs = performance.now() + 10_000;
  while (!(await holds())) {
    if (performance.now() > endMs) throw new Error(`not ${what} within ten seconds`);
    await new Promise((done) => setTimeout(done, 10));
  }
}

/** A store in memory that admits everything: admission has tests of its own. */
export function memoryDatabase(now: () => number = Date.now): OpenedDatabase {
  return openDatabase({ file: ":memory:", admission: (_kind, object) => object, now });
}

export function bottleDraft(name: string, spec: Partial<BottleSpec> = {}): Draft<Bottle> {
  const agent = { provider: { type: "Custom" as const, custom: { command: ["work"] } } };
  return {
    apiVersion: API_VERSION,
    kind: "Bottle",
    metadata: { name, namespace: "default" },
    spec: { agent, operatingMode: "Running", turns: [{ id: "1", prompt: "do 1" }], ...spec },
  };
}

export function recordedEvents(): { events: EventRecorder; told: (EventText & { about: EventSubject })[] } {
  const told: (EventText & { about: EventSubject })[] = [];
  return {
    told,
    events: {
      async record(about, event) {
        told.push({ about, ...event });
      },
    },
  };
}

/** A backend that writes down what it is asked; `answers` says what else a verb does. Nothing is ever there. */
export function recordingBackend(answers: Partial<Backend> = {}): { backend: Backend; calls: unknown[][] } {
  const calls: unknown[][] = [];
  const note =
    (verb: string) =>
    async (...args: unknown[]): Promise<void> => {
      calls.push([verb, ...args.filter((arg) => !(arg instanceof AbortSignal))]);
    };
  const backend: Backend = {
    name: "fake",
    features: { images: true, limits: { cpu: true, memory: true, pids: true } },
    available: async () => ({ ok: true, version: "1" }),
    observe: async (): Promise<Observation> => ({ atMs: 0, bottles: new Map() }),
    watch() {},
    prepare: note("prepare"),
    async probe(unit) {
      calls.push(["probe", unit]);
      return { passed: true, detail: "all is sealed" };
    },
    async configureGuard(unit, config) {
      calls.push(["configureGuard", unit, config]);
      return { digest: config.digest, caCertificate: CA };
    },
    async readAudit(_unit, { cursor }) {
      return { lines: [], cursor, health: { ok: true } };
    },
    createAgent: (blueprint: Blueprint, run: AgentRun) => note("createAgent")(blueprint, run),
    startAgent: note("startAgent"),
    stopAgent: (unit, { graceMs }) => note("stopAgent")(unit, graceMs),
    removeUnits: note("removeUnits"),
    removeDisk: note("removeDisk"),
    async *logs(unit) {
      calls.push(["logs", unit]);
      yield new TextEncoder().encode("what it wrote\n");
    },
    exec: notUsed,
    createDisk: note("createDisk"),
    copyIn: note("copyIn"),
    copyOut: notUsed,
    ...answers,
  };
  return { backend, calls };
}

/** The authority that the guards of the recording backend have. */
export const CA = "-----BEGIN CERTIFICATE-----\nguard\n-----END CERTIFICATE-----\n";
export const GUARD_KEY = new Uint8Array(32).fill(1);

/** A collector that writes down what it is asked to drain, and has heard what the test says. */
export function recordingCollector(said: { heard?: Heard; counters?: EgressCounters } = {}) {
  const drained: { uid: string; guardId: string }[] = [];
  return {
    drained,
    collector: {
      async drain({ uid, guardId }: FollowedGuard) {
        drained.push({ uid, guardId });
      },
      heard: () => said.heard,
      counters: () => said.counters,
    },
  };
}

export function secretDraft(name: string, values: Record<string, string>): Draft<SecretResource> {
  const data = Object.entries(values).map(([key, value]) => [key, Buffer.from(value).toString("base64")]);
  const metadata = { name, namespace: "default" };
  return { apiVersion: "v1", kind: "Secret", metadata, type: "Opaque", data: Object.fromEntries(data) };
}

function notUsed(): Promise<never> {
  return Promise.reject(new BackendError("Unavailable", "NotUsed", "this verb is not used here"));
}
