import { randomBytes } from "node:crypto";
import { mkdir, readFile, rename, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { BackendError } from "../../controller/ports/backend.ts";
import type { Log } from "../../controller/ports/log.ts";
import type { GuardOptions } from "../guard-launch.ts";
import { translate } from "./errors.ts";

/** Called around every effect on the machine, so that a test can end the process between any two of them. */
export type Failpoint = (label: string, phase: "before" | "after") => void;

/** What every verb of this backend works with. */
export interface Context {
  readonly stateDir: string;
  readonly owner: string;
  readonly now: () => number;
  readonly log: Log;
  /** The folder of the built guard program. */
  readonly guardProgramDir: string;
  readonly guard: GuardOptions;
  /** True for root: bottles then get host users of their own. */
  readonly privileged: boolean;
  /** Runs one effect. `label` is `noun.verb` or `noun.verb:role`. Every failure is a BackendError; a caller that gave up begins nothing. */
  call<T>(label: string, effect: () => Promise<T>, options?: CallOptions): Promise<T>;
}

export interface CallOptions {
  signal?: AbortSignal | undefined;
  /** For messages. */
  subject?: string;
}

export function createContext(options: {
  stateDir: string;
  owner: string;
  now: () => number;
  log: Log;
  guardProgramDir: string;
  guard: GuardOptions;
  failpoint?: Failpoint | undefined;
}): Context {
  const { failpoint, ...given } = options;
  return {
    ...given,
    privileged: process.getuid?.() === 0,
    async call(label, effect, { signal, subject } = {}) {
      const what = subject === undefined ? label : `${label} "${subject}"`;
      refuseAborted(what, signal);
      failpoint?.(label, "before");
      const result = await translating(what, effect);
      failpoint?.(label, "after");
      return result;
    },
  };
}

async function translating<T>(what: string, effect: () => Promise<T>): Promise<T> {
  try {
    return await effect();
  } catch (error) {
    throw translate(error, what);
  }
}

export function refuseAborted(what: string, signal: AbortSignal | undefined): void {
  if (signal?.aborted === true) throw new BackendError("Transient", "Aborted", `${what} was stopped by its caller`);
}

/** Waits until `look` gives something. Bounded; ends early when `signal` aborts. `undefined` when the time is over. */
export async function until<T>(
  look: () => T | undefined,
  { timeoutMs, signal, what }: { timeoutMs: number; signal?: AbortSignal | undefined; what: string },
): Promise<T | undefined> {
  const deadline = performance.now() + timeoutMs;
  for (;;) {
    const found = look();
    if (found !== undefined) return found;
    refuseAborted(what, signal);
    if (performance.now() > deadline) return undefined;
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
}

const POLL_MS = 5;

/** A reader sees the old file or the whole new one, also after a crash. */
export async function writeAtomically(path: string, content: Uint8Array): Promise<void> {
  const draft = `${path}.${randomBytes(4).toString("hex")}.new`;
  await writeFile(draft, content, { mode: 0o600 });
  await rename(draft, path);
}

export async function ensureStateDir(context: Context): Promise<void> {
  await mkdir(hintsDir(context), { recursive: true, mode: 0o700 });
}

/** Touched by whoever starts or ends a unit, one file a bottle: one watch sees them all. */
export function hintsDir(context: Context): string {
  return join(context.stateDir, ".hints");
}

export function filterPath(context: Context): string {
  return join(context.stateDir, ".seccomp");
}

export async function sameBytes(path: string, content: Uint8Array): Promise<boolean> {
  try {
    return (await readFile(path)).equals(content);
  } catch {
    return false;
  }
}
