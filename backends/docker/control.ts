import { Socket } from "node:net";
import { Duplex } from "node:stream";
import { BackendError } from "../../controller/ports/backend.ts";
import type { AuditPage, AuditRequest, GuardConfig, GuardConfigured } from "../../controller/ports/guard.ts";
import { createControlClient, type ControlClient } from "../guard/control-client.ts";
import { inspectUnit, type Context } from "./context.ts";
import { demultiplex } from "./demultiplex.ts";
import { isKind } from "./errors.ts";
import { openDuplex } from "./raw.ts";

/** An attached stream that nobody has used for this long is closed; the next request opens another one in a few milliseconds. */
const IDLE_MS_MAX = 30_000;
/** Attached streams that wait for a next request. Those with a request under way are as many as there are guards. */
const IDLE_STREAMS_MAX = 64;
const ATTACH_MS_MAX = 15_000;
/** The client of the control protocol has deadlines of its own, with better words; these are for when it is not even written. */
const REQUEST_MS_MAX = 30_000;
/** An engine that restarts cuts all streams and keeps its containers. */
const TRIES_MAX = 2;

interface GuardUnit {
  uid: string;
  guardId: string;
}

/** The two verbs that talk to a guard. */
export interface GuardControl {
  configure(unit: GuardUnit, config: GuardConfig, signal?: AbortSignal): Promise<GuardConfigured>;
  readAudit(unit: GuardUnit, request: AuditRequest, signal?: AbortSignal): Promise<AuditPage>;
}

/** One attached stream of one guard, shared by all requests to it. */
interface Line {
  client: ControlClient;
  stream: Duplex;
  requests: number;
}

/**
 * Talks to guards over the input and output of their containers: what passes there is in no file, no environment and no command line.
 * The engine's log of a container keeps its output, which holds answers, and not its input, which holds secrets.
 */
export function createGuardControl(context: Context): GuardControl {
  const lines = new Map<string, Promise<Line>>();
  /** Oldest first. */
  const idle = new Map<Line, NodeJS.Timeout>();

  const connect = (unit: GuardUnit): Promise<Line> => {
    const known = lines.get(unit.guardId);
    if (known !== undefined) return known;
    const opened = openLine(context, unit);
    const forget = () => {
      if (lines.get(unit.guardId) === opened) lines.delete(unit.guardId);
    };
    lines.set(unit.guardId, opened);
    opened.then((line) => line.stream.once("close", forget), forget);
    return opened;
  };
  const begin = (line: Line) => {
    line.requests += 1;
    clearTimeout(idle.get(line));
    idle.delete(line);
  };
  const end = (line: Line) => {
    line.requests -= 1;
    if (line.requests > 0 || line.stream.destroyed) return;
    idle.set(line, setTimeout(() => close(line), IDLE_MS_MAX).unref());
    for (const [oldest] of idle) if (idle.size > IDLE_STREAMS_MAX) close(oldest);
  };
  const close = (line: Line) => {
    clearTimeout(idle.get(line));
    idle.delete(line);
    line.stream.destroy();
  };

  const request = async <T>(unit: GuardUnit, how: How<T>): Promise<T> => {
    for (let tries = 1; ; tries += 1) {
      const line = await unlessAborted(connect(unit), how);
      begin(line);
      try {
        const options = { signal: how.signal, timeoutMs: how.timeoutMs, subject: unit.guardId };
        return await context.engine.call(how.label, (abortSignal) => how.ask(line.client, abortSignal), options);
      } catch (error) {
        if (hasEnded(error)) close(line);
        if (!isGone(error)) throw error;
        if (tries === TRIES_MAX) throw lost(unit, error);
      } finally {
        end(line);
      }
    }
  };

  return {
    configure: (unit, config, signal) =>
      request(unit, {
        label: "guard.configure",
        timeoutMs: REQUEST_MS_MAX,
        signal,
        ask: (client, abortSignal) => client.configure(config, abortSignal),
      }),
    readAudit: (unit, asked, signal) =>
      request(unit, {
        label: "guard.audit",
        timeoutMs: REQUEST_MS_MAX + asked.waitMs,
        signal,
        ask: (client, abortSignal) => client.audit(asked, abortSignal),
      }),
  };
}

interface How<T> {
  label: string;
  timeoutMs: number;
  signal?: AbortSignal | undefined;
  ask(client: ControlClient, abortSignal: AbortSignal): Promise<T>;
}

/** Opened for all who wait for it, so no single caller's signal ends it. */
async function openLine(context: Context, unit: GuardUnit): Promise<Line> {
  const found = await inspectUnit(context, unit.guardId, { role: "guard" });
  if (found === undefined || found.facts.role !== "guard" || found.facts.uid !== unit.uid || !found.State.Running) {
    throw new BackendError("NotFound", "GuardGone", `guard "${unit.guardId}" does not run: launch the bottle again`);
  }
  const path = `/containers/${found.Id}/attach?stream=1&stdin=1&stdout=1`;
  const raw = await context.engine.call(
    "container.attach:guard",
    (abortSignal) => openDuplex(context.engine, { path, method: "POST" }, abortSignal),
    { timeoutMs: ATTACH_MS_MAX, subject: unit.guardId },
  );
  // A stream that waits for a next request must not keep the process alive; one with a request has that request's deadline.
  if (raw instanceof Socket) raw.unref();
  const stream = unframed(raw);
  return { client: createControlClient(stream), stream, requests: 0 };
}

/** The container's input and output as one stream, without the engine's frames. */
function unframed(raw: Duplex): Duplex {
  const stream = new Duplex({
    // Pushed as it comes: its one reader keeps no more than a line.
    read() {},
    write: (chunk, _encoding, done) => void raw.write(chunk, done),
    destroy(error, done) {
      raw.destroy();
      done(error);
    },
  });
  // What broke is said by whoever reads the stream; nobody else listens to it.
  raw.on("error", (error) => stream.destroy(error));
  stream.on("error", () => {});
  void (async () => {
    try {
      for await (const frame of demultiplex(raw)) if (frame.stream === "stdout") stream.push(frame.data);
      stream.destroy();
    } catch (error) {
      stream.destroy(error instanceof Error ? error : new Error(String(error)));
    }
  })();
  return stream;
}

/** The opening goes on for others who wait for it. */
function unlessAborted<T>(opening: Promise<T>, { label, signal }: How<unknown>): Promise<T> {
  if (signal === undefined) return opening;
  return new Promise((resolve, reject) => {
    const abort = () => reject(new BackendError("Transient", "Aborted", `${label} was stopped by its caller`));
    signal.addEventListener("abort", abort, { once: true });
    if (signal.aborted) abort();
    opening.then(resolve, reject).finally(() => signal.removeEventListener("abort", abort));
  });
}

/** The stream broke, or nothing came back on it in time: the next request gets another one. */
function hasEnded(error: unknown): boolean {
  return isGone(error) || (error instanceof BackendError && error.reason.endsWith("Timeout"));
}

function isGone(error: unknown): boolean {
  return isKind(error, "NotFound");
}

function lost({ guardId }: GuardUnit, cause: unknown): BackendError {
  const message = `the Docker Engine cut the way to guard "${guardId}" twice: try again`;
  return new BackendError("Transient", "ConnectionLost", message, { cause });
}
