import { Command } from "commander";
import { orphansOf, type OrphanedBottle } from "../plan/orphans.ts";
import { removeOrphan } from "../loop/remove-orphan.ts";
import type { Backend } from "../ports/backend.ts";
import type { CommandContext } from "./context.ts";
import { perform } from "./perform.ts";
import { formatDuration, parseDuration } from "./duration.ts";
import { EXIT } from "./exit.ts";
import { print, say } from "./io.ts";
import { renderTable } from "./table.ts";

const GRACE_MS = 120_000;

export interface CleanupFlags {
  yes?: boolean;
  grace?: number;
}

export function cleanupCommand(): Command {
  return new Command("cleanup")
    .description("find what is left of bottles that nobody declares any more, and remove it")
    .option("--yes", "remove it; without this it is only shown")
    .option("--grace <duration>", "leave alone what is younger (default 2m)", parseDuration)
    .action((flags: CleanupFlags, command: Command) => perform(command, (context) => runCleanup(context, flags)));
}

export async function runCleanup(context: CommandContext, flags: CleanupFlags): Promise<number> {
  const found: { backend: Backend; orphans: OrphanedBottle[] }[] = [];
  let looked = 0;
  for (const name of context.backendNames) {
    const backend = context.backend(name);
    const availability = await backend.available(context.signal);
    if (!availability.ok) {
      say(context.io, `note: ${name} is not looked at: ${availability.reason}`);
      continue;
    }
    looked += 1;
    const observation = await backend.observe(context.signal);
    // Listed after the look: what was declared meanwhile counts as declared.
    const declared = new Set((await context.store.list("Bottle")).items.map((bottle) => bottle.metadata.uid));
    const graceMs = flags.grace ?? GRACE_MS;
    const orphans = orphansOf(observation, declared, { now: context.now(), graceMs });
    if (orphans.length > 0) found.push({ backend, orphans });
  }
  if (found.length === 0) {
    say(context.io, looked === 0 ? "no backend works: nothing was looked at" : "nothing is left over");
    return looked === 0 ? EXIT.unavailable : EXIT.ok;
  }
  const rows = found.flatMap(({ backend, orphans }) => orphans.map((orphan) => rowOf(context, backend, orphan)));
  print(context.io, renderTable(rows, ["Backend", "Bottle", "UID", "Units", "Disk", "Age"]));
  if (flags.yes !== true) {
    say(context.io, "nothing was removed: add --yes to remove all of this");
    return EXIT.ok;
  }
  for (const { backend, orphans } of found) {
    for (const { view } of orphans) await removeOrphan(backend, view, context.signal);
  }
  say(context.io, `removed what was left of ${rows.length} bottle(s)`);
  return EXIT.ok;
}

function rowOf(context: CommandContext, backend: Backend, { view, createdMs }: OrphanedBottle): string[] {
  const age = formatDuration(context.now() - createdMs);
  const units = view.units.map((unit) => unit.role).join(",");
  const disk = view.disk.map((part) => part.part).join(",");
  return [backend.name, `${view.namespace}/${view.name}`, view.uid, units, disk, age];
}
