import type { AuditLine } from "./guard.ts";

/** Lines of one bottle that are kept; the oldest go first. */
export const AUDIT_LINES_MAX = 10_000;

export interface StoredAuditLine {
  /** Grows by one with each line of a bottle, from 1. */
  seq: number;
  line: AuditLine;
}

/** What went through a bottle's guard so far, dropped lines included. */
export interface EgressCounters {
  allowed: number;
  denied: number;
  /** Of the denied: those that the DLP scan refused. */
  dlpBlocked: number;
  lastDenied?: { time: string; host: string; port: number | null; rule: string };
  /** By host, at most 256; the rest is added up under `*`. */
  hosts: Readonly<Record<string, { allowed: number; denied: number; bytesUp: number; bytesDown: number }>>;
}

/** What the guards reported, by bottle uid. Durable when `append` returns. */
export interface AuditLog {
  /**
   * Lines and the guard's cursor behind them in one transaction: lines are stored once, whatever dies in between.
   * `guardId` is the unit that reported; cursors of one guard mean nothing to another. `from` is the cursor the page was asked with: a page that
   * does not begin where the stored ones end is left out, because another reader was first.
   */
  append(
    uid: string,
    page: { guardId: string; from: string; cursor: string; lines: readonly AuditLine[] },
  ): Promise<void>;
  /** Where to go on reading that guard; empty for an unknown one. */
  cursor(uid: string, guardId: string): Promise<string>;
  /** Kept lines after `afterSeq`, oldest first, at most `limit`. */
  read(uid: string, options: { afterSeq: number; limit: number }): Promise<StoredAuditLine[]>;
  counters(uid: string): Promise<EgressCounters>;
  /** Absent is success. */
  forget(uid: string): Promise<void>;
}
