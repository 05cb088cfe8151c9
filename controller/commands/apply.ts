import { Command } from "commander";
import { admit } from "../api/admit.ts";
import type { Bottle } from "../api/bottle.ts";
import { conditionOf } from "../api/conditions.ts";
import { StatusError } from "../api/errors.ts";
import { keyOf } from "../api/meta.ts";
import { applyDraft, draftKey, previewDraft, type DeclaredDraft } from "../sources/apply.ts";
import { cycleRefusals } from "../sources/template-cycles.ts";
import type { CommandContext } from "./context.ts";
import { perform } from "./perform.ts";
import { parseDuration } from "./duration.ts";
import { EXIT, errorLines, exitCodeOf } from "./exit.ts";
import { readInputs, type Inputs } from "./inputs.ts";
import { print, say } from "./io.ts";
import { singularOf } from "./resolve-kind.ts";
import { bottleLine, createProgress, isCurrent, sayIfNoController, throwIfStalled, WAIT_MS, waitFor } from "./wait.ts";

export interface ApplyFlags {
  filename: string[];
  wait?: boolean;
  timeout?: number;
  dryRun?: boolean;
}

export function applyCommand(): Command {
  return new Command("apply")
    .description("create or change objects as manifests say")
    .requiredOption("-f, --filename <path>", "a file, a folder or - for stdin; may be repeated", collect)
    .option("--wait", "wait until every bottle has ended its turns")
    .option("--timeout <duration>", "how long to wait (default 10m)", parseDuration)
    .option("--dry-run", "say what would be done and do nothing")
    .action((flags: ApplyFlags, command: Command) => perform(command, (context) => runApply(context, flags)));
}

export function collect(value: string, values: readonly string[] = []): string[] {
  return [...values, value];
}

/** Applies what can be applied and reports the rest; one refused object does not hold up the others. */
export async function runApply(context: CommandContext, flags: ApplyFlags): Promise<number> {
  const inputs = await readInputs(context.io, flags.filename, context.namespace);
  let exitCode: number = EXIT.ok;
  const fail = (error: unknown) => {
    if (!(error instanceof StatusError)) throw error;
    for (const line of errorLines(error)) say(context.io, line);
    if (exitCode === EXIT.ok) exitCode = exitCodeOf(error);
  };
  for (const error of inputs.refused) fail(error);
  const bottles: Bottle[] = [];
  for (const { draft, refusal } of await withoutCycles(context, inputs)) {
    try {
      if (refusal !== undefined) throw refusal;
      const bottle = await applyOne(context, draft, flags.dryRun === true);
      if (bottle !== undefined) bottles.push(bottle);
    } catch (error) {
      fail(error);
    }
  }
  if (flags.dryRun === true) return exitCode;
  if (bottles.length > 0) sayIfNoController(context);
  if (flags.wait !== true || exitCode !== EXIT.ok) return exitCode;
  return await waitForRest(context, bottles, flags.timeout ?? WAIT_MS);
}

/** The drafts in order, each with the circle of templates it would close. */
export async function withoutCycles(
  context: CommandContext,
  inputs: Inputs,
): Promise<{ draft: DeclaredDraft; refusal?: StatusError }[]> {
  const templates = inputs.drafts.filter((draft) => draft.kind === "BottleTemplate");
  const stored = templates.length === 0 ? [] : (await context.store.list("BottleTemplate")).items;
  const cycles = new Map<DeclaredDraft, StatusError>(cycleRefusals(templates, stored));
  return inputs.drafts.map((draft) => ({ draft, refusal: cycles.get(draft) }));
}

async function applyOne(context: CommandContext, draft: DeclaredDraft, dryRun: boolean): Promise<Bottle | undefined> {
  const name = `${singularOf(draft.kind)}/${draftKey(draft).name}`;
  if (dryRun) {
    const { result } = await previewDraft(context.store, draft, { admit });
    print(context.io, `${name} ${result} (dry run)`);
    return undefined;
  }
  const { result, object, alsoDeclaredBy } = await applyDraft(context.store, draft);
  print(context.io, `${name} ${result}`);
  if (alsoDeclaredBy !== undefined) {
    const { source, path } = alsoDeclaredBy;
    say(context.io, `note: ${name} is also declared by ${source} (file ${path}): it will be changed back`);
  }
  return object.kind === "Bottle" ? object : undefined;
}

async function waitForRest(context: CommandContext, bottles: readonly Bottle[], timeoutMs: number): Promise<number> {
  const deadlineMs = context.now() + timeoutMs;
  const progress = createProgress(context.io);
  let exitCode: number = EXIT.ok;
  try {
    for (const bottle of bottles) {
      const name = bottle.metadata.name;
      const target = {
        kind: "Bottle",
        key: keyOf(bottle),
        timeoutMs: Math.max(0, deadlineMs - context.now()),
        what: `bottle "${name}" to end its turns`,
      } as const;
      const ended = await waitFor(context, target, (now) => {
        if (now === undefined) return { failed: undefined };
        progress.show(bottleLine(now));
        return restOf(now);
      });
      progress.clear();
      const failed = ended.failed === undefined ? "" : `: ${ended.failed}`;
      print(context.io, `bottle/${name} finished${failed}`);
      if (ended.failed !== undefined) exitCode = EXIT.error;
    }
    return exitCode;
  } finally {
    progress.clear();
  }
}

/** Undefined while the bottle has something left to do. A bottle that is gone (afterTurn: Delete) has not. */
function restOf(bottle: Bottle): { failed: string | undefined } | undefined {
  throwIfStalled(bottle);
  const ready = conditionOf(bottle.status?.conditions, "Ready");
  if (!isCurrent(bottle) || ready?.status !== "True") return undefined;
  const finished = conditionOf(bottle.status?.conditions, "Finished");
  const isIdle = bottle.spec.operatingMode === "Frozen" || (bottle.spec.turns ?? []).length === 0;
  if (finished?.status !== "True" && !isIdle) return undefined;
  return { failed: finished?.reason === "TurnsFailed" ? finished.message : undefined };
}
