import { BackendError } from "../../controller/ports/backend.ts";
import { unreachable } from "../../controller/api/errors.ts";

/** The primitive calls of the engine: each is one request that may fail by itself. */
export const WORLD_VERBS = [
  "ping",
  "ensureImage",
  "list",
  "inspect",
  "createVolume",
  "seedVolume",
  "removeVolume",
  "createContainer",
  "startContainer",
  "stopContainer",
  "removeContainer",
  "probe",
  "configureGuard",
  "readAudit",
  "readLogs",
  "putArchive",
  "getArchive",
] as const;
export type WorldVerb = (typeof WORLD_VERBS)[number];

/** `number` counts all calls of a world from 1, those that fail included. */
export interface WorldCall {
  number: number;
  verb: WorldVerb;
  /** Of the bottle; empty for calls about all of them. */
  uid: string;
  /** Name of the object. */
  target: string;
}

/**
 * What goes wrong with one call. error-before: refused, nothing happened. error-after: it happened, and the caller sees a failure.
 * crash-before and crash-after: the controller's process dies around the call. unavailable: the engine does not answer.
 * stale: a list shows the world as it was that many changes ago.
 */
export type Fault =
  "error-before" | "error-after" | "crash-before" | "crash-after" | "unavailable" | { type: "stale"; steps: number };

/** The faults that make sense at any call, for tests that try each one at each call. */
export const CALL_FAULTS = ["error-before", "error-after", "crash-before", "crash-after", "unavailable"] as const;

export interface Faults {
  /** Asked before every call; `undefined` lets it through. */
  beforeCall?(call: WorldCall): Fault | undefined;
  /** Asked before a watcher is told of a change; true loses the hint. */
  loseHint?(uid: string): boolean;
}

/** The life of one controller process. Once it has crashed, nothing it still has under way reaches the world. */
export interface ControllerProcess {
  crashed: boolean;
}

/** The controller's process died here. Not a failure of the backend: a simulation catches it and starts another process. */
export class ControllerCrash extends Error {
  constructor(call: WorldCall) {
    super(`the controller crashed at call ${call.number} (${call.verb} "${call.target}")`);
    this.name = "ControllerCrash";
  }
}

/** Performs `effect` under a fault. */
export function underFault<T>(
  call: WorldCall,
  fault: Fault | undefined,
  process: ControllerProcess,
  effect: (staleSteps: number) => T,
): T {
  if (fault === undefined) return effect(0);
  if (typeof fault === "object") return effect(fault.steps);
  switch (fault) {
    case "error-before":
      throw transient(call, "refused by the engine");
    case "error-after":
      effect(0);
      throw transient(call, "the answer was lost");
    case "crash-before":
      process.crashed = true;
      throw new ControllerCrash(call);
    case "crash-after":
      effect(0);
      process.crashed = true;
      throw new ControllerCrash(call);
    case "unavailable":
      throw unavailable();
    default:
      return unreachable(fault);
  }
}

export function unavailable(): BackendError {
  return new BackendError(
    "Unavailable",
    "EngineUnavailable",
    "the fake engine is down: start it again with world.down = false",
  );
}

function transient(call: WorldCall, why: string): BackendError {
  return new BackendError("Transient", "EngineError", `${call.verb} "${call.target}" failed: ${why}: try again`);
}
