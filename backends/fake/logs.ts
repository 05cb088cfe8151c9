import { BackendError } from "../../controller/ports/backend.ts";
import type { TurnKey } from "../../controller/ports/journal.ts";
import { agentName, find, own, type FakeContext } from "./context.ts";
import type { World } from "./world.ts";

/** Output of a run from its beginning; with `follow` until the run ends. */
export async function* followLogs(
  context: FakeContext,
  key: { uid: string } & TurnKey,
  options: { follow: boolean; signal?: AbortSignal },
): AsyncIterable<Uint8Array> {
  const name = agentName(key.uid, key);
  const agent = find(await own(context, key.uid, options.signal), name);
  if (agent === undefined) {
    throw new BackendError("NotFound", "UnitNotFound", `agent "${name}" does not exist: its transcript may be saved`);
  }
  let next = 0;
  for (;;) {
    const seen = context.world.version;
    const { chunks, ended } = await context.engine(options.signal).readLogs(key.uid, agent.id, next);
    yield* chunks;
    next += chunks.length;
    if (ended || !options.follow) return;
    await changeAfter(context.world, seen, options.signal);
    if (options.signal?.aborted === true) return;
  }
}

/** Resolves when the world is newer than `version`, or when the caller gives up. */
export function changeAfter(world: World, version: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (world.version !== version || signal?.aborted === true) return resolve();
    const done = () => {
      stop();
      signal?.removeEventListener("abort", done);
      resolve();
    };
    const stop = world.listen(done);
    signal?.addEventListener("abort", done, { once: true });
  });
}
