import { readFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { ensureBusyboxImage } from "../helpers/busybox-image.ts";
import { makeBottles, type ManyBottles } from "./many-bottles.ts";
import { limited, type Measurement } from "./measurement.ts";

const BOTTLES = 6;
const MIB = 1024 * 1024;
/** Long enough for start-up garbage to be collected or not, as it comes. */
const IDLE_MS = 3_000;

/** Memory of idle bottles' guards and holders. What the processes share is counted once, in parts (PSS). Needs root, to read it. */
export async function benchGuard(): Promise<Measurement[]> {
  const image = ensureBusyboxImage();
  const bottles = await makeBottles({ count: BOTTLES, running: BOTTLES, image, stateDir: tmpdir() });
  try {
    await new Promise((done) => setTimeout(done, IDLE_MS));
    const pids = await pidsOf(bottles);
    const shims = pids.map(({ guard, holder }) => [parentOf(guard), parentOf(holder)]);
    const guardRss = pids.map(({ guard }) => memoryOf(guard, "Rss"));
    const rss = pids.map(({ guard, holder }) => memoryOf(guard, "Rss") + memoryOf(holder, "Rss"));
    const pss = pids.map(({ guard, holder }) => memoryOf(guard, "Pss") + memoryOf(holder, "Pss"));
    const withShims = pss.map((own, n) => own + sum((shims[n] ?? []).map((pid) => memoryOf(pid, "Pss"))));
    return [
      row("guard, idle, RSS, MiB", guardRss, 90),
      row(`holder and guard, one of ${BOTTLES} bottles, PSS, MiB`, pss, 110),
      row("the same with the engine's two shims, PSS, MiB", withShims, 110),
      row("holder and guard, RSS (what they share counted twice), MiB", rss, 110),
    ];
  } finally {
    await bottles.end();
  }
}

async function pidsOf({ backend, context, uids }: ManyBottles): Promise<{ guard: number; holder: number }[]> {
  const seen = await backend.observe();
  const pidOf = async (uid: string, role: "guard" | "holder"): Promise<number> => {
    const unit = seen.bottles.get(uid)?.units.find((one) => one.role === role);
    const found = await context.engine.docker.getContainer(unit?.id ?? "").inspect();
    return found.State.Pid;
  };
  return Promise.all(
    uids.map(async (uid) => ({ guard: await pidOf(uid, "guard"), holder: await pidOf(uid, "holder") })),
  );
}

function row(name: string, ours: readonly number[], atMost: number): Measurement {
  return limited(name, { ours }, { atMost, unit: "MiB" });
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}

function memoryOf(pid: number, field: "Rss" | "Pss"): number {
  const line = new RegExp(`^${field}: +(\\d+) kB$`, "m").exec(readFileSync(`/proc/${pid}/smaps_rollup`, "utf8"));
  return (Number(line?.[1]) * 1024) / MIB;
}

function parentOf(pid: number): number {
  return Number(/^PPid:\s+(\d+)$/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1]);
}
