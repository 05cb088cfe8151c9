import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { stdout } from "node:process";
import { Command } from "commander";
import { stringify } from "yaml";
import { crdFileName, customResourceDefinition } from "../api/crd.ts";
import { KINDS, type KindFacts } from "../api/kinds.ts";

/** `bot-bottle crds [--dir DIR]`: prints the CustomResourceDefinitions, or writes one file per kind. */
export function crdsCommand(): Command {
  return new Command("crds")
    .description("print the CustomResourceDefinitions, e.g. for kubectl apply -f -")
    .option("--dir <dir>", "write one file per kind into this folder instead")
    .action(async (options: { dir?: string }) => {
      if (options.dir === undefined) stdout.write(KINDS.map(crdYaml).join("---\n"));
      else await writeCrds(options.dir);
    });
}

/** The text of one definition's file. */
export function crdYaml(facts: KindFacts): string {
  const yaml = stringify(customResourceDefinition(facts), { lineWidth: 0, aliasDuplicateObjects: false });
  return `# Generated from controller/api by "npm run gen": change the schema there, not this file.\n${yaml}`;
}

async function writeCrds(dir: string): Promise<void> {
  await mkdir(dir, { recursive: true });
  for (const facts of KINDS) await writeFile(join(dir, crdFileName(facts)), crdYaml(facts));
}
