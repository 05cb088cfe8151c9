import { existsSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { Command } from "commander";
import { z } from "zod";

const packageFile = z.object({ name: z.literal("bot-bottle"), version: z.string() });
/** From the sources and from the build the package file is a different number of folders up. */
const LEVELS_MAX = 4;

export function versionCommand(): Command {
  return new Command("version").description("print the version").action(() => {
    process.stdout.write(`bot-bottle ${packageVersion()} (Node ${process.version})\n`);
  });
}

export function packageVersion(): string {
  let folder = dirname(fileURLToPath(import.meta.url));
  for (let level = 0; level < LEVELS_MAX; level += 1) {
    const file = join(folder, "package.json");
    const found = existsSync(file) ? packageFile.safeParse(JSON.parse(readFileSync(file, "utf8"))) : undefined;
    if (found?.success === true) return found.data.version;
    folder = dirname(folder);
  }
  return "unknown";
}
