import type { Backend } from "../../controller/ports/backend.ts";
import type { Log } from "../../controller/ports/log.ts";
import { builtGuardProgram, type GuardOptions } from "../guard-launch.ts";
import { available } from "./available.ts";
import { createContext, type Failpoint } from "./context.ts";
import { configureGuard, readAudit } from "./control.ts";
import { copyIn, copyOut } from "./copy.ts";
import { createAgent, makeDisk, prepare, startAgent, stopAgent } from "./lifecycle.ts";
import { logs, probe } from "./logs.ts";
import { observe } from "./observe.ts";
import { removeDisk, removeUnits } from "./remove.ts";
import { openSession } from "./session.ts";
import { watchHints } from "./watch.ts";

export interface BubblewrapBackendOptions extends GuardOptions {
  /** The bottles' directories; made if absent. For the controller alone. */
  stateDir: string;
  /** The installation's id: what carries another one is not ours. */
  owner: string;
  now: () => number;
  log: Log;
  /** The folder of the built guard program. Absent: the one of this build. */
  guardProgramDir?: string;
  /** Called around every effect on the machine; tests end the process there. */
  failpoint?: Failpoint;
}

/**
 * Bottles without a daemon and without an image: sandboxes of bubblewrap over the host's own programs, with all state in a directory. Their processes
 * belong to no one but themselves, so they outlive the controller, and the next one finds them by what the directory says.
 */
export function createBubblewrapBackend(options: BubblewrapBackendOptions): Backend {
  const { stateDir, owner, now, log, failpoint, guardDns, guardUpstreamCa } = options;
  const guardProgramDir = options.guardProgramDir ?? builtGuardProgram().dir;
  const guard = { guardDns, guardUpstreamCa };
  const context = createContext({ stateDir, owner, now, log, failpoint, guardProgramDir, guard });
  return {
    name: "bubblewrap",
    features: { images: false, limits: { cpu: false, memory: false, pids: true } },
    available: (signal) => available(context, signal),
    observe: (signal) => observe(context, signal),
    watch: (hint, signal) => void watchHints(context, hint, signal),
    prepare: (blueprint, signal) => prepare(context, blueprint, signal),
    probe: (unit, signal) => probe(context, unit, signal),
    configureGuard: (unit, config, signal) => configureGuard(context, unit, config, signal),
    readAudit: (unit, request, signal) => readAudit(context, unit, request, signal),
    createAgent: (blueprint, run, signal) => createAgent(context, blueprint, run, signal),
    startAgent: (unit, signal) => startAgent(context, unit, signal),
    stopAgent: (unit, how) => stopAgent(context, unit, how),
    removeUnits: (uid, unitIds, signal) => removeUnits(context, uid, unitIds, signal),
    removeDisk: (uid, signal) => removeDisk(context, uid, signal),
    logs: (unit, how) => logs(context, unit, how),
    exec: (blueprint, request, signal) => openSession(context, blueprint, request, signal),
    createDisk: async (identity, signal) => {
      await makeDisk(context, identity, signal);
    },
    copyIn: (uid, directory, tar, signal) => copyIn(context, { uid, path: directory, signal }, tar),
    copyOut: (uid, path, signal) => copyOut(context, { uid, path, signal }),
  };
}
