import { randomBytes } from "node:crypto";
import { closeSync, constants, fstatSync, openSync, readdirSync, readSync, rmSync, writeSync } from "node:fs";
import { join } from "node:path";

/** What the journal asks of a directory of its own, which somebody else makes. Every call may throw an error of the file system. */
export interface AuditFiles {
  list(): string[];
  /** Made if it is not there. */
  open(name: string): number;
  size(file: number): number;
  /** May write less than all. */
  write(file: number, bytes: Uint8Array, position: number): number;
  read(file: number, into: Uint8Array, position: number): number;
  close(file: number): void;
  remove(name: string): void;
}

/** A file of whole lines. `base` is the place of its first byte in all that was ever written. */
export interface Segment {
  readonly name: string;
  readonly base: number;
  readonly file: number;
  /** Bytes that are lines; what a failed write left behind them is written over. */
  size: number;
}

const NAME = /^audit-([0-9a-f]{16})-([0-9]{16})\.jsonl$/;
const TAIL_BYTES = 64 * 1024;
const NEWLINE = 10;

export function directoryFiles(dir: string): AuditFiles {
  return {
    list: () => readdirSync(dir),
    open: (name) => openSync(join(dir, name), constants.O_RDWR | constants.O_CREAT | constants.O_NOFOLLOW, 0o600),
    size: (file) => fstatSync(file).size,
    write: (file, bytes, position) => writeSync(file, bytes, 0, bytes.length, position),
    read: (file, into, position) => readSync(file, into, 0, into.length, position),
    close: (file) => closeSync(file),
    remove: (name) => rmSync(join(dir, name), { force: true }),
  };
}

/** What an earlier process left in the directory, oldest first, and the name of the line of places they are in. */
export function openLeft(files: AuditFiles): { generation: string; segments: Segment[] } {
  const found = files
    .list()
    .map((name) => ({ name, match: NAME.exec(name) }))
    .map(({ name, match }) => ({ name, generation: match?.[1] ?? "", base: Number(match?.[2] ?? -1) }))
    .filter(({ base }) => base >= 0)
    .sort((a, b) => a.base - b.base);
  const generation = found.at(-1)?.generation ?? randomBytes(8).toString("hex");
  const segments: Segment[] = [];
  try {
    for (const { name, base } of found.filter((one) => one.generation === generation)) {
      const segment = { name, base, file: files.open(name), size: 0 };
      segments.push(segment);
      segment.size = wholeLines(files, segment.file);
    }
  } catch (error) {
    // Whoever tries again opens them again.
    for (const { file } of segments) files.close(file);
    throw error;
  }
  return { generation, segments };
}

export function openSegment(files: AuditFiles, generation: string, base: number): Segment {
  const name = `audit-${generation}-${String(base).padStart(16, "0")}.jsonl`;
  return { name, base, file: files.open(name), size: 0 };
}

/** All of `bytes` behind the lines that are there, or an error and the lines that were there. */
export function appendTo(files: AuditFiles, segment: Segment, bytes: Uint8Array): void {
  let written = 0;
  while (written < bytes.length) {
    const count = files.write(segment.file, bytes.subarray(written), segment.size + written);
    if (count <= 0) throw new Error("nothing was written");
    written += count;
  }
  segment.size += bytes.length;
}

/** Up to `into.length` bytes of lines from `position` on. */
export function readFrom(files: AuditFiles, segment: Segment, position: number, bytesMax: number): Uint8Array {
  const bytes = new Uint8Array(Math.min(bytesMax, segment.size - position));
  let got = 0;
  while (got < bytes.length) {
    const count = files.read(segment.file, bytes.subarray(got), position + got);
    if (count <= 0) throw new Error(`the audit file "${segment.name}" is shorter than what was written to it`);
    got += count;
  }
  return bytes;
}

/** A process that died while it wrote leaves part of a line. */
function wholeLines(files: AuditFiles, file: number): number {
  const size = files.size(file);
  const from = Math.max(0, size - TAIL_BYTES);
  const tail = new Uint8Array(size - from);
  const count = files.read(file, tail, from);
  return from + tail.subarray(0, count).lastIndexOf(NEWLINE) + 1;
}
