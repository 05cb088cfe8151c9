import { closeSync, constants, openSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { setTimeout as delay } from "node:timers/promises";
import { BackendError } from "../../controller/ports/backend.ts";
import type { AuditPage, AuditRequest, GuardConfig, GuardConfigured } from "../../controller/ports/guard.ts";
import { createControlClient, type ControlClient } from "../guard/control-client.ts";
import { CONTROL_SOCKET } from "../guard/control-protocol.ts";
import { findBottle, partDir, type Bottle } from "./bottles.ts";
import { refuseAborted, until, type Context } from "./context.ts";
import { isCode } from "./errors.ts";
import { listUnits } from "./units.ts";

/** A guard that was started a moment ago does not listen yet. */
const LISTENS_MS_MAX = 15_000;
const RETRY_MS = 10;
const ENDS_MS_MAX = 2_000;

interface GuardUnit {
  uid: string;
  guardId: string;
}

type Signal = AbortSignal | undefined;

export function configureGuard(
  context: Context,
  unit: GuardUnit,
  config: GuardConfig,
  signal: Signal,
): Promise<GuardConfigured> {
  return ask(context, unit, { label: "guard.configure", signal }, (client) => client.configure(config, signal));
}

export function readAudit(
  context: Context,
  unit: GuardUnit,
  request: AuditRequest,
  signal: Signal,
): Promise<AuditPage> {
  return ask(context, unit, { label: "guard.audit", signal }, (client) => client.audit(request, signal));
}

/** A connection for each request: there is nothing to share, and it takes less than a millisecond. */
function ask<T>(
  context: Context,
  unit: GuardUnit,
  { label, signal }: { label: string; signal: Signal },
  request: (client: ControlClient) => Promise<T>,
): Promise<T> {
  return context.call(
    label,
    async () => {
      const socket = await reach(context, unit, signal);
      const client = createControlClient(socket);
      try {
        return await request(client);
      } catch (error) {
        if (!(error instanceof BackendError) || error.kind !== "NotFound") throw error;
        // The channel ended: by itself, or with its guard, whose end is recorded a moment later.
        await until(() => (isRunning(context, unit) ? undefined : true), {
          timeoutMs: ENDS_MS_MAX,
          signal,
          what: label,
        });
        requireRunning(context, unit);
        throw new BackendError("Transient", "ConnectionLost", error.message, { cause: error });
      } finally {
        client.close();
        socket.destroy();
      }
    },
    { signal, subject: unit.guardId },
  );
}

function requireRunning(context: Context, unit: GuardUnit): Bottle {
  const bottle = findBottle(context, unit.uid);
  if (bottle !== undefined && isRunning(context, unit)) return bottle;
  throw new BackendError("NotFound", "GuardGone", `guard "${unit.guardId}" does not run: launch the bottle again`);
}

function isRunning(context: Context, { uid, guardId }: GuardUnit): boolean {
  const bottle = findBottle(context, uid);
  const guard = bottle && listUnits(bottle).find(({ spec }) => spec.id === guardId && spec.role === "guard");
  return guard?.state === "running";
}

async function reach(context: Context, unit: GuardUnit, signal: Signal): Promise<Socket> {
  const deadline = performance.now() + LISTENS_MS_MAX;
  for (;;) {
    refuseAborted(`request to guard "${unit.guardId}"`, signal);
    const socket = await connected(requireRunning(context, unit));
    if (socket !== undefined) return socket;
    if (performance.now() > deadline) {
      throw new BackendError("Transient", "GuardNotReady", `guard "${unit.guardId}" does not listen: try again`);
    }
    await delay(RETRY_MS);
  }
}

/**
 * `undefined` while nobody listens: the file is not there yet, is what an earlier guard left, or its guard ended this moment. Named through the
 * open directory, because the name of a socket has 107 bytes at most, and the state directory may be anywhere.
 */
async function connected(bottle: Bottle): Promise<Socket | undefined> {
  const directory = openSync(
    partDir(bottle, "sockets"),
    constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW,
  );
  try {
    return await new Promise<Socket>((resolve, reject) => {
      const socket = connect({ path: `/proc/self/fd/${directory}/${CONTROL_SOCKET}` });
      socket.once("error", reject);
      socket.once("connect", () => {
        socket.off("error", reject);
        resolve(socket);
      });
    });
  } catch (error) {
    if (isCode(error, "ENOENT", "ECONNREFUSED", "ECONNRESET")) return undefined;
    throw error;
  } finally {
    closeSync(directory);
  }
}
