import { readdirSync, readFileSync, readlinkSync } from "node:fs";
import { isCode } from "./errors.ts";

/**
 * A process that cannot be mistaken for a later one with the same number: the kernel counts the start time in ticks since the boot,
 * so the boot is part of it.
 */
export interface ProcessMark {
  pid: number;
  startTicks: string;
  bootId: string;
}

export function currentBootId(): string {
  return readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim();
}

/** Fields of /proc/<pid>/stat from the state on: the name before may itself contain spaces and parentheses. */
function statFields(pid: number): string[] | undefined {
  const text = readProc(`/proc/${pid}/stat`);
  return text?.slice(text.lastIndexOf(") ") + 2).split(" ");
}

/** A zombie has ended: nothing of it runs. */
export function isAlive(mark: ProcessMark): boolean {
  const fields = statFields(mark.pid);
  if (fields === undefined || fields[0] === "Z" || fields[0] === "X") return false;
  return fields[STAT_START] === mark.startTicks && currentBootId() === mark.bootId;
}

/** Field 22 of proc(5), counted from the state, which is field 3. */
const STAT_START = 19;

/** The first process of a sandbox, named by the PID namespace that lives as long as it does. */
export interface SandboxInit {
  pid: number;
  /** As `readlink /proc/<pid>/ns/pid` shows it: `pid:[4026532183]`. */
  pidNamespace: string;
  netNamespace: string;
}

/** True while the sandbox has processes. Their first one is the last to go: the kernel ends and reaps all others before it. */
export function isSandboxAlive(init: SandboxInit): boolean {
  if (readLink(`/proc/${init.pid}/ns/pid`) !== init.pidNamespace) return false;
  const state = statFields(init.pid)?.[0];
  return state !== undefined && state !== "Z" && state !== "X";
}

/** Sends a signal to the first process of a sandbox. False if it was gone. SIGKILL ends every process in the sandbox. */
export function killSandbox(init: SandboxInit): boolean {
  return isSandboxAlive(init) && signal(init.pid, "SIGKILL");
}

/** The sandbox's own program: the first child of its first process. `undefined` before it was started and after it ended. */
export function programOf(init: SandboxInit): number | undefined {
  if (!isSandboxAlive(init)) return undefined;
  // Orphans in the sandbox become children of the first process too; the program is the one with the lowest number inside.
  const inside = childrenOf(init.pid)
    .map((pid) => ({ pid, number: innerNumber(pid) }))
    .filter((child) => child.number !== undefined)
    .sort((a, b) => Number(a.number) - Number(b.number));
  return inside[0]?.number === PROGRAM_NUMBER ? inside[0].pid : undefined;
}

/** The sandbox's first process is 1 and starts the program before anything else can run there. */
const PROGRAM_NUMBER = 2;

function innerNumber(pid: number): number | undefined {
  const line = readProc(`/proc/${pid}/status`)?.match(/^NSpid:\s+(.*)$/m)?.[1];
  const last = line?.split(/\s+/).at(-1);
  return last === undefined ? undefined : Number(last);
}

function childrenOf(pid: number): number[] {
  const listed = readProc(`/proc/${pid}/task/${pid}/children`);
  if (listed !== undefined) return listed.split(" ").filter(Boolean).map(Number);
  // A kernel without that file: look at every process.
  return readdirSync("/proc")
    .map(Number)
    .filter((other) => Number.isInteger(other) && statFields(other)?.[1] === String(pid));
}

/** False if there was no such process. */
export function signal(pid: number, name: NodeJS.Signals): boolean {
  try {
    return process.kill(pid, name);
  } catch (error) {
    if (isCode(error, "ESRCH")) return false;
    throw error;
  }
}

function readProc(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8");
  } catch (error) {
    // A process that ends while its files are read gives ESRCH.
    if (isCode(error, "ENOENT", "ESRCH", "EACCES")) return undefined;
    throw error;
  }
}

function readLink(path: string): string | undefined {
  try {
    return readlinkSync(path);
  } catch (error) {
    if (isCode(error, "ENOENT", "ESRCH", "EACCES")) return undefined;
    throw error;
  }
}
