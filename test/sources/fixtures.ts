import { mkdirSync, mkdtempSync, realpathSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { admit } from "../../controller/api/admit.ts";
import type { Bottle } from "../../controller/api/bottle.ts";
import { createEventRecorder } from "../../controller/loop/events.ts";
import type { Log } from "../../controller/ports/log.ts";
import type { Store } from "../../controller/ports/store.ts";
import type { DeclaredDraft } from "../../controller/sources/apply.ts";
import { createFolderSource, type FolderSource } from "../../controller/sources/files.ts";
import { openDatabase } from "../../controller/stores/sqlite/open-database.ts";

export const SILENT: Log = { debug() {}, info() {}, warn() {}, error() {} };

/** A clock that stands still until a test moves it. */
export function handClock(startMs = Date.parse("2026-01-01T00:00:00Z")) {
  let nowMs = startMs;
  return { now: () => nowMs, advance: (ms: number) => void (nowMs += ms) };
}

export function memoryStore(now: () => number = () => Date.now()) {
  return openDatabase({ file: ":memory:", admission: admit, now });
}

/** The same store, with a count of what was written through it. */
export function countingStore(store: Store): { store: Store; writes: () => string[] } {
  const writes: string[] = [];
  const counted: Store = {
    ...store,
    create: (draft) => (writes.push(`create ${draft.metadata.name}`), store.create(draft)),
    update: (object) => (writes.push(`update ${object.metadata.name}`), store.update(object)),
    delete: (kind, key, options) => (writes.push(`delete ${key.name}`), store.delete(kind, key, options)),
  };
  return { store: counted, writes: () => writes };
}

export interface FolderRig {
  dir: string;
  store: Store;
  source: FolderSource;
  sourceName: string;
  writes: () => string[];
  clock: ReturnType<typeof handClock>;
  write(path: string, text: string): void;
  remove(path: string): void;
  /** Looks until what is there was stable, and once more. */
  settle(): Promise<void>;
  /** Looks twice, more than the time apart after which an absent declaration counts as gone. */
  pass(): Promise<void>;
  bottle(name: string): Promise<Bottle | undefined>;
  bottles(): Promise<string[]>;
  events(): Promise<string[]>;
  [Symbol.asyncDispose](): Promise<void>;
}

/** A watched folder over a store in memory; time moves by hand, so that nothing is waited for. */
export function folderRig(reuse?: { dir: string; store: Store }): FolderRig {
  const clock = handClock();
  const dir = reuse?.dir ?? realpathSync(mkdtempSync(join(tmpdir(), "bot-bottle-folder-")));
  const database = reuse === undefined ? memoryStore(clock.now) : undefined;
  const inner = reuse?.store ?? database?.store;
  if (inner === undefined) throw new Error("a rig needs a store");
  const { store, writes } = countingStore(inner);
  const events = createEventRecorder({ store: inner, now: clock.now, log: SILENT });
  const source = createFolderSource({ dir, store, events, log: SILENT, now: clock.now });
  return {
    dir,
    store: inner,
    source,
    sourceName: `folder:${dir}`,
    writes,
    clock,
    write(path, text) {
      mkdirSync(dirname(join(dir, path)), { recursive: true });
      writeFileSync(join(dir, path), text);
    },
    remove: (path) => rmSync(join(dir, path), { recursive: true }),
    async settle() {
      await source.scan();
      clock.advance(300);
      await source.scan();
    },
    async pass() {
      await this.settle();
      clock.advance(1000);
      await source.scan();
    },
    bottle: (name) => inner.get("Bottle", { namespace: "default", name }),
    async bottles() {
      return (await inner.list("Bottle")).items.map((bottle) => bottle.metadata.name);
    },
    async events() {
      const { items } = await inner.list("Event");
      return items.map((event) => `${event.involvedObject.kind} ${event.reason}: ${event.message}`);
    },
    async [Symbol.asyncDispose]() {
      database?.close();
      if (reuse === undefined) rmSync(dir, { recursive: true, force: true });
    },
  };
}

export async function withFolder(body: (rig: FolderRig) => Promise<void>): Promise<void> {
  await using rig = folderRig();
  await body(rig);
}

export function bottleYaml(name: string, more: { turns?: string[]; spec?: string } = {}): string {
  const turns = (more.turns ?? ["say hello"]).map(
    (prompt, index) => `    - { id: "${index + 1}", prompt: "${prompt}" }`,
  );
  return [
    "apiVersion: bot-bottle.dev/v1alpha1",
    "kind: Bottle",
    `metadata: { name: ${name} }`,
    "spec:",
    "  agent: { provider: { type: Custom, custom: { command: [sh] } } }",
    ...(more.spec === undefined ? [] : [`  ${more.spec}`]),
    ...(turns.length === 0 ? [] : ["  turns:", ...turns]),
    "",
  ].join("\n");
}

export function templateYaml(name: string, extendsName?: string): string {
  const base = extendsName === undefined ? "" : `extendsRef: { name: ${extendsName} }, `;
  return [
    "apiVersion: bot-bottle.dev/v1alpha1",
    "kind: BottleTemplate",
    `metadata: { name: ${name} }`,
    `spec: { ${base}env: [{ name: A, value: b }] }`,
    "",
  ].join("\n");
}

export function bottleDraft(name: string, spec: object = {}): DeclaredDraft {
  return {
    apiVersion: "bot-bottle.dev/v1alpha1",
    kind: "Bottle",
    metadata: { name, namespace: "default" },
    spec: {
      agent: { provider: { type: "Custom", custom: { command: ["sh"] } } },
      turns: [{ id: "1", prompt: "say hello" }],
      ...spec,
    },
  } as unknown as DeclaredDraft;
}
