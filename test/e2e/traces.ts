import { execFile } from "node:child_process";
import { existsSync, readdirSync, readFileSync, readlinkSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";

const execute = promisify(execFile);

/** An engine that hangs must fail the test that asks it, not hold it. */
const DOCKER_MS_MAX = 60_000;

/** What belongs to one installation. */
export interface Place {
  owner: string;
  stateDir: string;
  /** As DOCKER_HOST; absent: the usual engine. */
  dockerHost?: string;
}

export async function docker(args: readonly string[], dockerHost?: string): Promise<string> {
  const env = dockerHost === undefined ? process.env : { ...process.env, DOCKER_HOST: dockerHost };
  const { stdout } = await execute("docker", args, { env, maxBuffer: 64 * 1024 * 1024, timeout: DOCKER_MS_MAX });
  return stdout;
}

const LISTS = {
  container: ["container", "ls", "--all", "--format", "{{.Names}}"],
  volume: ["volume", "ls", "--format", "{{.Name}}"],
  network: ["network", "ls", "--format", "{{.Name}}"],
  image: ["image", "ls", "--format", "{{.ID}}"],
} as const;

/** Everything with the installation's label on the engine, as `container bb-…`. */
export async function dockerTraces({ owner, dockerHost }: Place): Promise<string[]> {
  const filter = ["--filter", `label=bot-bottle.dev/owner=${owner}`];
  const found = await Promise.all(
    Object.entries(LISTS).map(async ([kind, args]) => {
      const names = (await docker([...args, ...filter], dockerHost)).split("\n").filter((name) => name !== "");
      return names.map((name) => `${kind} ${name}`);
    }),
  );
  return found.flat().sort();
}

/** What bubblewrap keeps of bottles below a state directory. Files that begin with a dot belong to the installation, not to a bottle. */
export function bubblewrapTraces({ stateDir }: Place): string[] {
  const dir = join(stateDir, "bubblewrap");
  if (!existsSync(dir)) return [];
  const bottles = readdirSync(dir).filter((name) => !name.startsWith("."));
  const hints = existsSync(join(dir, ".hints")) ? readdirSync(join(dir, ".hints")).map((name) => `.hints/${name}`) : [];
  return [...bottles, ...hints].sort();
}

/**
 * Ids of processes that name the directory in their command line, environment or working directory, or that have something below it
 * mounted: a process in a sandbox sees its files under other names, but the kernel says where they come from.
 */
export function processesOf(dir: string): number[] {
  const pids = readdirSync("/proc").filter((name) => /^[0-9]+$/.test(name) && name !== String(process.pid));
  return pids.filter((pid) => namesDirectory(pid, dir)).map(Number);
}

function namesDirectory(pid: string, dir: string): boolean {
  const texts = ["cmdline", "environ", "mountinfo"].map((file) => readOrEmpty(join("/proc", pid, file)));
  try {
    texts.push(readlinkSync(join("/proc", pid, "cwd")));
  } catch {
    // The process ended meanwhile.
  }
  return texts.some((text) => text.includes(dir));
}

function readOrEmpty(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}

/** Everything that is left of an installation's bottles. */
export async function traces(place: Place): Promise<string[]> {
  const processes = processesOf(place.stateDir).map((pid) => `process ${pid}: ${readOrEmpty(`/proc/${pid}/cmdline`)}`);
  return [...(await dockerTraces(place)), ...bubblewrapTraces(place), ...processes];
}

/** Removes by force what a test left, by the installation's own label and directory alone. */
export async function endTraces(place: Place): Promise<void> {
  for (const pid of processesOf(place.stateDir)) {
    try {
      process.kill(pid, "SIGKILL");
    } catch {
      // It ended by itself.
    }
  }
  const left = await dockerTraces(place).catch(() => []);
  const named = (kind: string) => left.filter((each) => each.startsWith(`${kind} `)).map((each) => each.split(" ")[1]);
  for (const [kind, ...force] of [
    ["container", "rm", "--force"],
    ["volume", "rm", "--force"],
  ] as const) {
    const names = named(kind).filter((name) => name !== undefined);
    if (names.length > 0) await docker([kind, ...force, ...names], place.dockerHost).catch(() => undefined);
  }
}
