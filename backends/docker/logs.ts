import type { Readable } from "node:stream";
import { BackendError, type ProbeReport } from "../../controller/ports/backend.ts";
import type { TurnKey } from "../../controller/ports/journal.ts";
import { requireUnit, type Context } from "./context.ts";
import { demultiplex } from "./demultiplex.ts";
import { agentName } from "./names.ts";
import { openStream } from "./raw.ts";

/** Output of one run. The engine frames each piece; frames are taken off in the order they were kept. */
export async function* logs(
  context: Context,
  unit: { uid: string } & TurnKey,
  options: { follow: boolean; signal?: AbortSignal | undefined },
): AsyncGenerator<Uint8Array> {
  const name = agentName(unit.uid, unit);
  const found = await requireUnit(context, name, { role: "agent", signal: options.signal });
  // A unit that has exited writes no more: following it would be the same as reading it.
  const follow = options.follow && found.State.Status !== "exited";
  yield* readLogs(context, { id: found.Id, role: "agent", follow, stderr: true }, options.signal);
}

interface LogRequest {
  id: string;
  role: string;
  follow: boolean;
  stderr: boolean;
}

async function* readLogs(context: Context, request: LogRequest, signal?: AbortSignal): AsyncGenerator<Uint8Array> {
  const stream = await openLogs(context, request, signal);
  const close = () => stream.destroy();
  signal?.addEventListener("abort", close, { once: true });
  try {
    for await (const frame of demultiplex(stream)) yield frame.data;
  } catch (error) {
    if (signal?.aborted !== true) throw error;
  } finally {
    signal?.removeEventListener("abort", close);
    stream.destroy();
  }
}

/** Always asked for as a stream, also without `follow`: the other form keeps the whole log in memory as text. */
async function openLogs(
  context: Context,
  { id, role, follow, stderr }: LogRequest,
  signal?: AbortSignal,
): Promise<Readable> {
  const query = new URLSearchParams({ stdout: "1", stderr: stderr ? "1" : "0", follow: follow ? "1" : "0" });
  const path = `/containers/${id}/logs?${query.toString()}`;
  return context.engine.call(
    `container.logs:${role}`,
    (abortSignal) => openStream(context.engine, { path, method: "GET" }, abortSignal),
    { signal, subject: id },
  );
}

const PROBE_MS_MAX = 20_000;
const LINE_LENGTH_MAX = 64 * 1024;

/** Waits for the line in which the holder says what it found. A holder that was asked before answers from its log. */
export async function probe(context: Context, holderId: string, signal?: AbortSignal): Promise<ProbeReport> {
  await requireUnit(context, holderId, { role: "holder", signal });
  const deadline = AbortSignal.timeout(PROBE_MS_MAX);
  const either = signal === undefined ? deadline : AbortSignal.any([deadline, signal]);
  let rest = "";
  for await (const chunk of readLogs(context, { id: holderId, role: "holder", follow: true, stderr: false }, either)) {
    const lines = (rest + Buffer.from(chunk).toString("utf8")).split("\n");
    rest = (lines.pop() ?? "").slice(0, LINE_LENGTH_MAX);
    const report = lines.map(readReport).find((found) => found !== undefined);
    if (report !== undefined) return report;
  }
  if (signal?.aborted === true)
    throw new BackendError("Transient", "Aborted", `the probe of "${holderId}" was stopped`);
  if (deadline.aborted) {
    throw new BackendError("Transient", "ProbeTimeout", `holder "${holderId}" did not report within 20 s`);
  }
  throw new BackendError("Conflict", "HolderExited", `holder "${holderId}" ended before it reported`);
}

function readReport(line: string): ProbeReport | undefined {
  if (!line.startsWith('{"probe":')) return undefined;
  const { probe: report }: { probe: ProbeReport } = JSON.parse(line);
  return { passed: report.passed === true, detail: String(report.detail) };
}
