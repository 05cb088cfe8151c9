import { readdir } from "node:fs/promises";
import type { BottleIdentity } from "../../controller/ports/backend.ts";
import { ourLabels, guardSurroundings, type Context } from "./context.ts";
import { isKind, orAbsent } from "./errors.ts";
import { bottleLabels, seedName, volumeName, type Labels, type Part } from "./names.ts";
import { postJson } from "./raw.ts";
import { helperSpec } from "./specs.ts";

/** Makes a volume exist. An engine answers a second creation with the volume that is there. */
export async function ensureVolume(
  context: Context,
  identity: BottleIdentity,
  part: Part,
  signal?: AbortSignal,
): Promise<void> {
  const { engine } = context;
  const Name = volumeName(identity.uid, part);
  const labels = bottleLabels(context.owner, identity, part, context.now());
  const made: { Labels?: Labels } = Object(
    await engine.call(
      `volume.create:${part}`,
      (abortSignal) => postJson(engine, "/volumes/create", { Name, Driver: "local", Labels: labels }, abortSignal),
      { signal, subject: Name },
    ),
  );
  if (await isRemnant(context, made.Labels, { name: Name, part }, signal)) {
    await engine.call("volume.remove", (abortSignal) => engine.docker.getVolume(Name).remove({ abortSignal }), {
      signal,
      subject: Name,
    });
    return ensureVolume(context, identity, part, signal);
  }
  ourLabels(context, made.Labels, Name);
}

/**
 * An engine that is stopped while it makes a volume comes back with the volume and without its labels. Nobody can have written to it yet; so one that
 * has our name, which nobody can guess, no label at all and nothing in it is made anew. With labels it would be found and removed; without, never.
 */
async function isRemnant(
  context: Context,
  labels: Labels | null | undefined,
  { name, part }: { name: string; part: Part },
  signal?: AbortSignal,
): Promise<boolean> {
  if (Object.keys(labels ?? {}).length > 0) return false;
  if (part === "sockets") return true;
  const volume = await context.engine.call(
    "volume.inspect",
    (abortSignal) => context.engine.docker.getVolume(name).inspect({ abortSignal }),
    { signal, subject: name },
  );
  return isEmptyFolder(volume.Mountpoint);
}

/** Only on the engine's own host can that be seen; elsewhere the volume is left to a person. */
async function isEmptyFolder(path: string): Promise<boolean> {
  try {
    return (await readdir(path)).length === 0;
  } catch {
    return false;
  }
}

/**
 * Makes home and workspace exist and belong to the agent's user. A volume begins as root's; only the creation of a container that mounts
 * it hands it over, and whether that happened cannot be read from a volume. So it is done on every call: on a volume that holds
 * anything the engine changes nothing, and on an empty one twice is the same as once. A crash at any point is repaired by the next call.
 */
export async function ensureDisk(context: Context, identity: BottleIdentity, signal?: AbortSignal): Promise<void> {
  await Promise.all([
    ensureVolume(context, identity, "home", signal),
    ensureVolume(context, identity, "workspace", signal),
  ]);
  await seedDisk(context, identity, signal);
}

const SEED_TRIES_MAX = 3;

export async function seedDisk(context: Context, identity: BottleIdentity, signal?: AbortSignal): Promise<void> {
  const { docker, call } = context.engine;
  const spec = helperSpec(identity, seedName(identity.uid), await guardSurroundings(context));
  const subject = seedName(identity.uid);
  for (let tries = 1; ; tries += 1) {
    try {
      await call("container.create:seed", (abortSignal) => docker.createContainer({ ...spec, abortSignal }), {
        signal,
        subject,
      });
      break;
    } catch (error) {
      // A helper of a crashed try. Whether its creation came as far as the volumes is unknown, so another one is made.
      if (!isKind(error, "Conflict") || tries === SEED_TRIES_MAX) throw error;
      await removeSeed(context, subject, signal);
    }
  }
  await removeSeed(context, subject, signal);
}

async function removeSeed(context: Context, name: string, signal?: AbortSignal): Promise<void> {
  const { docker, call } = context.engine;
  await orAbsent(
    call("container.remove:seed", () => docker.getContainer(name).remove({ force: true }), { signal, subject: name }),
  );
}
