import { readdirSync, readFileSync } from "node:fs";

const TICKS_PER_SECOND = 100;
const MIB = 1024 * 1024;

/** CPU seconds of a process and its descendants so far; those that ended and were waited for count too. */
export function cpuSeconds(pid: number): number {
  const ticks = treeOf(pid).reduce((sum, one) => sum + one.ticks, 0);
  return ticks / TICKS_PER_SECOND;
}

/** Resident memory of a process and its descendants in MiB, or the most they had. */
export function memoryMiB(pid: number, field: "VmRSS" | "VmHWM" = "VmRSS"): number {
  return treeOf(pid).reduce((sum, one) => sum + statusBytes(one.pid, field), 0) / MIB;
}

interface ProcessStat {
  pid: number;
  parent: number;
  ticks: number;
}

function treeOf(root: number): ProcessStat[] {
  const all = readdirSync("/proc").flatMap((name) => (/^\d+$/.test(name) ? statOf(Number(name)) : []));
  const tree = all.filter((one) => one.pid === root);
  for (let n = 0; n < tree.length; n += 1) tree.push(...all.filter((one) => one.parent === tree[n]?.pid));
  return tree;
}

/** A process that ended meanwhile is none. */
function statOf(pid: number): ProcessStat[] {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, "latin1");
    // The name in parentheses may hold spaces.
    const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
    const ticks = fields.slice(11, 15).reduce((sum, value) => sum + Number(value), 0);
    return [{ pid, parent: Number(fields[1]), ticks }];
  } catch {
    return [];
  }
}

function statusBytes(pid: number, field: string): number {
  try {
    const found = new RegExp(`^${field}:\\s+(\\d+) kB$`, "m").exec(readFileSync(`/proc/${pid}/status`, "utf8"));
    return Number(found?.[1] ?? 0) * 1024;
  } catch {
    return 0;
  }
}
