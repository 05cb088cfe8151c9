import { execFile, execFileSync } from "node:child_process";
import { randomUUID } from "node:crypto";
import { rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import type { ContainerCreateOptions } from "dockerode";
import { createContext, guardSurroundings } from "../../backends/docker/context.ts";
import { createEngine } from "../../backends/docker/engine.ts";
import { bottleLabels, seedName, unitName, volumeName, type Part } from "../../backends/docker/names.ts";
import { agentSpec, guardSpec, helperSpec, holderSpec, type GuardSurroundings } from "../../backends/docker/specs.ts";
import type { AgentRun, Blueprint } from "../../controller/ports/backend.ts";
import { cliFlags, shellLine } from "./cli-flags.ts";

const SCRIPT_MS_MAX = 60_000;
const PARTS: readonly Part[] = ["home", "workspace", "sockets"];

/** The peer: what a careful person's shell script does with the docker command line, with the very options of the Docker backend. */
export interface CliBottle {
  /** Volumes with their owners, holder and guard side by side, waits for the guard, then the agent. */
  launchScript(run: AgentRun): string;
  /** The same on volumes that are there. */
  wakeScript(run: AgentRun, options: { waitsForGuard: boolean }): string;
  /** Waits for the agent's end, then stops and removes all three. Prints when the agent ended and, in nanoseconds, around the stopping. */
  endScript(run: AgentRun): string;
  /** Stops and removes all three; first the agent alone, as nothing may run without a guard, or all at once. */
  stopScript(run: AgentRun, options: { agentFirst: boolean }): string;
  agentName(run: AgentRun): string;
  /** Removes whatever is left. */
  remove(): void;
}

/** What containers of both sides are made from. */
export async function cliSurroundings(owner: string): Promise<GuardSurroundings> {
  const log = { debug() {}, info() {}, warn() {}, error() {} };
  const engine = createEngine({});
  return guardSurroundings(createContext({ owner, now: Date.now, log, engine }));
}

export function cliBottle(around: GuardSurroundings, image: string): CliBottle {
  const uid = `bench-${randomUUID()}`;
  const identity = { uid, namespace: "default", name: "peer" };
  const blueprint: Blueprint = { ...identity, generation: 1, specHash: "0".repeat(32), image, env: {}, limits: {} };
  const holder = holderSpec(blueprint, around);
  const guard = guardSpec(blueprint, around);
  const fifo = join(tmpdir(), `bot-bottle-bench-${uid}`);
  const units = new Set([unitName(uid, "holder"), unitName(uid, "guard"), seedName(uid)]);

  const agent = (run: AgentRun): ContainerCreateOptions => {
    const spec = agentSpec(blueprint, run, around);
    units.add(spec.name ?? "");
    return spec;
  };
  // Reading on is quicker than asking again and again, and takes no processor from what is starting.
  const waitForGuard = [
    `mkfifo ${fifo}`,
    `docker logs -f ${unitName(uid, "holder")} >${fifo} & logs=$!`,
    `grep -q '"passed":true' <${fifo}`,
    "kill $logs",
    `rm ${fifo}`,
  ];
  // The command line works on all names of one command at the same time.
  const guarding = `${unitName(uid, "holder")} ${unitName(uid, "guard")}`;
  const sideBySide = [`${runLine(holder)} & holder=$!`, `${runLine(guard)} & guard=$!`];
  return {
    launchScript: (run) =>
      script(
        ...PARTS.map((part) => `${volumeLine(identity, part, around)} & ${part}=$!`),
        ...PARTS.map((part) => `wait $${part}`),
        ...sideBySide,
        `( ${seedLine(helperSpec(identity, seedName(uid), around))} ) & seed=$!`,
        "wait $holder; wait $guard; wait $seed",
        ...waitForGuard,
        runLine(agent(run)),
      ),
    wakeScript: (run, { waitsForGuard }) =>
      script(...sideBySide, "wait $holder; wait $guard", ...(waitsForGuard ? waitForGuard : []), runLine(agent(run))),
    endScript(run) {
      const name = agent(run).name ?? "";
      return script(
        `docker wait ${name} >/dev/null`,
        "waited=$(date +%s%N)",
        `docker inspect -f '{{.State.FinishedAt}}' ${name}`,
        "began=$(date +%s%N)",
        `docker stop -t 10 ${guarding} >/dev/null`,
        `docker rm ${name} ${guarding} >/dev/null`,
        "echo $waited $began $(date +%s%N)",
      );
    },
    stopScript(run, { agentFirst }) {
      const name = agent(run).name ?? "";
      const stops = agentFirst
        ? [`docker stop -t 10 ${name}`, `docker stop -t 10 ${guarding}`]
        : [`docker stop -t 10 ${name} ${guarding}`];
      return script(...stops, `docker rm ${name} ${guarding}`);
    },
    agentName: (run) => agent(run).name ?? "",
    remove() {
      quietly(["rm", "-f", "-v", ...units]);
      quietly(["volume", "rm", "-f", ...PARTS.map((part) => volumeName(uid, part))]);
      rmSync(fifo, { force: true });
    },
  };
}

function script(...lines: string[]): string {
  return ["set -e", ...lines].join("\n");
}

function runLine(spec: ContainerCreateOptions): string {
  return `${shellLine("docker", "run", "-d", ...cliFlags(spec))} >/dev/null`;
}

/** A container that is never started hands its volumes over to the agent's user. */
function seedLine(spec: ContainerCreateOptions): string {
  return `${shellLine("docker", "create", ...cliFlags(spec))} >/dev/null && docker rm ${spec.name} >/dev/null`;
}

function volumeLine(identity: { uid: string; namespace: string; name: string }, part: Part, around: GuardSurroundings) {
  const labels = Object.entries(bottleLabels(around.owner, identity, part, around.createdMs));
  const flags = labels.flatMap(([key, value]) => ["--label", `${key}=${value}`]);
  return `${shellLine("docker", "volume", "create", ...flags, volumeName(identity.uid, part))} >/dev/null`;
}

/** Returns what it printed. */
export async function runScript(text: string): Promise<string> {
  const { stdout } = await promisify(execFile)("sh", ["-c", text], { timeout: SCRIPT_MS_MAX });
  return stdout;
}

/** When an agent's process began, by the engine's clock. The engine notes the start once it is done, for both sides alike. */
export async function startedMs(container: string): Promise<number> {
  return Date.parse((await runScript(shellLine("docker", "inspect", "-f", "{{.State.StartedAt}}", container))).trim());
}

function quietly(args: string[]): void {
  try {
    execFileSync("docker", args, { stdio: "ignore", timeout: SCRIPT_MS_MAX });
  } catch {
    // What is not there need not be removed.
  }
}
