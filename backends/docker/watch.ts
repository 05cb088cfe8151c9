import type { Context } from "./context.ts";
import { isKind } from "./errors.ts";
import { ownerFilter, readLabels } from "./names.ts";
import { openStream } from "./raw.ts";

const ACTIONS = ["start", "die", "destroy", "oom"];
const BACKOFF_MS_MIN = 100;
const BACKOFF_MS_MAX = 10_000;
const LINE_LENGTH_MAX = 1024 * 1024;

/** Follows the engine's events until `signal` aborts, through every loss of the connection. Events are hints: the lists are the truth. */
export async function watchEvents(context: Context, hint: (uid: string) => void, signal: AbortSignal): Promise<void> {
  // Seconds, as the engine wants them. Begins a little early: a doubled hint costs one look, a lost one a whole resync period.
  let since = context.now() / 1000 - 1;
  let backoffMs = BACKOFF_MS_MIN;
  while (!signal.aborted) {
    try {
      for await (const event of events(context, since, signal)) {
        backoffMs = BACKOFF_MS_MIN;
        since = event.time;
        if (event.ended !== undefined) context.ended.add(event.ended);
        if (event.uid !== undefined) hint(event.uid);
      }
    } catch (error) {
      if (signal.aborted) return;
      context.log.debug({ error: error instanceof Error ? error.message : String(error) }, "engine events were lost");
      // A failpoint or a bug must not be swallowed by a loop that goes on for ever.
      if (!isKind(error, "Transient") && !isKind(error, "Unavailable")) throw error;
    }
    await pause(backoffMs, signal);
    backoffMs = Math.min(backoffMs * 2, BACKOFF_MS_MAX);
  }
}

interface EngineEvent {
  time: number;
  uid: string | undefined;
  /** The id of a container that has ended. */
  ended: string | undefined;
}

async function* events(context: Context, since: number, signal: AbortSignal): AsyncGenerator<EngineEvent> {
  const filters = JSON.stringify({ type: ["container"], event: ACTIONS, label: [ownerFilter(context.owner)] });
  const query = new URLSearchParams({ since: since.toFixed(9), filters });
  const stream = await context.engine.call(
    "event.list",
    (abortSignal) => openStream(context.engine, { path: `/events?${query.toString()}`, method: "GET" }, abortSignal),
    { signal },
  );
  const close = () => stream.destroy();
  signal.addEventListener("abort", close, { once: true });
  if (signal.aborted) close();
  try {
    let rest = "";
    for await (const chunk of stream) {
      const lines = (rest + String(chunk)).split("\n");
      rest = (lines.pop() ?? "").slice(0, LINE_LENGTH_MAX);
      for (const line of lines) if (line.trim() !== "") yield readEvent(line, since);
    }
  } catch (error) {
    if (!signal.aborted) context.log.debug({ error: String(error) }, "engine events were cut off");
  } finally {
    signal.removeEventListener("abort", close);
    close();
  }
}

function readEvent(line: string, since: number): EngineEvent {
  const event: {
    Action?: string;
    timeNano?: number;
    Actor?: { ID?: string; Attributes?: Record<string, string> };
  } = JSON.parse(line);
  return {
    time: event.timeNano === undefined ? since : event.timeNano / 1e9,
    uid: readLabels(event.Actor?.Attributes)?.uid,
    ended: event.Action === "die" ? event.Actor?.ID : undefined,
  };
}

function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const end = () => {
      clearTimeout(timer);
      signal.removeEventListener("abort", end);
      resolve();
    };
    const timer = setTimeout(end, ms);
    signal.addEventListener("abort", end, { once: true });
    if (signal.aborted) end();
  });
}
