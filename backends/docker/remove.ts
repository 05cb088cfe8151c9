import { BackendError } from "../../controller/ports/backend.ts";
import { listUnits, type Context, type Listed } from "./context.ts";
import { isKind, orAbsent } from "./errors.ts";
import { readLabels, volumeName, type Part } from "./names.ts";

const GONE_MS_MAX = 20_000;
const RETRY_MS = 50;

/** Agents and sessions go before the guard, so that no agent is left without one; the sockets go when nobody mounts them. */
export async function removeUnits(
  context: Context,
  uid: string,
  unitIds: readonly string[],
  signal?: AbortSignal,
): Promise<void> {
  const wanted = new Set(unitIds);
  const listed = await listUnits(context, uid, signal);
  const ours = listed.filter(({ id }) => wanted.has(id));
  const left = listed.find(({ id, facts, state }) => !wanted.has(id) && !isGuarding(facts.role) && state === "running");
  if (left !== undefined && ours.some(({ facts }) => isGuarding(facts.role))) {
    const message = `bottle "${uid}" has a running ${left.facts.role} that is not to be removed: it must not lose its guard`;
    throw new BackendError("Conflict", "AgentRunning", message);
  }
  await removeInOrder(context, ours, signal);
  const stays = listed.some(({ id, facts }) => !wanted.has(id) && isGuarding(facts.role));
  if (!stays) await removeVolume(context, volumeName(uid, "sockets"), signal);
}

function isGuarding(role: string): boolean {
  return role === "holder" || role === "guard";
}

/** What has exited needs no guard any more and goes along with it: a freeze then takes the time of one removal, not of two. */
async function removeInOrder(context: Context, units: readonly Listed[], signal?: AbortSignal): Promise<void> {
  for (const first of [true, false]) {
    const group = units.filter((unit) => needsGuard(unit) === first);
    await Promise.all(group.map(({ id, facts }) => removeContainer(context, id, facts.role, signal)));
  }
}

function needsGuard({ facts, state }: Listed): boolean {
  return !isGuarding(facts.role) && state !== "exited";
}

/** Killed and removed with its anonymous volumes. Absent is success; a removal that somebody else began is waited for. */
export async function removeContainer(context: Context, id: string, role: string, signal?: AbortSignal): Promise<void> {
  const { docker, call } = context.engine;
  await untilGone(signal, () =>
    call(
      `container.remove:${role}`,
      (abortSignal) => {
        const options = { force: true, v: true, abortSignal };
        return docker.getContainer(id).remove(options);
      },
      { signal, subject: id },
    ),
  );
}

/** By name, and only if its labels say it is ours. */
async function removeVolume(context: Context, name: string, signal?: AbortSignal): Promise<void> {
  const { docker, call } = context.engine;
  const found = await orAbsent(
    call("volume.inspect", (abortSignal) => docker.getVolume(name).inspect({ abortSignal }), { signal, subject: name }),
  );
  if (found === undefined || readLabels(found.Labels)?.owner !== context.owner) return;
  await untilGone(signal, () =>
    call(
      "volume.remove",
      (abortSignal) => {
        const options = { abortSignal };
        return docker.getVolume(name).remove(options);
      },
      { signal, subject: name },
    ),
  );
}

/** A volume is still in use for a moment after the last container is gone. */
async function untilGone(signal: AbortSignal | undefined, remove: () => Promise<unknown>): Promise<void> {
  const deadline = performance.now() + GONE_MS_MAX;
  for (;;) {
    try {
      await remove();
      return;
    } catch (error) {
      if (isKind(error, "NotFound")) return;
      if (!isKind(error, "Conflict") || performance.now() > deadline || signal?.aborted === true) throw error;
    }
    await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
  }
}

export async function removeDisk(context: Context, uid: string, signal?: AbortSignal): Promise<void> {
  const units = await listUnits(context, uid, signal);
  if (units.length > 0) {
    throw new BackendError("Conflict", "UnitsExist", `bottle "${uid}" still has units: remove them before its disk`);
  }
  await Promise.all(DISK.map((part) => removeVolume(context, volumeName(uid, part), signal)));
}

/** The sockets too: a launch that ended before its holder existed leaves them without a unit. */
const DISK: readonly Part[] = ["home", "workspace", "sockets"];
