import { BackendError, type Availability, type Backend } from "../../controller/ports/backend.ts";
import type { Log } from "../../controller/ports/log.ts";
import type { GuardOptions } from "../guard-launch.ts";
import { createContext, type Context } from "./context.ts";
import { createGuardControl } from "./control.ts";
import { copyIn, copyOut } from "./copy.ts";
import { ensureDisk } from "./disk.ts";
import { createEngine, type Failpoint } from "./engine.ts";
import { exec } from "./exec.ts";
import { foreignEngine } from "./guard-image.ts";
import { logs, probe } from "./logs.ts";
import { createObserver } from "./observe.ts";
import { removeDisk, removeUnits } from "./remove.ts";
import { createAgent, prepare, startAgent, stopAgent } from "./units.ts";
import { watchEvents } from "./watch.ts";

export interface DockerBackendOptions extends GuardOptions {
  /** Id of this installation: what carries another one on the same engine is not touched. */
  owner: string;
  now: () => number;
  log: Log;
  /** Absent: DOCKER_HOST, then the engine's usual socket. */
  socketPath?: string;
  /** Called before and after every request to the engine. */
  failpoint?: Failpoint;
  /** The folder of the built guard program. Absent: the one of this build. */
  guardProgramDir?: string;
}

/** Bottles as containers of a Docker Engine: holder, guard and agent, with home, workspace and sockets as volumes. */
export function createDockerBackend(options: DockerBackendOptions): Backend {
  const { log } = options;
  const engine = createEngine({ socketPath: options.socketPath, failpoint: options.failpoint });
  const context = createContext({ ...options, engine });
  const control = createGuardControl(context);
  return {
    name: "docker",
    features: { images: true, limits: { cpu: true, memory: true, pids: true } },
    available: (signal) => available(context, signal),
    observe: createObserver(context),
    watch: (hint, signal) => {
      watchEvents(context, hint, signal).catch((error: unknown) => {
        log.error({ error: String(error) }, "watching engine events ended");
      });
    },
    prepare: (blueprint, signal) => prepare(context, blueprint, signal),
    probe: ({ holderId }, signal) => probe(context, holderId, signal),
    configureGuard: (unit, config, signal) => control.configure(unit, config, signal),
    readAudit: (unit, request, signal) => control.readAudit(unit, request, signal),
    createAgent: (blueprint, run, signal) => createAgent(context, blueprint, run, signal),
    startAgent: (unit, signal) => startAgent(context, unit, signal),
    stopAgent: (unit, stop) => stopAgent(context, unit, stop),
    removeUnits: (uid, unitIds, signal) => removeUnits(context, uid, unitIds, signal),
    removeDisk: (uid, signal) => removeDisk(context, uid, signal),
    logs: (unit, follow) => logs(context, unit, follow),
    exec: (blueprint, request, signal) => exec(context, blueprint, request, signal),
    createDisk: (identity, signal) => ensureDisk(context, identity, signal),
    copyIn: (uid, directory, tar, signal) => copyIn(context, uid, { directory, tar }, signal),
    copyOut: (uid, path, signal) => copyOut(context, uid, path, signal),
  };
}

/** Of API version 1: that of Docker Engine 20.10. */
const API_MINOR_MIN = 41;

async function available(context: Context, signal?: AbortSignal): Promise<Availability> {
  const { docker, call } = context.engine;
  try {
    const version = await call("engine.version", () => docker.version(), { signal, timeoutMs: 5_000 });
    if (Number(version.ApiVersion.split(".")[1]) < API_MINOR_MIN) {
      return {
        ok: false,
        reason: `Docker Engine ${version.Version} speaks API ${version.ApiVersion}, and 1.${API_MINOR_MIN} is needed`,
        fix: "install Docker Engine 20.10 or newer",
      };
    }
    const foreign = foreignEngine(version);
    if (foreign !== undefined) {
      return { ok: false, reason: foreign, fix: "run the controller on a Linux host of the engine's architecture" };
    }
    return { ok: true, version: version.Version };
  } catch (error) {
    if (!(error instanceof BackendError)) throw error;
    const [reason, fix] = splitRemedy(error.message);
    return { ok: false, reason, fix };
  }
}

/** Messages of an unreachable engine end in what to type. */
function splitRemedy(message: string): [string, string] {
  const cut = message.lastIndexOf(": ");
  return cut < 0 ? [message, "see the engine's log"] : [message.slice(0, cut), message.slice(cut + 2)];
}
