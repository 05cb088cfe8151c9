import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Command } from "commander";
import { execa } from "execa";
import type { Bottle } from "../api/bottle.ts";
import { conditionOf } from "../api/conditions.ts";
import { parseManifests } from "../api/manifest.ts";
import { applyDraft } from "../sources/apply.ts";
import { draftOf } from "../sources/draft.ts";
import { runDelete } from "./delete.ts";
import { perform, type CommandContext } from "./context.ts";
import { CommandError, EXIT } from "./exit.ts";
import { runGet } from "./get.ts";
import { colored, print } from "./io.ts";
import { createLogger } from "./logger.ts";
import { runLogs } from "./logs.ts";
import { appendTurn } from "./turn.ts";
import { bottleLine, createProgress, isCurrent, waitFor } from "./wait.ts";
import { withController } from "./with-controller.ts";

const NAME = "hello";
const MANIFEST = `apiVersion: bot-bottle.dev/v1alpha1
kind: Bottle
metadata: { name: ${NAME} }
spec:
  agent:
    provider:
      type: Custom
      custom:
        command: [sh, -c, 'echo "asked: $0"; echo "$0" >> notes.txt; echo "notes so far:"; cat notes.txt']
  turns:
    - { id: "1", prompt: "write this down" }
`;
const SECOND_PROMPT = "and what did I say before?";
/** An image may have to be pulled first. */
const FIRST_TURN_MS = 5 * 60_000;
const LATER_MS = 60_000;
const INSTALL_MS = 5 * 60_000;

export function quickstartCommand(): Command {
  return new Command("quickstart")
    .description("see a bottle work, freeze, wake and go, in a state directory of its own")
    .option("--backend <name>", "use this backend only (default: docker, else bubblewrap)")
    .addHelpText(
      "after",
      "\nIt leaves nothing behind. Without any backend it installs bubblewrap (as root, with apt-get).",
    )
    .action(async (options: { backend?: string }, command: Command) => {
      // Never the person's own state: what it makes is removed with the directory.
      const stateDir = mkdtempSync(join(tmpdir(), "bot-bottle-quickstart-"));
      command.setOptionValue("stateDir", stateDir);
      try {
        await perform(command, (context) => runQuickstart(context, options));
      } finally {
        rmSync(stateDir, { recursive: true, force: true });
      }
    });
}

/** Plays the story on the first backend on which it works. */
export async function runQuickstart(context: CommandContext, options: { backend?: string }): Promise<number> {
  const names = options.backend === undefined ? context.backendNames : [options.backend];
  heading(context, "1. A backend");
  for (const name of names) {
    const refusal = (await whyNot(context, name)) ?? (await play(context, name));
    if (refusal === undefined) return EXIT.ok;
    print(context.io, `   ${name}: ${refusal}`);
  }
  throw new CommandError(EXIT.unavailable, "no backend works on this host", {
    lines: ["run bot-bottle doctor: it says what to install"],
  });
}

/** Why a backend cannot be used; bubblewrap is installed where that is all it takes. */
async function whyNot(context: CommandContext, name: string): Promise<string | undefined> {
  const found = await context.backend(name).available(context.signal);
  if (found.ok) {
    print(context.io, `   ${name}: ${found.version} answers`);
    return undefined;
  }
  if (name !== "bubblewrap" || !(await installBubblewrap(context))) return `${found.reason} (${found.fix})`;
  const again = await context.backend(name).available(context.signal);
  return again.ok ? undefined : `${again.reason} (${again.fix})`;
}

async function installBubblewrap({ io, signal }: CommandContext): Promise<boolean> {
  const missing = (await execa("bwrap", ["--version"], { reject: false, stdin: "ignore", timeout: 10_000 })).failed;
  const aptGet = await execa("apt-get", ["--version"], { reject: false, stdin: "ignore", timeout: 10_000 });
  if (!missing || aptGet.failed || process.getuid?.() !== 0) return false;
  print(io, "   bubblewrap: not there; installing it with apt-get");
  const run = {
    reject: false,
    stdin: "ignore",
    timeout: INSTALL_MS,
    forceKillAfterDelay: 5_000,
    cancelSignal: signal,
  } as const;
  await execa("apt-get", ["update", "-q"], run);
  const installed = await execa("apt-get", ["install", "-y", "-q", "--no-install-recommends", "bubblewrap"], run);
  if (installed.failed)
    print(io, `   bubblewrap: apt-get install failed: ${String(installed.stderr).trim().split("\n").at(-1) ?? ""}`);
  return !installed.failed;
}

/** The story; returns why it did not get beyond its beginning on this backend. */
function play(context: CommandContext, backend: string): Promise<string | undefined> {
  return withController(context, { log: createLogger(context.io, "silent"), backend }, async (running) => {
    const refusal = await firstTurn(running);
    if (refusal !== undefined) {
      await runDelete(running, ["bottle", NAME], { filename: [], wait: true, timeout: LATER_MS });
      return refusal;
    }
    print(running.io, `   ${backend} it is`);
    await story(running, backend);
    return undefined;
  });
}

async function firstTurn(context: CommandContext): Promise<string | undefined> {
  const [document] = parseManifests(MANIFEST, "quickstart").documents;
  if (document === undefined || !document.ok)
    throw new CommandError(EXIT.error, "the quickstart's own manifest is refused");
  await applyDraft(context.store, draftOf(document.object));
  return awaitBottle(context, FIRST_TURN_MS, (bottle) => {
    if (bottle.status?.turns?.[0]?.outcome !== undefined) return { refusal: undefined };
    const ready = conditionOf(bottle.status?.conditions, "Ready");
    const stuck =
      conditionOf(bottle.status?.conditions, "Stalled")?.status === "True" || ready?.reason === "ImagePullFailed";
    return stuck ? { refusal: ready?.message ?? "it stalled" } : undefined;
  }).then((answer) => answer.refusal);
}

async function story(context: CommandContext, backend: string): Promise<void> {
  heading(context, "2. The bottle that was declared");
  print(context.io, MANIFEST.trimEnd());
  heading(context, "3. Turn 1 ran, and the bottle froze: its disk is kept, no process, no network");
  await frozen(context, "1");
  await runLogs(context, NAME, { turn: "1" });
  await runGet(context, ["bottles"], {});
  heading(context, `4. Turn 2 wakes it (bot-bottle turn ${NAME} --prompt "${SECOND_PROMPT}")`);
  await appendTurn(context, NAME, { prompt: SECOND_PROMPT });
  await frozen(context, "2");
  await runLogs(context, NAME, { turn: "2" });
  await runGet(context, ["bottles"], {});
  heading(context, "5. What happened");
  await runGet(context, ["events"], {});
  heading(context, "6. Deleting it destroys everything of it");
  await runDelete(context, ["bottle", NAME], { filename: [], wait: true, timeout: LATER_MS });
  const left = (await context.backend(backend).observe(context.signal)).bottles.size;
  if (left > 0) throw new CommandError(EXIT.error, `${left} bottle(s) were left on ${backend}: run bot-bottle cleanup`);
  print(context.io, `nothing is left on ${backend}. Next: bot-bottle serve --watch bottles/`);
}

async function frozen(context: CommandContext, turn: string): Promise<void> {
  await awaitBottle(context, LATER_MS, (bottle) => {
    const outcome = bottle.status?.turns?.find((each) => each.id === turn)?.outcome;
    const down = isCurrent(bottle) && conditionOf(bottle.status?.conditions, "Frozen")?.status === "True";
    if (outcome !== undefined && outcome !== "Done")
      throw new CommandError(EXIT.error, `turn ${turn} ended as ${outcome}`);
    return outcome !== undefined && down ? true : undefined;
  });
}

async function awaitBottle<T>(
  context: CommandContext,
  timeoutMs: number,
  check: (bottle: Bottle) => T | undefined,
): Promise<T> {
  const key = { namespace: context.namespace, name: NAME };
  const progress = createProgress(context.io);
  try {
    return await waitFor(context, { kind: "Bottle", key, timeoutMs, what: `bottle "${NAME}"` }, (bottle) => {
      if (bottle === undefined) throw new CommandError(EXIT.notFound, `bottle "${NAME}" is gone`);
      progress.show(`   ${bottleLine(bottle)}`);
      return check(bottle);
    });
  } finally {
    progress.clear();
  }
}

function heading(context: CommandContext, text: string): void {
  print(context.io, `\n${colored(context.io, "bold", text)}`);
}
