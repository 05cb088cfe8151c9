import { join } from "node:path";
import { expect } from "vitest";
import { stringify } from "yaml";
import { admit } from "../../controller/api/admit.ts";
import type { Bottle } from "../../controller/api/bottle.ts";
import type { Egress } from "../../controller/api/egress.ts";
import { API_VERSION } from "../../controller/api/meta.ts";
import type { BackendType } from "../../controller/api/template.ts";
import type { AuditLine } from "../../controller/ports/guard.ts";
import { openDatabase, type OpenedDatabase } from "../../controller/stores/sqlite/open-database.ts";
import { condition } from "../e2e/bottles.ts";
import { createInstallation, type Ended, type Installation, type Running } from "../e2e/installation.ts";
import type { Need } from "../helpers/needs-setup.ts";
import type { Attack, Finding } from "./bottle-attacks.ts";
import { bundled, startBottleWorld, type BottleWorld, type BottleWorldOptions } from "./bottle-world.ts";

/** What suites with agents from the image of tools need. */
export const NEEDS: Readonly<Record<BackendType, readonly Need[]>> = {
  Docker: ["docker", "curl", "git", "python3"],
  Bubblewrap: ["bubblewrap", "curl", "git", "python3"],
};
const LINES_MS_MAX = 20_000;
const POLL_MS = 50;
const LINES_MAX = 1_000;

/** A world, an installation whose guards live in it, and a controller at work. */
export interface BottleRig {
  type: BackendType;
  world: BottleWorld;
  here: Installation;
  database: OpenedDatabase;
  /** The controller that runs now. */
  serve(): Running;
  /** Ends the controller with this signal and starts another. */
  restart(signal: NodeJS.Signals): Promise<void>;
  apply(...objects: object[]): Promise<void>;
  /** A verb that must succeed; its output. */
  verb(...words: string[]): Promise<string>;
  exec(name: string, ...argv: string[]): Promise<Ended>;
  /** Shell scripts beside the agent, in one session; what each of them prints. */
  sh<const Scripts extends readonly string[]>(
    name: string,
    ...scripts: Scripts
  ): Promise<{ [n in keyof Scripts]: string }>;
  /** Makes the attacks in the bottle. */
  attack(name: string, attacks: readonly Attack[]): Promise<Finding[]>;
  /** All lines of a bottle's audit so far. */
  lines(name: string): Promise<AuditLine[]>;
  /** Waits until these lines are there: each matcher its own number of times, and no other line beside them. Returns them. */
  newLines(name: string, since: number, count: number): Promise<AuditLine[]>;
  uid(name: string): Promise<string>;
  untilReady(name: string): Promise<Bottle>;
  [Symbol.asyncDispose](): Promise<void>;
}

export async function startRig(type: BackendType, options: BottleWorldOptions): Promise<BottleRig> {
  const world = await startBottleWorld(type, options);
  const here = createInstallation({ env: world.env });
  const database = openDatabase({ file: join(here.stateDir, "bot-bottle.db"), admission: admit, now: Date.now });
  const dispose = async (): Promise<void> => {
    database.close();
    await here[Symbol.asyncDispose]();
    await world[Symbol.asyncDispose]();
  };
  try {
    const attacker = await bundled("bottle-attacker.ts");
    return around({ type, world, here, database, attacker, serving: await here.serve(), dispose });
  } catch (error) {
    await dispose();
    throw error;
  }
}

interface Parts {
  type: BackendType;
  world: BottleWorld;
  here: Installation;
  database: OpenedDatabase;
  attacker: string;
  serving: Running;
  dispose(): Promise<void>;
}

function around({ type, world, here, database, attacker, serving, dispose }: Parts): BottleRig {
  let serve = serving;
  const uid = async (name: string): Promise<string> => {
    const bottle = await here.bottle(name);
    if (bottle === undefined) throw new Error(`there is no bottle "${name}"`);
    return bottle.metadata.uid;
  };
  const rig: BottleRig = {
    type,
    world,
    here,
    database,
    uid,
    serve: () => serve,
    async restart(signal) {
      await serve.end(signal);
      serve = await here.serve();
    },
    async apply(...objects) {
      const stdin = objects.map((one) => stringify(one)).join("---\n");
      expect(await here.cli(["apply", "-f", "-"], { stdin })).toMatchObject({ code: 0 });
    },
    async verb(...words) {
      const ended = await here.cli(words);
      expect(ended, ended.stderr).toMatchObject({ code: 0 });
      return ended.stdout;
    },
    exec: (name, ...argv) => here.cli(["exec", name, "--", ...argv]),
    async sh<const Scripts extends readonly string[]>(name: string, ...scripts: Scripts) {
      // Each is a line of its own, and what follows says where its output ends.
      const ended = await rig.exec(name, "sh", "-c", scripts.map((one) => `(${one}\n); printf '\\036'`).join("\n"));
      const said = ended.stdout.split("\u001e");
      expect(said, ended.stderr).toHaveLength(scripts.length + 1);
      return said.slice(0, -1) as { [n in keyof Scripts]: string };
    },
    async attack(name, attacks) {
      const ended = await rig.exec(name, "node", "--eval", attacker, JSON.stringify(attacks));
      expect(ended, ended.stderr).toMatchObject({ code: 0 });
      return JSON.parse(ended.stdout);
    },
    lines: async (name) => readLines(database, await uid(name)),
    newLines: async (name, since, count) => untilLines(database, await uid(name), { since, count }),
    untilReady: (name) => here.until(name, "ready", isReady),
    [Symbol.asyncDispose]: dispose,
  };
  return rig;
}

/** At rest as its spec asks for, with what it was last told. */
export function isReady(bottle: Bottle): boolean {
  const isCurrent = bottle.status?.observedGeneration === bottle.metadata.generation;
  return isCurrent && condition(bottle, "Ready")?.status === "True";
}

async function readLines({ auditLog }: OpenedDatabase, uid: string): Promise<AuditLine[]> {
  const lines: AuditLine[] = [];
  for (;;) {
    const page = await auditLog.read(uid, { afterSeq: lines.length, limit: LINES_MAX });
    lines.push(...page.map(({ line }) => line));
    if (page.length < LINES_MAX) return lines;
  }
}

/** The lines after `since`, when there are `count` of them. More are an error; that none comes late is for the end of a suite to show. */
async function untilLines(
  database: OpenedDatabase,
  uid: string,
  { since, count }: { since: number; count: number },
): Promise<AuditLine[]> {
  const endMs = Date.now() + LINES_MS_MAX;
  for (;;) {
    const lines = (await readLines(database, uid)).slice(since);
    if (lines.length >= count || Date.now() > endMs) {
      const said = lines.map(({ rule, kind, host, port, path }) => `${kind} ${rule} ${host}:${port} ${path}`);
      expect(said, "lines of the audit").toHaveLength(count);
      return lines;
    }
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
}

export function secretManifest(name: string, values: Readonly<Record<string, string>>): object {
  return { apiVersion: "v1", kind: "Secret", metadata: { name }, stringData: values };
}

export function templateManifest(name: string, egress: Egress, spec: object = {}): object {
  return { apiVersion: API_VERSION, kind: "BottleTemplate", metadata: { name }, spec: { ...spec, egress } };
}
