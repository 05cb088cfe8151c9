import {
  GUARD_WAIT_MS_MAX,
  type AuditLine,
  type AuditPage,
  type AuditRequest,
  type GuardHealth,
} from "../../controller/ports/guard.ts";
import {
  appendTo,
  directoryFiles,
  openLeft,
  openSegment,
  readFrom,
  type AuditFiles,
  type Segment,
} from "./audit-segments.ts";

/** Lines on their way to the controller. They are on disk when `write` returns, or the journal says that it is not well. */
export interface AuditJournal {
  /** False if the line could not be kept: then it is counted, and a line says how many there were. */
  write(line: AuditLine): boolean;
  /** While this is not ok nothing may leave: it could not be told. Tries again by itself, at most once a second. */
  health(): GuardHealth;
  /** What lies before the request's cursor is not kept any longer. Throws if the lines cannot be read back. */
  read(request: AuditRequest, signal?: AbortSignal): Promise<Omit<AuditPage, "digest">>;
  close(): void;
}

const MIB = 1024 * 1024;
const SEGMENT_BYTES_MAX = 8 * MIB;
/** So much may wait for a controller that is away. Beyond it nothing leaves any more; refusals are still told until the spare is used up. */
const UNREAD_BYTES_MAX = 64 * MIB;
const SPARE_BYTES_MAX = 8 * MIB;
/** Of lines that cannot be written: a full disk, a directory that became read-only. */
const PENDING_BYTES_MAX = 4 * MIB;
/** A page is read, parsed and written in one go, and so long nothing else goes through: a few milliseconds. */
const PAGE_BYTES_MAX = MIB / 4;
/** Far above what the fields of a line allow; a longer one would not fit a page. */
const LINE_BYTES_MAX = 64 * 1024;
const PAGE_LINES_MAX = 10_000;
const RETRY_MS = 1_000;
/** A reader that waits gets what came within this time as one page, not a page a line. */
const GATHER_MS = 50;
/**
 * Places left out before each start in a directory that was used before. A machine that crashed may have lost what it wrote last, so a cursor
 * may lie behind the end; it falls into this gap, and not among lines that its reader never saw.
 */
const START_GAP = 2 ** 32;
const NEWLINE = 10;

export interface AuditJournalOptions {
  dir: string;
  now: () => number;
  files?: AuditFiles;
  segmentBytesMax?: number;
  unreadBytesMax?: number;
}

interface State {
  generation: string;
  /** Oldest first. */
  segments: Segment[];
  /** The last of them, once it could be made. */
  current: Segment | undefined;
  /** Everything before this place was read by somebody who came back for more. */
  read: number;
  pending: Uint8Array[];
  pendingBytes: number;
  dropped: number;
  /** Code of the error that stands in the way. */
  failure: string | undefined;
  triedMs: number;
  /** The health that a reader heard last: another one is told at once. */
  told: string | undefined;
  waiters: Set<() => void>;
  gathering: NodeJS.Timeout | undefined;
  open: boolean;
}

export function createAuditJournal(options: AuditJournalOptions): AuditJournal {
  const journal = { ...options, files: options.files ?? directoryFiles(options.dir) };
  const state: State = {
    generation: "",
    segments: [],
    current: undefined,
    read: 0,
    pending: [],
    pendingBytes: 0,
    dropped: 0,
    failure: undefined,
    triedMs: 0,
    told: undefined,
    waiters: new Set(),
    gathering: undefined,
    open: true,
  };
  flush(journal, state);
  return {
    write: (line) => write(journal, state, line),
    health: () => health(journal, state),
    read: (request, signal) => read(journal, state, { ...request, signal }),
    close: () => close(journal, state),
  };
}

type Journal = AuditJournalOptions & { files: AuditFiles };

function write(journal: Journal, state: State, line: AuditLine): boolean {
  const bytes = Buffer.from(`${JSON.stringify(line)}\n`);
  const unread = unreadBytes(state) + state.pendingBytes + bytes.length;
  const full = unread > (journal.unreadBytesMax ?? UNREAD_BYTES_MAX) + SPARE_BYTES_MAX;
  const long = bytes.length > LINE_BYTES_MAX || state.pendingBytes + bytes.length > PENDING_BYTES_MAX;
  if (!state.open || full || long) {
    state.dropped += 1;
    return false;
  }
  if (state.dropped > 0 && state.failure === undefined) keep(state, notice(journal, state));
  keep(state, bytes);
  if (isDue(journal, state)) flush(journal, state);
  return true;
}

function keep(state: State, bytes: Uint8Array): void {
  state.pending.push(bytes);
  state.pendingBytes += bytes.length;
}

function isDue(journal: Journal, state: State): boolean {
  return state.failure === undefined || Math.abs(journal.now() - state.triedMs) >= RETRY_MS;
}

/** Writes what is pending, in order. Each line is taken off the list only when all of it is in the file. */
function flush(journal: Journal, state: State): void {
  if (!state.open) return;
  state.triedMs = journal.now();
  const before = state.failure;
  try {
    while (true) {
      const segment = writable(journal, state);
      const [bytes] = state.pending;
      if (bytes === undefined && state.dropped === 0) break;
      if (bytes === undefined) {
        keep(state, notice(journal, state));
        continue;
      }
      appendTo(journal.files, segment, bytes);
      state.pending.shift();
      state.pendingBytes -= bytes.length;
      gather(state);
    }
    state.failure = undefined;
  } catch (error) {
    state.failure = codeOf(error);
  }
  if (state.failure !== before) wake(state);
}

/** The segment to write to; a full one is followed by the next. */
function writable({ files, segmentBytesMax = SEGMENT_BYTES_MAX }: Journal, state: State): Segment {
  if (state.current !== undefined && state.current.size < segmentBytesMax) return state.current;
  if (state.generation === "") {
    const left = openLeft(files);
    state.generation = left.generation;
    state.segments = left.segments;
    state.read = left.segments[0]?.base ?? 0;
  }
  const last = state.segments.at(-1);
  const gap = state.current === undefined && last !== undefined ? START_GAP : 0;
  const next = openSegment(files, state.generation, last === undefined ? 0 : endOf(last) + gap);
  state.segments.push(next);
  state.current = next;
  return next;
}

function endOf(segment: Segment): number {
  return segment.base + segment.size;
}

function unreadBytes(state: State): number {
  let total = 0;
  for (const segment of state.segments) total += Math.max(0, endOf(segment) - Math.max(segment.base, state.read));
  return total;
}

function health(journal: Journal, state: State): GuardHealth {
  if (state.failure !== undefined && isDue(journal, state)) flush(journal, state);
  if (state.failure !== undefined) {
    const message = `cannot write the audit to "${journal.dir}" (${state.failure}): make room there or make it writable`;
    return { ok: false, reason: "AuditUnwritable", message };
  }
  const unreadMax = journal.unreadBytesMax ?? UNREAD_BYTES_MAX;
  if (unreadBytes(state) <= unreadMax) return { ok: true };
  const message = `${unreadMax / MIB} MiB of the audit were not read: egress goes on when the controller reads them`;
  return { ok: false, reason: "AuditFull", message };
}

async function read(
  journal: Journal,
  state: State,
  request: AuditRequest & { signal?: AbortSignal },
): Promise<Omit<AuditPage, "digest">> {
  const now = page(journal, state, request);
  const toldBefore = state.told;
  state.told = JSON.stringify(now.health);
  const waitMs = Math.min(request.waitMs, GUARD_WAIT_MS_MAX);
  if (now.lines.length > 0 || state.told !== toldBefore || waitMs <= 0 || !state.open) return now;
  await news(state, waitMs, request.signal);
  const later = page(journal, state, { ...request, cursor: now.cursor });
  state.told = JSON.stringify(later.health);
  return later;
}

function page(journal: Journal, state: State, request: AuditRequest): Omit<AuditPage, "digest"> {
  const place = placeOf(state, request.cursor);
  if (place !== undefined) forget(journal, state, place);
  // Before the lines: what these write belongs to the page.
  if (health(journal, state).ok && state.dropped > 0) flush(journal, state);
  const lines = linesFrom(journal, state, place ?? state.segments[0]?.base ?? 0, request);
  return { ...lines, health: health(journal, state) };
}

/** `undefined` for a cursor of somebody else's journal: nothing follows from it about what was read. */
function placeOf(state: State, cursor: string): number | undefined {
  const [, generation, digits] = /^([0-9a-f]{16}):([0-9]{1,16})$/.exec(cursor) ?? [];
  const last = state.segments.at(-1);
  if (generation !== state.generation || last === undefined) return undefined;
  return Math.min(Number(digits), endOf(last));
}

/** Removes files that were read to their end. A file that cannot be removed now is tried again with the next cursor. */
function forget({ files }: Journal, state: State, place: number): void {
  state.read = Math.max(state.read, place);
  while (state.segments.length > 1) {
    const [oldest] = state.segments;
    if (oldest === undefined || endOf(oldest) > state.read) return;
    try {
      files.remove(oldest.name);
      files.close(oldest.file);
    } catch {
      return;
    }
    state.segments.shift();
  }
}

function linesFrom(
  journal: Journal,
  state: State,
  place: number,
  { linesMax }: AuditRequest,
): { lines: AuditLine[]; cursor: string } {
  const lines: AuditLine[] = [];
  const most = Math.max(1, Math.min(linesMax, PAGE_LINES_MAX));
  let at = place;
  let bytesLeft = PAGE_BYTES_MAX;
  for (const segment of state.segments) {
    if (at < segment.base) at = segment.base;
    if (at >= endOf(segment)) continue;
    const bytes = readFrom(journal.files, segment, at - segment.base, bytesLeft);
    const taken = takeLines(bytes, most - lines.length);
    lines.push(...taken.texts.map((text) => parse(journal, text)));
    at += taken.bytes;
    bytesLeft -= taken.bytes;
    if (at < endOf(segment)) break;
  }
  return { lines, cursor: state.generation === "" ? "" : `${state.generation}:${at}` };
}

function takeLines(bytes: Uint8Array, most: number): { texts: string[]; bytes: number } {
  const view = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
  const texts: string[] = [];
  let from = 0;
  while (texts.length < most) {
    const end = view.indexOf(NEWLINE, from);
    if (end === -1) break;
    texts.push(view.toString("utf8", from, end));
    from = end + 1;
  }
  return { texts, bytes: from };
}

function parse(journal: Journal, text: string): AuditLine {
  try {
    return JSON.parse(text);
  } catch {
    return lost(journal, "a line of the audit could not be read back");
  }
}

/** A line in place of those that could not be kept, so that a gap is seen. */
function notice(journal: Journal, state: State): Uint8Array {
  const reason = `${state.dropped} requests have no line of their own: the audit could not be written or was not read`;
  state.dropped = 0;
  return Buffer.from(`${JSON.stringify(lost(journal, reason))}\n`);
}

function lost(journal: Journal, reason: string): AuditLine {
  const nothing = { bytesUp: 0, bytesDown: 0, ms: 0, injected: [], dlp: [] };
  const request = { protocol: "HTTP", host: "", port: null, method: "", path: "" } as const;
  const time = new Date(journal.now()).toISOString();
  return { v: 1, time, kind: "request", verdict: "Denied", rule: "audit-unavailable", reason, ...request, ...nothing };
}

function news(state: State, waitMs: number, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve) => {
    const end = (): void => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", end);
      state.waiters.delete(end);
      resolve();
    };
    const timer = setTimeout(end, waitMs);
    signal?.addEventListener("abort", end);
    state.waiters.add(end);
    if (signal?.aborted === true) end();
  });
}

function gather(state: State): void {
  if (state.waiters.size === 0 || state.gathering !== undefined) return;
  state.gathering = setTimeout(() => wake(state), GATHER_MS);
}

function wake(state: State): void {
  clearTimeout(state.gathering);
  state.gathering = undefined;
  for (const waiter of state.waiters) waiter();
}

function close({ files }: Journal, state: State): void {
  if (!state.open) return;
  state.open = false;
  wake(state);
  for (const { file } of state.segments) files.close(file);
  state.segments = [];
  state.current = undefined;
}

function codeOf(error: unknown): string {
  return error instanceof Error && "code" in error ? String(error.code) : "unknown error";
}
