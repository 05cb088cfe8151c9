import { Writable } from "node:stream";
import type { AgentSpec } from "./api/agent.ts";
import type { Bottle, BottleSpec, TurnStatus } from "./api/bottle.ts";
import { conditionOf } from "./api/conditions.ts";
import { isStatus } from "./api/errors.ts";
import { API_VERSION, DEFAULT_NAMESPACE } from "./api/meta.ts";
import { changeBottle } from "./commands/bottles.ts";
import { openContext, type CommandContext } from "./commands/context.ts";
import { exitCodeOf } from "./commands/exit.ts";
import { createLogger } from "./commands/logger.ts";
import { appendTurn } from "./commands/turn.ts";
import { isCurrent, throwIfStalled, waitFor } from "./commands/wait.ts";
import { withController } from "./commands/with-controller.ts";

/** A bottle operation failed. `exitCode` is the agent's own when it ended with another code than 0, else that of the command line for the same fault. */
export class BottleError extends Error {
  readonly exitCode: number;

  constructor(message: string, options: { exitCode?: number; cause?: unknown } = {}) {
    super(message, { cause: options.cause });
    this.name = "BottleError";
    this.exitCode = options.exitCode ?? 1;
  }
}

/** Where and for how long. All optional. */
export interface CallOptions {
  /** Default: `BOT_BOTTLE_STATE_DIR`, else `~/.bot-bottle`. */
  stateDir?: string;
  /** Default: `default`. */
  namespace?: string;
  /** The call gives up after this long; the bottle goes on. Default two hours. */
  timeoutMs?: number;
  signal?: AbortSignal;
}

export interface StartOptions extends CallOptions {
  prompt: string;
  /** Names of BottleTemplates, merged in this order over those of the agent. */
  bottles?: readonly string[];
  /** A label that another bottle has gets `-2`, `-3` … appended. Default: the agent's name. */
  label?: string;
  color?: BottleSpec["color"];
  /** `Docker`, `Bubblewrap`, …; default: the controller's choice. */
  backend?: NonNullable<BottleSpec["backend"]>["type"];
}

const TIMEOUT_MS = 2 * 3600_000;

/**
 * Launches a new bottle, runs one turn in it without a person, and resolves with the bottle's name when the turn is done and the bottle frozen.
 * `agent` names an Agent resource or spells one out. A controller that runs on the state directory does the work; without one this process does.
 * Rejects with a BottleError if the bottle cannot be made or the agent ends with another code than 0; the bottle is then kept, for a look at it.
 */
export function startHeadless(agent: string | AgentSpec, options: StartOptions): Promise<string> {
  return call(options, async (context) => {
    const base = typeof agent === "string" ? agent : "bottle";
    const { name, label } = await uniqueNames(context, base, options.label ?? base);
    const spec: BottleSpec = {
      ...(typeof agent === "string" ? { agentRef: { name: agent } } : { agent }),
      ...(options.bottles === undefined
        ? {}
        : { templateRefs: options.bottles.map((template) => ({ name: template })) }),
      ...(options.backend === undefined ? {} : { backend: { type: options.backend } }),
      operatingMode: "Running",
      turns: [{ id: "1", prompt: options.prompt }],
      label,
      color: options.color,
    };
    const metadata = { name, namespace: context.namespace };
    await context.store.create<"Bottle">({ apiVersion: API_VERSION, kind: "Bottle", metadata, spec });
    await turnDone(context, name, "1", options);
    return name;
  });
}

/** Wakes a frozen bottle for another turn and resolves when that is done and the bottle frozen again. Rejects like `startHeadless`. */
export function resumeHeadless(name: string, options: CallOptions & { prompt: string }): Promise<void> {
  return call(options, async (context) => {
    const { turn } = await appendTurn(context, name, { prompt: options.prompt, spec: { operatingMode: "Running" } });
    await turnDone(context, name, turn, options);
  });
}

/** Freezes a bottle: a running turn is interrupted and goes on when the bottle may run again. Resolves when only the disk is left. */
export function freeze(name: string, options: CallOptions = {}): Promise<void> {
  return call(options, async (context) => {
    await changeBottle(context, name, (bottle) => ({ ...bottle.spec, operatingMode: "Frozen" }));
    await awaitBottle(context, name, { ...options, what: "to freeze" }, (bottle) =>
      isFrozen(bottle) ? true : undefined,
    );
  });
}

/** Destroys a bottle with its disk. One that does not exist is destroyed already. */
export function destroy(name: string, options: CallOptions = {}): Promise<void> {
  return call(options, async (context) => {
    const key = { namespace: context.namespace, name };
    try {
      await context.store.delete("Bottle", key);
    } catch (error) {
      if (isStatus(error, "NotFound")) return;
      throw error;
    }
    const timeoutMs = options.timeoutMs ?? TIMEOUT_MS;
    await waitFor(context, { kind: "Bottle", key, timeoutMs, what: `bottle "${name}" to be gone` }, (bottle) =>
      bottle === undefined ? true : undefined,
    );
  });
}

/** Opens the installation, lends it a controller, and turns every fault into a BottleError. */
async function call<T>(options: CallOptions, body: (context: CommandContext) => Promise<T>): Promise<T> {
  const nowhere = new Writable({ write: (_chunk, _encoding, done) => done() });
  const io = {
    stdin: process.stdin,
    stdout: nowhere,
    stderr: nowhere,
    isTerminal: false,
    showsOutput: false,
    color: false,
  };
  let context: CommandContext | undefined;
  try {
    const signal = options.signal ?? new AbortController().signal;
    context = openContext(
      { stateDir: options.stateDir, namespace: options.namespace ?? DEFAULT_NAMESPACE },
      { io, signal },
    );
    return await withController(context, { log: createLogger(io, "silent") }, body);
  } catch (error) {
    if (error instanceof BottleError) throw error;
    throw new BottleError(error instanceof Error ? error.message : String(error), {
      exitCode: exitCodeOf(error),
      cause: error,
    });
  } finally {
    context?.close();
  }
}

async function turnDone(context: CommandContext, name: string, turn: string, options: CallOptions): Promise<void> {
  const ended = await awaitBottle(context, name, { ...options, what: `to end turn "${turn}"` }, (bottle) => {
    const status = bottle.status?.turns?.find((each) => each.id === turn);
    if (status?.state === "Ended" && (isFrozen(bottle) || bottle.spec.lifecycle?.afterTurn === "Keep")) return status;
    if (status?.outcome === "Interrupted" && bottle.spec.operatingMode === "Frozen") return status;
    throwIfStalled(bottle);
    return undefined;
  });
  if (ended.outcome === "Done") return;
  throw new BottleError(`turn "${turn}" of bottle "${name}" ended as ${ended.outcome}`, { exitCode: codeOf(ended) });
}

function codeOf(turn: TurnStatus): number {
  if (turn.outcome === "DeadlineExceeded") return 124;
  if (turn.outcome === "Interrupted") return 75;
  return turn.exitCode === undefined || turn.exitCode === 0 ? 1 : turn.exitCode;
}

function isFrozen(bottle: Bottle): boolean {
  return isCurrent(bottle) && conditionOf(bottle.status?.conditions, "Frozen")?.status === "True";
}

function awaitBottle<T>(
  context: CommandContext,
  name: string,
  options: CallOptions & { what: string },
  check: (bottle: Bottle) => T | undefined,
): Promise<T> {
  const key = { namespace: context.namespace, name };
  const target = {
    kind: "Bottle",
    key,
    timeoutMs: options.timeoutMs ?? TIMEOUT_MS,
    what: `bottle "${name}" ${options.what}`,
  } as const;
  return waitFor(context, target, (bottle) => {
    if (bottle === undefined)
      throw new BottleError(`bottle "${name}" does not exist in namespace "${context.namespace}"`, { exitCode: 3 });
    return check(bottle);
  });
}

/** A name and a label that no bottle has: the wanted ones, else with the first free number behind. */
async function uniqueNames(
  context: CommandContext,
  name: string,
  label: string,
): Promise<{ name: string; label: string }> {
  const { items } = await context.store.list("Bottle", { namespace: context.namespace });
  const names = new Set(items.map((bottle) => bottle.metadata.name));
  const labels = new Set(items.map((bottle) => bottle.spec.label));
  return { name: firstFree(name, names), label: firstFree(label, labels) };
}

function firstFree(wanted: string, taken: ReadonlySet<string | undefined>): string {
  for (let number = 1; ; number += 1) {
    const candidate = number === 1 ? wanted : `${wanted}-${number}`;
    if (!taken.has(candidate)) return candidate;
  }
}
