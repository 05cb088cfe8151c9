import { Command } from "commander";
import { isStatus } from "../api/errors.ts";
import type { KindName } from "../api/kinds.ts";
import type { ObjectKey } from "../api/meta.ts";
import { declaredBy, draftKey } from "../sources/apply.ts";
import { collect } from "./apply.ts";
import type { CommandContext } from "./context.ts";
import { perform } from "./perform.ts";
import { parseDuration } from "./duration.ts";
import { CommandError, EXIT, errorLines, notFound } from "./exit.ts";
import { readInputs } from "./inputs.ts";
import { print, say } from "./io.ts";
import { kindAndNames, singularOf } from "./resolve-kind.ts";
import { createProgress, sayIfNoController, waitFor } from "./wait.ts";

const DELETE_WAIT_MS = 60_000;

export interface DeleteFlags {
  filename: string[];
  wait?: boolean;
  timeout?: number;
}

export function deleteCommand(): Command {
  return new Command("delete")
    .description("delete objects; deleting a bottle destroys it with its disk")
    .argument("[kind]", "bottle, agent, bottletemplate or secret")
    .argument("[names...]", "which ones")
    .option("-f, --filename <path>", "the objects of a file, a folder or - for stdin", collect, [])
    .option("--wait", "wait until they are gone (the default while a controller runs)")
    .option("--no-wait", "return at once")
    .option("--timeout <duration>", "how long to wait (default 60s)", parseDuration)
    .action((kind: string | undefined, names: string[], flags: DeleteFlags, command: Command) =>
      perform(command, (context) => runDelete(context, kind === undefined ? [] : [kind, ...names], flags)),
    );
}

interface Target {
  kind: KindName;
  key: ObjectKey;
}

export async function runDelete(
  context: CommandContext,
  words: readonly string[],
  flags: DeleteFlags,
): Promise<number> {
  const targets = await targetsOf(context, words, flags);
  const going: Target[] = [];
  let missing = 0;
  for (const target of targets) {
    const state = await deleteOne(context, target);
    if (state === "absent") missing += 1;
    if (state === "going") going.push(target);
  }
  const isAlone = going.length > 0 && sayIfNoController(context);
  if (flags.wait !== false && (!isAlone || flags.wait === true)) {
    await waitUntilGone(context, going, flags.timeout ?? DELETE_WAIT_MS);
  }
  return missing > 0 ? EXIT.notFound : EXIT.ok;
}

async function targetsOf(context: CommandContext, words: readonly string[], flags: DeleteFlags): Promise<Target[]> {
  if ((words.length === 0) === (flags.filename.length === 0)) {
    throw new CommandError(EXIT.usage, 'write a kind and names, as in "delete bottle fix-login", or -f with a file');
  }
  if (words.length === 0) {
    const { drafts, refused } = await readInputs(context.io, flags.filename, context.namespace);
    for (const error of refused) for (const line of errorLines(error)) say(context.io, line);
    if (refused.length > 0) throw new CommandError(EXIT.refused, "nothing was deleted: correct the files first");
    // What refers goes before what it refers to.
    return drafts.map((draft) => ({ kind: draft.kind, key: draftKey(draft) })).toReversed();
  }
  const { kind, names } = kindAndNames(words);
  if (names.length === 0) throw new CommandError(EXIT.usage, `write which ${singularOf(kind)} to delete`);
  return names.map((name) => ({ kind, key: { namespace: context.namespace, name } }));
}

async function deleteOne(context: CommandContext, { kind, key }: Target): Promise<"absent" | "gone" | "going"> {
  const { store, io } = context;
  const label = `${singularOf(kind)}/${key.name}`;
  const before = await store.get(kind, key);
  try {
    if (before === undefined) throw notFound(singularOf(kind), key.name, key.namespace);
    await store.delete(kind, key, { uid: before.metadata.uid });
  } catch (error) {
    if (!(error instanceof CommandError) && !isStatus(error, "NotFound")) throw error;
    say(io, `error: ${error.message}`);
    return "absent";
  }
  const source = before === undefined ? undefined : declaredBy(before);
  if (source !== undefined) {
    say(io, `note: ${label} is declared by ${source.source} (file ${source.path}), which will create it again`);
  }
  const after = await store.get(kind, key);
  const isGone = after === undefined || after.metadata.uid !== before?.metadata.uid;
  print(io, `${label} ${isGone ? "deleted" : "is being deleted"}`);
  return isGone ? "gone" : "going";
}

async function waitUntilGone(context: CommandContext, going: readonly Target[], timeoutMs: number): Promise<void> {
  const deadlineMs = context.now() + timeoutMs;
  const progress = createProgress(context.io);
  try {
    for (const { kind, key } of going) {
      const left = Math.max(0, deadlineMs - context.now());
      const label = `${singularOf(kind)}/${key.name}`;
      const target = { kind, key, timeoutMs: left, what: `${label} to be gone` };
      await waitFor(context, target, (now) => {
        // An object of this name that is not being deleted is a new one.
        if (now?.metadata.deletionTimestamp === undefined) return true;
        const blocked =
          now.kind === "Bottle" && now.status?.conditions?.find((each) => each.type === "DeletionBlocked");
        const why =
          blocked !== undefined && blocked !== false && blocked.status === "True" ? `: ${blocked.message}` : "";
        progress.show(`${label}: is being destroyed${why}`);
        return undefined;
      });
      progress.clear();
      print(context.io, `${label} deleted`);
    }
  } finally {
    progress.clear();
  }
}
