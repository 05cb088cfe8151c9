import { spawn, type ChildProcess } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { admit } from "../../controller/api/admit.ts";
import type { Bottle } from "../../controller/api/bottle.ts";
import { waitFor } from "../../controller/commands/wait.ts";
import type { Store } from "../../controller/ports/store.ts";
import { openDatabase } from "../../controller/stores/sqlite/open-database.ts";
import { BUSYBOX_IMAGE } from "../helpers/busybox-image.ts";
import { BUILD_DIR } from "../helpers/build.ts";
import { endTraces } from "./traces.ts";

/** Generous: two cores are shared by all tests. */
export const DEADLINE_MS = 60_000;
const MAIN = join(BUILD_DIR, "controller/main.js");

export type Env = Readonly<Record<string, string | undefined>>;

export interface Ended {
  code: number | null;
  signal: NodeJS.Signals | null;
  stdout: string;
  stderr: string;
}

/** A process of the product under test. */
export interface Running {
  child: ChildProcess;
  pid: number;
  stdout(): string;
  stderr(): string;
  ended: Promise<Ended>;
  /** Resolves when the output, both streams together, matches. Rejects when the process ends without it. */
  says(pattern: RegExp): Promise<void>;
  /** Sends the signal and waits for the end. */
  end(signal?: NodeJS.Signals): Promise<Ended>;
}

/** A state directory of its own with the built program working on it, and a second look into its store from here. */
export interface Installation {
  dir: string;
  stateDir: string;
  /** The watched folder. */
  bottles: string;
  store: Store;
  owner: string;
  start(args: readonly string[], env?: Env): Running;
  /** Runs a verb to its end. */
  cli(args: readonly string[], options?: { env?: Env; stdin?: string }): Promise<Ended>;
  /** Runs `serve` and waits until it works. */
  serve(args?: readonly string[], env?: Env): Promise<Running>;
  write(name: string, content: string | Uint8Array): void;
  remove(name: string): void;
  bottle(name: string): Promise<Bottle | undefined>;
  /** Waits until the bottle looks like this. */
  until(name: string, what: string, check: (bottle: Bottle) => boolean, timeoutMs?: number): Promise<Bottle>;
  untilGone(name: string): Promise<void>;
  /** What the transcript of a turn says. */
  logs(name: string, turn: string): Promise<string>;
  [Symbol.asyncDispose](): Promise<void>;
}

export function createInstallation(options: { env?: Env } = {}): Installation {
  const dir = mkdtempSync(join(tmpdir(), "bot-bottle-e2e-"));
  const stateDir = join(dir, "state");
  const bottles = join(dir, "bottles");
  mkdirSync(bottles);
  const database = openDatabase({ file: join(stateDir, "bot-bottle.db"), admission: admit, now: Date.now });
  const { store, installationId: owner } = database;
  const processes = new Set<Running>();
  const stop = new AbortController();

  const start = (args: readonly string[], env: Env = {}): Running => {
    const running = run([MAIN, ...args], {
      cwd: dir,
      env: {
        ...process.env,
        BOT_BOTTLE_IMAGE: BUSYBOX_IMAGE,
        BOT_BOTTLE_BACKEND: undefined,
        ...options.env,
        ...env,
        BOT_BOTTLE_STATE_DIR: stateDir,
      },
    });
    processes.add(running);
    void running.ended.then(() => processes.delete(running));
    return running;
  };

  const until: Installation["until"] = (name, what, check, timeoutMs = DEADLINE_MS) => {
    let last: Bottle | undefined;
    const target = { kind: "Bottle", key: { namespace: "default", name }, timeoutMs, what } as const;
    return waitFor({ store, signal: stop.signal }, target, (bottle) => {
      last = bottle ?? last;
      return bottle !== undefined && check(bottle) ? bottle : undefined;
    }).catch((error: unknown) => {
      const status = JSON.stringify(last?.status, undefined, 1);
      throw new Error(`bottle "${name}" was not seen ${what}; it was last seen as ${status}`, { cause: error });
    });
  };

  return {
    dir,
    stateDir,
    bottles,
    store,
    owner,
    start,
    until,
    async cli(args, { env, stdin } = {}) {
      const running = start(args, env);
      running.child.stdin?.end(stdin ?? "");
      return running.ended;
    },
    async serve(args = [], env = {}) {
      const running = start(["serve", ...args], env);
      await running.says(/^bot-bottle serves /m);
      return running;
    },
    write: (name, content) => writeFileSync(join(bottles, name), content),
    remove: (name) => rmSync(join(bottles, name)),
    bottle: (name) => store.get("Bottle", { namespace: "default", name }),
    async untilGone(name) {
      const key = { namespace: "default", name };
      const target = { kind: "Bottle", key, timeoutMs: DEADLINE_MS, what: `bottle "${name}" to be gone` } as const;
      await waitFor({ store, signal: stop.signal }, target, (bottle) => (bottle === undefined ? true : undefined));
    },
    async logs(name, turn) {
      const bottle = await store.get("Bottle", { namespace: "default", name });
      const attempts = bottle?.status?.turns?.find((each) => each.id === turn)?.attempts ?? 0;
      const kept = await database.transcripts.load(bottle?.metadata.uid ?? "", { turn, attempt: attempts });
      return Buffer.from(kept?.bytes ?? "").toString("utf8");
    },
    async [Symbol.asyncDispose]() {
      stop.abort();
      await Promise.all([...processes].map((running) => running.end("SIGKILL")));
      database.close();
      await endTraces({ owner, stateDir });
      rmSync(dir, { recursive: true, force: true });
    },
  };
}

/** Starts Node with these arguments and keeps what it says. */
export function run(argv: readonly string[], options: { cwd: string; env: Env }): Running {
  const child = spawn(process.execPath, argv, { cwd: options.cwd, env: { ...options.env }, stdio: "pipe" });
  const text = { stdout: "", stderr: "" };
  const listeners = new Set<() => void>();
  for (const name of ["stdout", "stderr"] as const) {
    child[name].setEncoding("utf8").on("data", (chunk: string) => {
      text[name] += chunk;
      for (const listener of listeners) listener();
    });
  }
  // A program may end before it has read its input.
  child.stdin.on("error", () => undefined);
  const ended = new Promise<Ended>((resolve) =>
    child.once("close", (code, signal) => resolve({ code, signal, ...text })),
  );
  return {
    child,
    pid: child.pid ?? 0,
    stdout: () => text.stdout,
    stderr: () => text.stderr,
    ended,
    says: (pattern) =>
      new Promise((resolve, reject) => {
        const look = () => {
          if (!pattern.test(text.stdout) && !pattern.test(text.stderr)) return;
          listeners.delete(look);
          resolve();
        };
        listeners.add(look);
        look();
        void ended.then(({ code, stderr }) =>
          reject(new Error(`the process ended with ${code} and did not say ${String(pattern)}: ${stderr}`)),
        );
      }),
    end(signal = "SIGTERM") {
      child.kill(signal);
      return ended;
    },
  };
}
