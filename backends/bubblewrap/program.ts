import { constants, existsSync } from "node:fs";
import { chmod, copyFile, readdir, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { makeDirectory, PROGRAM, type Bottle } from "./bottles.ts";
import type { Context } from "./context.ts";

/**
 * Gives a bottle its own copy of the guard program. Holder and guard outlive the controller and load parts of the program when they first need
 * them: an upgrade that exchanges the installed one must not take these away. The copy stays while one of the two is there, so that they are
 * of one version.
 */
export async function ensureProgram(
  context: Context,
  bottle: Bottle,
  { fresh, signal }: { fresh: boolean; signal?: AbortSignal | undefined },
): Promise<void> {
  const path = join(bottle.dir, PROGRAM);
  if (!fresh && existsSync(path)) return;
  await context.call(
    "program.create",
    async () => {
      const draft = join(bottle.dir, `.new-${PROGRAM}`);
      await rm(draft, { recursive: true, force: true });
      await copyPublic(context.guardProgramDir, draft);
      await rm(path, { recursive: true, force: true });
      await rename(draft, path);
    },
    { signal, subject: bottle.meta.uid },
  );
}

/** Readable for the guard's own user, whatever the installation's files are. */
async function copyPublic(from: string, to: string): Promise<void> {
  await makeDirectory(to, 0o755);
  for (const entry of await readdir(from, { withFileTypes: true })) {
    const [source, target] = [join(from, entry.name), join(to, entry.name)];
    if (entry.isDirectory()) await copyPublic(source, target);
    if (!entry.isFile()) continue;
    await copyFile(source, target, constants.COPYFILE_FICLONE);
    await chmod(target, 0o644);
  }
}
