import { join } from "node:path";
import type { Backend, BackendName } from "../controller/ports/backend.ts";
import type { Log } from "../controller/ports/log.ts";
import { createBubblewrapBackend } from "./bubblewrap/index.ts";
import { createDockerBackend } from "./docker/index.ts";
import type { GuardOptions } from "./guard-launch.ts";

export interface BackendOptions extends GuardOptions {
  /** Where backends without an engine of their own keep their bottles. */
  stateDir: string;
  /** The installation's id: what carries another one is not ours. */
  owner: string;
  now: () => number;
  log: Log;
  /** Called around every call that a backend makes; tests end the process there. */
  failpoint?: (label: string, phase: "before" | "after") => void;
}

/** In order of preference. */
const FACTORIES: Readonly<Record<BackendName, (options: BackendOptions) => Backend>> = {
  docker: (options) => createDockerBackend(options),
  bubblewrap: (options) => createBubblewrapBackend({ ...options, stateDir: join(options.stateDir, "bubblewrap") }),
};

/** The names that `--backend` and BOT_BOTTLE_BACKEND accept, best first. */
export const BACKEND_NAMES: readonly BackendName[] = Object.keys(FACTORIES);

export function createBackend(name: BackendName, options: BackendOptions): Backend {
  const factory = FACTORIES[name];
  if (factory === undefined) throw new Error(unknownBackend(name));
  return factory(options);
}

export interface Tried {
  name: BackendName;
  reason: string;
  fix: string;
}

export type Detection =
  { ok: true; name: BackendName; tried: Tried[] } | { ok: false; message: string; tried: Tried[] };

/**
 * Chooses the backend of bottles that name none: the explicit name, else that of the environment, else the first that really works.
 * A name that was asked for and does not work is an error: another backend might be a weaker seal than the one that was wanted.
 */
export async function detectBackend(
  backends: readonly Backend[],
  asked: { explicit?: string; env?: string },
): Promise<Detection> {
  const name = asked.explicit ?? (asked.env === "" ? undefined : asked.env);
  if (name !== undefined && !BACKEND_NAMES.includes(name))
    return { ok: false, message: unknownBackend(name), tried: [] };
  const candidates = backends.filter((backend) => name === undefined || backend.name === name);
  const tried: Tried[] = [];
  for (const backend of candidates) {
    const found = await backend.available();
    if (found.ok) return { ok: true, name: backend.name, tried };
    tried.push({ name: backend.name, reason: found.reason, fix: found.fix });
  }
  const list = tried.map((each) => `${each.name}: ${each.reason} (${each.fix})`).join("; ");
  return { ok: false, message: `no backend works on this host: ${list}`, tried };
}

function unknownBackend(name: string): string {
  return `backend "${name}" is unknown: choose one of ${BACKEND_NAMES.join(", ")}`;
}
