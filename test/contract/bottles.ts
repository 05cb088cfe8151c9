import { randomUUID } from "node:crypto";
import { Readable } from "node:stream";
import { setTimeout as delay } from "node:timers/promises";
import tar from "tar-stream";
import type {
  AgentRun,
  Backend,
  Blueprint,
  BottleView,
  ExecSession,
  Role,
  Unit,
} from "../../controller/ports/backend.ts";
import { BackendError } from "../../controller/ports/backend.ts";
import type { TurnKey } from "../../controller/ports/journal.ts";
import { shellArgv, type Program } from "./programs.ts";

/** One backend under test, and what the suite must know about it. */
export interface Bed {
  backend: Backend;
  /** Another installation on the same engine: the same backend with another owner. */
  stranger: Backend;
  /** One more controller of the same installation, as after a restart. */
  another?(): Backend;
  /** The clock the backend's times are on. Default: this machine's. */
  now?(): number;
  /** The agent's image; absent for backends that run programs of the host. */
  image?: string;
  /** An image with curl; absent for backends that run programs of the host. */
  toolsImage?: string;
  /** Default: a command line of a POSIX shell. */
  argv?(program: Program): string[];
  close(): Promise<void>;
}

/** What a file of rules needs: bottles on one bed, once the suite has begun. */
export interface Suite {
  readonly bottles: Bottles;
}

export const FIRST = { turn: "1", attempt: 1 };
export const GRACE_MS = 500;

/** How long a state may take to come about. Generous: no test here measures speed. */
const DEADLINE_MS = 20_000;
const POLL_MS = 40;

/** The bottles of one suite: makes them with fresh uids and removes all of them at the end. */
export class Bottles {
  readonly bed: Bed;
  readonly #uids = new Set<string>();

  constructor(bed: Bed) {
    this.bed = bed;
  }

  blueprint(overrides: Partial<Blueprint> = {}): Blueprint {
    const uid = overrides.uid ?? randomUUID();
    this.#uids.add(uid);
    return {
      uid,
      namespace: "default",
      name: `bottle-${uid.slice(0, 8)}`,
      generation: 1,
      specHash: "spec-1",
      image: this.bed.image,
      env: {},
      limits: {},
      ...overrides,
    };
  }

  async prepared(overrides: Partial<Blueprint> = {}): Promise<Blueprint> {
    const blueprint = this.blueprint(overrides);
    await this.bed.backend.prepare(blueprint);
    return blueprint;
  }

  run(program: Program, more: Partial<AgentRun> = {}): AgentRun {
    return { turn: "1", attempt: 1, argv: this.argv(program), env: {}, ...more };
  }

  argv(program: Program): string[] {
    return this.bed.argv?.(program) ?? shellArgv(program);
  }

  /** Creates and starts an agent. */
  async started(blueprint: Blueprint, program: Program, more: Partial<AgentRun> = {}): Promise<AgentRun> {
    const run = this.run(program, more);
    await this.bed.backend.createAgent(blueprint, run);
    await this.bed.backend.startAgent({ uid: blueprint.uid, turn: run.turn, attempt: run.attempt });
    return run;
  }

  /** Runs an agent to its end: its exit code and what it printed. */
  async ran(blueprint: Blueprint, program: Program, more: Partial<AgentRun> = {}) {
    const run = await this.started(blueprint, program, more);
    const unit = await this.exited(blueprint.uid, run);
    return { code: unit.exit?.code, text: await this.output(blueprint.uid, run) };
  }

  /** What an observation shows of one bottle; the order of its parts means nothing. */
  async view(uid: string): Promise<BottleView | undefined> {
    const view = (await this.bed.backend.observe()).bottles.get(uid);
    return view && { ...view, units: view.units.toSorted(byId), disk: view.disk.toSorted(byId) };
  }

  /** The view once `holds`; fails with the last one after the deadline. */
  async until(uid: string, what: string, holds: (view: BottleView | undefined) => boolean) {
    const endMs = Date.now() + DEADLINE_MS;
    for (;;) {
      const view = await this.view(uid);
      if (holds(view)) return view;
      if (Date.now() > endMs) throw new Error(`not ${what} within ${DEADLINE_MS} ms: ${JSON.stringify(view)}`);
      await delay(POLL_MS);
    }
  }

  async agentIn(uid: string, key: TurnKey, state: Unit["state"]): Promise<Unit> {
    const isIt = (view: BottleView | undefined) => agentOf(view, key)?.state === state;
    const unit = agentOf(await this.until(uid, `${state} agent ${key.turn}/${key.attempt}`, isIt), key);
    if (unit === undefined) throw new Error("the agent vanished");
    return unit;
  }

  exited(uid: string, key: TurnKey): Promise<Unit> {
    return this.agentIn(uid, key, "exited");
  }

  async output(uid: string, key: TurnKey): Promise<string> {
    const { turn, attempt } = key;
    return text(this.bed.backend.logs({ uid, turn, attempt }, { follow: false }));
  }

  /** Ends agents that a failed test may have left, so that they do not change what the next one sees. */
  async stopAgents(uid: string): Promise<void> {
    for (const { role, state, turn } of (await this.view(uid))?.units ?? []) {
      if (role !== "agent" || state !== "running" || turn === undefined) continue;
      await this.bed.backend.stopAgent({ uid, ...turn }, { graceMs: GRACE_MS });
    }
  }

  /** Freezes: the disk alone stays. */
  async removeUnits(uid: string): Promise<void> {
    const units = (await this.view(uid))?.units ?? [];
    await this.bed.backend.removeUnits(
      uid,
      units.map((unit) => unit.id),
    );
  }

  async removeAll(): Promise<void> {
    for (const backend of [this.bed.backend, this.bed.stranger]) {
      const { bottles } = await backend.observe();
      for (const uid of this.#uids) {
        const units = bottles.get(uid)?.units ?? [];
        await backend.removeUnits(
          uid,
          units.map((unit) => unit.id),
        );
        await backend.removeDisk(uid);
      }
    }
    this.#uids.clear();
  }
}

export function agentOf(view: BottleView | undefined, key: TurnKey): Unit | undefined {
  return view?.units.find(
    (unit) => unit.role === "agent" && unit.turn?.turn === key.turn && unit.turn.attempt === key.attempt,
  );
}

export function unitOf(view: BottleView | undefined, role: Role): Unit {
  const unit = view?.units.find((one) => one.role === role);
  if (unit === undefined) throw new Error(`no ${role} in ${JSON.stringify(view)}`);
  return unit;
}

/** Role and state of every unit, in a stable order. */
export function states(view: BottleView | undefined): string[] {
  return (view?.units ?? []).map((unit) => `${unit.role} ${unit.state}`).sort();
}

/** Parts of the disk that are kept, in a stable order. */
export function parts(view: BottleView | undefined): string[] {
  return (view?.disk ?? [])
    .map((disk) => disk.part)
    .filter((part) => part !== "sockets")
    .sort();
}

/** What a verb failed with; a failure of another class is a failure of the test. */
export async function failure(act: Promise<unknown>): Promise<BackendError | undefined> {
  try {
    await act;
    return undefined;
  } catch (error) {
    if (error instanceof BackendError) return error;
    throw new Error("a verb failed with something that is not a BackendError", { cause: error });
  }
}

function byId(a: { id: string }, b: { id: string }): number {
  return a.id < b.id ? -1 : 1;
}

export async function text(chunks: AsyncIterable<unknown>): Promise<string> {
  const all: Uint8Array[] = [];
  for await (const chunk of chunks) {
    if (!(chunk instanceof Uint8Array)) throw new Error("output is not bytes");
    all.push(chunk);
  }
  return Buffer.concat(all).toString("utf8");
}

/** Sends `input`, and its end, unless there is none; and collects what the command says. */
export async function finished(session: ExecSession, input?: string) {
  if (input !== undefined) session.stdin.end(input);
  const [stdout, stderr, code] = await Promise.all([text(session.stdout), text(session.stderr), session.exit]);
  return { stdout, stderr, code };
}

export type Entry = { name: string; bytes: Uint8Array | string } | { name: string; link: string };

export function archive(...entries: Entry[]): Readable {
  const pack = tar.pack();
  for (const entry of entries) {
    if ("link" in entry) pack.entry({ name: entry.name, type: "symlink", linkname: entry.link });
    else pack.entry({ name: entry.name }, Buffer.from(entry.bytes));
  }
  pack.finalize();
  return Readable.from(pack);
}

/** Names and contents of an archive in order; directories end in a slash. */
export async function unpacked(stream: Readable): Promise<{ name: string; bytes: Buffer }[]> {
  const found: { name: string; bytes: Buffer }[] = [];
  const extract = tar.extract();
  stream.on("error", (error) => extract.destroy(error));
  stream.pipe(extract);
  for await (const entry of extract) {
    const chunks: Uint8Array[] = [];
    for await (const chunk of entry) if (chunk instanceof Uint8Array) chunks.push(chunk);
    const slash = entry.header.type === "directory" && !entry.header.name.endsWith("/") ? "/" : "";
    found.push({ name: entry.header.name + slash, bytes: Buffer.concat(chunks) });
  }
  return found;
}
