import { z } from "zod";
import { TURN_OUTCOMES } from "../api/bottle.ts";
import { dnsLabel } from "../api/schema.ts";

/** The first entry of an exported bottle: what it is. Its disk follows, below `home/` and `workspace/`. */
export const MANIFEST_ENTRY = "bottle.json";
export const TRANSCRIPTS_ENTRY = "transcripts/";
export const HOME_ENTRY = "home";
export const WORKSPACE_ENTRY = "workspace";

/** 256 turns of 32,000 characters, each at most six bytes when escaped, and room for the rest. */
export const MANIFEST_ENTRY_BYTES_MAX = 64 * 1024 * 1024;

const time = z.int().min(0);

const journalEntry = z.discriminatedUnion("type", [
  z.object({
    type: z.literal("LaunchIntended"),
    timeMs: time,
    backend: z.string().max(64),
    generation: z.int().min(0),
    templateDigest: z.string().max(128),
  }),
  z.object({
    type: z.literal("TurnFinished"),
    timeMs: time,
    turn: dnsLabel,
    attempt: z.int().min(1),
    outcome: z.enum(TURN_OUTCOMES),
    exitCode: z.int().optional(),
    startMs: time.optional(),
    endMs: time,
  }),
  z.object({ type: z.literal("Frozen"), timeMs: time }),
]);

const transcriptKey = z.object({ turn: dnsLabel, attempt: z.int().min(1), truncated: z.boolean() });

export const archiveManifest = z.object({
  format: z.literal(1),
  /** Of the bottle that was exported. */
  name: z.string().max(63),
  labels: z.record(z.string().max(317), z.string().max(63)).optional(),
  /** Admission looks at it when the bottle is created. */
  spec: z.record(z.string(), z.unknown()),
  journal: z.array(journalEntry).max(100_000),
  transcripts: z.array(transcriptKey).max(100_000),
});
export type ArchiveManifest = z.infer<typeof archiveManifest>;

export function transcriptEntry(key: { turn: string; attempt: number }): string {
  return `${TRANSCRIPTS_ENTRY}${key.turn}-${key.attempt}`;
}
