import type { TurnOutcome } from "../api/bottle.ts";

/** Why the controller ended a running turn. */
export type StopReason = "Freeze" | "Deadline" | "GuardLost" | "Delete";

/**
 * What happened once to a bottle and cannot be seen again on a backend. Entries are facts with a time (milliseconds since the epoch), never changed.
 * An entry that announces an effect (LaunchIntended, TurnStarting, TurnStopRequested) is written before the effect.
 */
export type JournalEntry =
  | { type: "LaunchIntended"; timeMs: number; backend: string; generation: number; templateDigest: string }
  | { type: "Probed"; timeMs: number; holderId: string; passed: boolean; detail: string }
  /** The guard has these settings, and the agent's home the certificate authority of that guard. An empty digest: the guard is known to have none. */
  | { type: "GuardConfigured"; timeMs: number; guardId: string; digest: string }
  | { type: "TurnStarting"; timeMs: number; turn: string; attempt: number }
  | { type: "TurnStopRequested"; timeMs: number; turn: string; attempt: number; reason: StopReason }
  | {
      type: "TurnFinished";
      timeMs: number;
      turn: string;
      attempt: number;
      outcome: TurnOutcome;
      exitCode?: number;
      startMs?: number;
      endMs: number;
    }
  | { type: "Frozen"; timeMs: number }
  /** The bottle's time is over: its disk goes, only the resource stays, because a source still declares it. */
  | { type: "Expired"; timeMs: number };

export interface StoredEntry {
  /** Grows by insertion over all bottles. */
  seq: number;
  entry: JournalEntry;
}

/** The append-only journal of each bottle, by uid. Durable when `append` returns. */
export interface Journal {
  /** Entries in order of insertion, those after `afterSeq` only. Empty for an unknown uid. */
  read(uid: string, afterSeq?: number): Promise<StoredEntry[]>;
  /** All entries or none. */
  append(uid: string, entries: readonly JournalEntry[]): Promise<void>;
  /** Removes what is kept of a bottle, transcripts included. Absent is success. */
  forget(uid: string): Promise<void>;
}

/** Names one run of the agent's process. Attempts of a turn count from 1. */
export interface TurnKey {
  turn: string;
  attempt: number;
}

/** Bytes of one transcript that are kept; of a longer one the end is kept. */
export const TRANSCRIPT_BYTES_MAX = 16 * 1024 * 1024;

export interface Transcript extends TurnKey {
  /** Output and error output of the agent as one stream. */
  bytes: Uint8Array;
  /** True if the beginning was dropped. */
  truncated: boolean;
}

/** What the agent wrote, kept when its process is gone. */
export interface Transcripts {
  /** Replaces what is there: saving twice is the same as once. */
  save(uid: string, transcript: Transcript): Promise<void>;
  load(uid: string, key: TurnKey): Promise<Transcript | undefined>;
  /** In order of saving. */
  keys(uid: string): Promise<TurnKey[]>;
}
