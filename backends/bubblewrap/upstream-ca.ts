import { chmod, rename, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { readUpstreamCa } from "../guard-launch.ts";
import type { Bottle } from "./bottles.ts";
import type { Context } from "./context.ts";
import { UPSTREAM_CA } from "./sandbox.ts";

/** Puts this installation's authorities where a guard that is about to start finds them. */
export async function copyUpstreamCa(context: Context, bottle: Bottle, signal?: AbortSignal): Promise<void> {
  const path = context.guard.guardUpstreamCa;
  if (path === undefined) return;
  const pem = await readUpstreamCa(path);
  await context.call(
    "guard.trust",
    async () => {
      const draft = join(bottle.dir, `.new-${UPSTREAM_CA}`);
      await writeFile(draft, pem);
      // Public, and read by the guard's own user.
      await chmod(draft, 0o644);
      await rename(draft, join(bottle.dir, UPSTREAM_CA));
    },
    { signal, subject: bottle.meta.uid },
  );
}
