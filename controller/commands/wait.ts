import type { Bottle } from "../api/bottle.ts";
import { conditionOf } from "../api/conditions.ts";
import { isStatus } from "../api/errors.ts";
import type { KindMap, KindName } from "../api/kinds.ts";
import type { ObjectKey } from "../api/meta.ts";
import type { CommandContext } from "./context.ts";
import { formatDuration } from "./duration.ts";
import { CommandError, EXIT, interrupted } from "./exit.ts";
import { plainText, say, type Io } from "./io.ts";

/** Without --timeout a wait ends after this long. */
export const WAIT_MS = 10 * 60_000;

export interface WaitTarget<K extends KindName> {
  kind: K;
  key: ObjectKey;
  timeoutMs: number;
  /** For the message when time is up: `bottle "x" to be ready`. */
  what: string;
}

/**
 * Looks at an object now and at each change of it, by any process, until `check` gives an answer. Absent is `undefined`.
 * Ends with exit code 5 after the timeout and 130 on Ctrl-C.
 */
export async function waitFor<K extends KindName, T>(
  context: Pick<CommandContext, "store" | "signal">,
  target: WaitTarget<K>,
  check: (object: KindMap[K] | undefined) => T | undefined | Promise<T | undefined>,
): Promise<T> {
  const { store } = context;
  const { kind, key } = target;
  const timeout = AbortSignal.timeout(Math.min(target.timeoutMs, 2 ** 31 - 1));
  const signal = AbortSignal.any([context.signal, timeout]);
  while (!signal.aborted) {
    try {
      const { items, resourceVersion } = await store.list(kind, { namespace: key.namespace });
      const found = await check(items.find((item) => item.metadata.name === key.name));
      if (found !== undefined) return found;
      for await (const event of store.watch([kind], { resourceVersion, signal })) {
        if (event.type === "BOOKMARK" || event.object.metadata.name !== key.name) continue;
        if (event.object.metadata.namespace !== key.namespace) continue;
        const answer = await check(event.type === "DELETED" ? undefined : event.object);
        if (answer !== undefined) return answer;
      }
    } catch (error) {
      if (!signal.aborted && !isStatus(error, "Gone")) throw error;
      if (error instanceof CommandError) throw error;
    }
  }
  if (context.signal.aborted) throw interrupted();
  const waited = formatDuration(target.timeoutMs);
  throw new CommandError(EXIT.timedOut, `timed out after ${waited} waiting for ${target.what}`);
}

/** A line that says how far it is: rewritten in place on a terminal, else printed when it changes. */
export interface Progress {
  show(text: string): void;
  /** Leaves the terminal as if nothing had been shown. */
  clear(): void;
}

export function createProgress(io: Io): Progress {
  let shown = "";
  return {
    show(text) {
      const line = plainText(text);
      if (line === shown) return;
      shown = line;
      if (!io.isTerminal) say(io, line);
      else io.stderr.write(`\r\u001b[K${line.slice(0, 200)}`);
    },
    clear() {
      if (io.isTerminal && shown !== "") io.stderr.write("\r\u001b[K");
      shown = "";
    },
  };
}

/** What a bottle is doing, in one line. */
export function bottleLine(bottle: Bottle): string {
  const name = `bottle/${bottle.metadata.name}`;
  if (bottle.metadata.deletionTimestamp !== undefined) return `${name}: is being destroyed`;
  const ready = conditionOf(bottle.status?.conditions, "Ready");
  if (ready === undefined || !isCurrent(bottle)) return `${name}: waits for the controller`;
  return `${name}: ${ready.reason}: ${ready.message}`;
}

/** The status speaks of the newest spec. */
export function isCurrent(bottle: Bottle): boolean {
  return (bottle.status?.observedGeneration ?? 0) >= bottle.metadata.generation;
}

/** Fails if nothing will change until a person changes something. */
export function throwIfStalled(bottle: Bottle): void {
  const stalled = conditionOf(bottle.status?.conditions, "Stalled");
  if (stalled?.status !== "True" || !isCurrent(bottle)) return;
  const code = /^(Backend|Engine|NoBackend)/.test(stalled.reason) ? EXIT.unavailable : EXIT.refused;
  throw new CommandError(code, `bottle "${bottle.metadata.name}" is stalled: ${stalled.reason}: ${stalled.message}`);
}

/** One line if nothing will happen because nobody runs the control loop. */
export function sayIfNoController(context: Pick<CommandContext, "controllerPid" | "io" | "stateDir">): boolean {
  if (context.controllerPid() !== undefined) return false;
  say(
    context.io,
    `note: no controller is running on "${context.stateDir}": nothing happens until "bot-bottle serve" runs`,
  );
  return true;
}
