import type { AuditLog, EgressCounters } from "../ports/audit.ts";
import { BackendError, type Backend } from "../ports/backend.ts";
import { GUARD_WAIT_MS_MAX, type AuditPage, type GuardHealth } from "../ports/guard.ts";
import type { Log } from "../ports/log.ts";
import { createSlots, pause } from "./slots.ts";

/** Lines of one page: a page fits into a few megabytes even if every line is as long as it may be. */
const LINES_MAX = 1000;
/** Guards that are asked at once. Beyond it they take turns, and no turn may be long. */
const READS_MAX = 128;
const CROWDED_WAIT_MS = 1_000;
/** A guard that refuses everything is asked more often, because people wait for the moment it works again. */
const SICK_WAIT_MS = 2_000;
/** After a page that was not full: lines gather meanwhile, so that a busy agent does not make a request of each of them. */
const GAP_MS_MIN = 200;
const GAP_MS_MAX = 2_000;
const GAP_MS_PER_GUARD = 20;
const BACKOFF_MS_MIN = 250;
const BACKOFF_MS_MAX = 30_000;
/** Traffic changes the counters all the time; a bottle's status says so this often. */
const TELL_MS = 2_000;
const DRAIN_MS = 10_000;
const DRAIN_PAGES_MAX = 256;
const DRAIN_RETRY_MS = 200;

export interface FollowedGuard {
  uid: string;
  guardId: string;
  backend: Backend;
}

/** What a guard said of itself on the last page. */
export interface Heard {
  guardId: string;
  health: GuardHealth;
  digest?: string;
}

/** Brings what guards report into the audit log: each line once, whatever dies in between, because the log keeps the cursor beside the lines. */
export interface AuditCollector {
  /** Reads these guards from now on and lets go of all others. Cheap to call with the same ones again. */
  follow(guards: readonly FollowedGuard[]): void;
  /**
   * Reads what a guard still holds, before it is removed. Never rejects and has a bound: a guard that cannot be read must not keep its bottle
   * from being frozen. What could not be read is logged.
   */
  drain(guard: FollowedGuard, signal: AbortSignal): Promise<void>;
  /** Absent until the guard that is followed now has answered once. */
  heard(uid: string): Heard | undefined;
  /** Kept current while a guard is followed. Absent for a bottle that was neither followed nor loaded. */
  counters(uid: string): EgressCounters | undefined;
  /** Reads the counters of a bottle without a guard from the log. */
  load(uid: string): Promise<EgressCounters>;
  /** Drops what is remembered of bottles that are gone. */
  keepOnly(uids: ReadonlySet<string>): void;
  /** Reads until `signal` aborts; resolves when no read is under way. */
  run(signal: AbortSignal): Promise<void>;
}

export interface CollectorOptions {
  auditLog: AuditLog;
  log: Log;
  now: () => number;
  /** Something of that bottle changed: at once for its guard's health or settings, else at most once in two seconds. */
  changed(uid: string): void;
}

interface Followed extends FollowedGuard {
  stop: AbortController;
  heard?: Heard;
  isStarted: boolean;
}

export function createAuditCollector(options: CollectorOptions): AuditCollector {
  const followed = new Map<string, Followed>();
  const reading = new Set<Promise<void>>();
  const teller = createTeller(options);
  const reader = createReader(options, { followed, teller });
  let isRunning = false;
  const start = (guard: Followed): void => {
    if (guard.isStarted || !isRunning) return;
    guard.isStarted = true;
    const done: Promise<void> = reader.readOn(guard).finally(() => reading.delete(done));
    reading.add(done);
  };
  return {
    follow(guards) {
      const wanted = new Map(guards.map((guard) => [guard.uid, guard]));
      for (const [uid, known] of followed) {
        const next = wanted.get(uid);
        if (next?.guardId === known.guardId && next.backend === known.backend) continue;
        known.stop.abort();
        followed.delete(uid);
      }
      for (const guard of wanted.values()) {
        const { uid, guardId, backend } = guard;
        // One that is gone stays here, not read, until nobody asks for it: the caller's view may be older than its end.
        const known = followed.get(uid) ?? { uid, guardId, backend, stop: new AbortController(), isStarted: false };
        followed.set(uid, known);
        start(known);
      }
    },
    async drain(guard, signal) {
      await drainGuard(guard, { ...options, collect: reader.collect, signal });
      teller.now(guard.uid);
    },
    heard: (uid) => followed.get(uid)?.heard,
    counters: (uid) => reader.counters.get(uid),
    load: reader.load,
    keepOnly(uids) {
      for (const uid of reader.counters.keys()) if (!uids.has(uid)) reader.counters.delete(uid);
      teller.keepOnly(uids);
    },
    async run(signal) {
      isRunning = true;
      for (const guard of followed.values()) start(guard);
      if (!signal.aborted) await new Promise<void>((done) => signal.addEventListener("abort", () => done()));
      isRunning = false;
      teller.close();
      for (const guard of followed.values()) guard.stop.abort();
      followed.clear();
      await Promise.all(reading);
    },
  };
}

interface ReaderParts {
  followed: ReadonlyMap<string, Followed>;
  teller: ReturnType<typeof createTeller>;
}

function createReader({ auditLog, log }: CollectorOptions, { followed, teller }: ReaderParts) {
  const counters = new Map<string, EgressCounters>();
  const slots = createSlots(READS_MAX);
  const load = async (uid: string): Promise<EgressCounters> => {
    const counted = await auditLog.counters(uid);
    counters.set(uid, counted);
    return counted;
  };
  const collect = async (guard: FollowedGuard, waitMs: number, signal: AbortSignal): Promise<AuditPage> => {
    const { uid, guardId, backend } = guard;
    const from = await auditLog.cursor(uid, guardId);
    const page = await backend.readAudit({ uid, guardId }, { cursor: from, waitMs, linesMax: LINES_MAX }, signal);
    // A bottle that was let go may be forgotten by now, and nothing would forget it a second time. The guard still has the page.
    signal.throwIfAborted();
    // Of two readers of one guard only the first one's page is kept: see the port.
    await auditLog.append(uid, { guardId, from, cursor: page.cursor, lines: page.lines });
    if (page.lines.length > 0 || !counters.has(uid)) await load(uid);
    return page;
  };
  const hear = (guard: Followed, page: AuditPage): void => {
    const before = guard.heard;
    guard.heard = { guardId: guard.guardId, health: page.health, ...(page.digest && { digest: page.digest }) };
    if (before === undefined || !sameHeard(before, guard.heard)) teller.now(guard.uid);
    else if (page.lines.length > 0) teller.soon(guard.uid);
  };
  const readOn = async (guard: Followed): Promise<void> => {
    const { signal } = guard.stop;
    for (let failures = 0; !signal.aborted;) {
      try {
        const page = await slots.hold(signal, () => collect(guard, waitMsFor(guard, followed.size), signal));
        if (page === undefined || signal.aborted) return;
        failures = 0;
        hear(guard, page);
        if (page.lines.length < LINES_MAX) await pause(gapMs(followed.size), signal);
      } catch (error) {
        if (signal.aborted || isGone(error)) return;
        failures += 1;
        const { uid, guardId } = guard;
        log.warn({ uid, guard: guardId, failures, error: messageOf(error) }, "audit of a guard not read");
        await pause(Math.min(BACKOFF_MS_MIN * 2 ** (failures - 1), BACKOFF_MS_MAX), signal);
      }
    }
  };
  return { counters, load, collect, readOn };
}

/** The first look does not wait: whoever launched the guard wants to know how it is. */
function waitMsFor({ heard }: Followed, guards: number): number {
  if (heard === undefined) return 0;
  if (guards > READS_MAX) return CROWDED_WAIT_MS;
  return heard.health.ok ? GUARD_WAIT_MS_MAX : SICK_WAIT_MS;
}

function gapMs(guards: number): number {
  return Math.min(Math.max(guards * GAP_MS_PER_GUARD, GAP_MS_MIN), GAP_MS_MAX);
}

function sameHeard(a: Heard, b: Heard): boolean {
  if (a.digest !== b.digest || a.health.ok !== b.health.ok) return false;
  return a.health.ok || b.health.ok || (a.health.reason === b.health.reason && a.health.message === b.health.message);
}

interface Drain extends CollectorOptions {
  collect(guard: FollowedGuard, waitMs: number, signal: AbortSignal): Promise<AuditPage>;
  signal: AbortSignal;
}

async function drainGuard(guard: FollowedGuard, { collect, log, signal }: Drain): Promise<void> {
  const { uid, guardId } = guard;
  const until = AbortSignal.any([signal, AbortSignal.timeout(DRAIN_MS)]);
  let problem = "it still has lines";
  for (let pages = 0; pages < DRAIN_PAGES_MAX && !until.aborted; pages += 1) {
    try {
      const page = await collect(guard, 0, until);
      if (page.lines.length === 0) return;
    } catch (error) {
      if (isGone(error)) return;
      problem = messageOf(error);
      await pause(DRAIN_RETRY_MS, until);
    }
  }
  log.warn({ uid, guard: guardId, problem }, "audit of a guard not read to its end");
}

/** Tells of changes, and of those that come all the time only now and then; none is kept back for good. */
function createTeller({ changed, now }: Pick<CollectorOptions, "changed" | "now">) {
  const toldMs = new Map<string, number>();
  const timers = new Map<string, NodeJS.Timeout>();
  const tell = (uid: string): void => {
    clearTimeout(timers.get(uid));
    timers.delete(uid);
    toldMs.set(uid, now());
    changed(uid);
  };
  return {
    now: tell,
    soon(uid: string) {
      if (timers.has(uid)) return;
      const waitMs = Math.min(Math.max((toldMs.get(uid) ?? -Infinity) + TELL_MS - now(), 0), TELL_MS);
      if (waitMs === 0) tell(uid);
      else
        timers.set(
          uid,
          setTimeout(() => tell(uid), waitMs),
        );
    },
    keepOnly(uids: ReadonlySet<string>) {
      for (const uid of toldMs.keys()) if (!uids.has(uid)) toldMs.delete(uid);
    },
    close() {
      for (const timer of timers.values()) clearTimeout(timer);
      timers.clear();
    },
  };
}

function isGone(error: unknown): boolean {
  return error instanceof BackendError && error.kind === "NotFound";
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
