import type { ContainerCreateOptions, HostConfig } from "dockerode";
import { HOME, WORKSPACE, type AgentRun, type Blueprint, type BottleIdentity } from "../../controller/ports/backend.ts";
import { NODE_ENV, NODE_FLAGS } from "../guard/doors.ts";
import { GUARD_MAIN, GUARD_NODE, GUARD_USER, SOCKETS } from "./guard-image.ts";
import {
  agentName,
  bottleLabels,
  specLabels,
  turnLabels,
  unitName,
  volumeName,
  type Labels,
  type Part,
} from "./names.ts";

/** The agent's user. Numbers, because an image need not name it. */
export const AGENT_UID = 1000;
export const AGENT_GID = 1000;

const MIB = 1024 * 1024;
const PIDS_DEFAULT = 512;
/** A container cannot have more than its engine; every engine seen allows this many. */
const OPEN_FILES_MAX = 16_384;
const HOLDER_BYTES_MAX = 128 * MIB;
const GUARD_BYTES_MAX = 256 * MIB;

/** What a container of a bottle is made from besides its blueprint. */
export interface Surroundings {
  owner: string;
  createdMs: number;
  /** Whether the engine has docker-init. */
  init: boolean;
}

/** For containers from the guard image. */
export interface GuardSurroundings extends Surroundings {
  /** By id: see `ensureGuardImage`. */
  guardImage: string;
  /** The guard's network: the only one a bottle has. */
  guardNetwork: string;
}

/** Owns the namespace that the agent will join: no interface but loopback, no route. */
export function holderSpec(blueprint: Blueprint, around: GuardSurroundings): ContainerCreateOptions {
  return guardProgram("holder", blueprint, around, { NetworkMode: "none", ...memory(HOLDER_BYTES_MAX), PidsLimit: 64 });
}

/** The only unit with a network; it shares a volume with the holder, never a namespace. */
export function guardSpec(blueprint: Blueprint, around: GuardSurroundings): ContainerCreateOptions {
  const network = around.guardNetwork;
  return guardProgram("guard", blueprint, around, { NetworkMode: network, ...memory(GUARD_BYTES_MAX), PidsLimit: 64 });
}

function guardProgram(
  role: "holder" | "guard",
  blueprint: Blueprint,
  around: GuardSurroundings,
  host: HostConfig,
): ContainerCreateOptions {
  const labels = bottleLabels(around.owner, blueprint, role, around.createdMs);
  return {
    name: unitName(blueprint.uid, role),
    Image: around.guardImage,
    User: GUARD_USER,
    Entrypoint: [GUARD_NODE, ...NODE_FLAGS, GUARD_MAIN, role, "--sockets", SOCKETS],
    Cmd: [],
    Env: toEnv(NODE_ENV),
    Labels: { ...labels, ...specLabels(blueprint) },
    Healthcheck: { Test: ["NONE"] },
    HostConfig: {
      ...hardened(),
      ...host,
      Mounts: [mount(blueprint, "sockets", around, { copy: true })],
      LogConfig: { Type: "json-file", Config: { "max-size": "1m", "max-file": "1" } },
    },
  };
}

/** One run of the agent's process, in the holder's namespace. */
export function agentSpec(blueprint: Blueprint, run: AgentRun, around: Surroundings): ContainerCreateOptions {
  const labels = bottleLabels(around.owner, blueprint, "agent", around.createdMs);
  return {
    ...inBottle(blueprint, run.env, around),
    name: agentName(blueprint.uid, run),
    Entrypoint: [...run.argv],
    Labels: { ...labels, ...specLabels(blueprint), ...turnLabels(run) },
  };
}

/** A command beside the agent, with what the agent has. Removed by the engine when it ends. */
export function sessionSpec(
  blueprint: Blueprint,
  session: { name: string; argv: readonly string[]; tty: boolean },
  around: Surroundings,
): ContainerCreateOptions {
  const base = inBottle(blueprint, {}, around);
  return {
    ...base,
    name: session.name,
    Entrypoint: [...session.argv],
    Labels: { ...bottleLabels(around.owner, blueprint, "session", around.createdMs), ...specLabels(blueprint) },
    Tty: session.tty,
    OpenStdin: true,
    StdinOnce: true,
    AttachStdin: true,
    AttachStdout: true,
    AttachStderr: true,
    HostConfig: { ...base.HostConfig, AutoRemove: true },
  };
}

function inBottle(blueprint: Blueprint, env: Readonly<Record<string, string>>, around: Surroundings) {
  const { limits } = blueprint;
  return {
    Image: blueprint.image ?? "",
    User: `${AGENT_UID}:${AGENT_GID}`,
    WorkingDir: WORKSPACE,
    // An emptied Cmd keeps the image's own from being appended to our argv.
    Cmd: [],
    Env: toEnv({ HOME, ...blueprint.env, ...env }),
    StopSignal: "SIGTERM",
    Healthcheck: { Test: ["NONE"] },
    HostConfig: {
      ...hardened(),
      NetworkMode: `container:${unitName(blueprint.uid, "holder")}`,
      Tmpfs: {
        "/tmp": "rw,exec,nosuid,nodev,size=1g,mode=1777",
        "/run": `rw,noexec,nosuid,nodev,size=64m,mode=0755,uid=${AGENT_UID},gid=${AGENT_GID}`,
      },
      // Without `copy` an image whose /home/agent belongs to root cannot take an empty home away from the agent again.
      Mounts: diskMounts(blueprint, around, { copy: false }),
      PidsLimit: limits.pids ?? PIDS_DEFAULT,
      ...(limits.memoryBytes === undefined ? {} : memory(limits.memoryBytes)),
      ...(limits.cpuMillis === undefined ? {} : { NanoCpus: limits.cpuMillis * 1_000_000 }),
      ...(blueprint.runtime === undefined ? {} : { Runtime: blueprint.runtime }),
      ...(around.init ? { Init: true } : {}),
      LogConfig: { Type: "json-file", Config: { "max-size": "8m", "max-file": "3" } },
    } satisfies HostConfig,
  };
}

/**
 * A container from the guard image that mounts home and workspace and is never started. Its creation makes the engine copy the owner of
 * those directories in the image onto volumes that are still empty; it is also a way to read and write the disk of a frozen bottle.
 */
export function helperSpec(identity: BottleIdentity, name: string, around: GuardSurroundings): ContainerCreateOptions {
  return {
    name,
    Image: around.guardImage,
    User: GUARD_USER,
    Entrypoint: [GUARD_NODE, "--version"],
    Cmd: [],
    Labels: bottleLabels(around.owner, identity, "session", around.createdMs),
    HostConfig: { ...hardened(), NetworkMode: "none", Mounts: diskMounts(identity, around, { copy: true }) },
  };
}

function hardened(): HostConfig {
  return {
    CapDrop: ["ALL"],
    SecurityOpt: ["no-new-privileges"],
    ReadonlyRootfs: true,
    Privileged: false,
    RestartPolicy: { Name: "no" },
    Ulimits: [
      { Name: "nofile", Soft: OPEN_FILES_MAX, Hard: OPEN_FILES_MAX },
      { Name: "core", Soft: 0, Hard: 0 },
    ],
  };
}

/** Equal limits for memory with and without swap: swap would only slow the end that the limit means. */
function memory(bytes: number): HostConfig {
  return { Memory: bytes, MemorySwap: bytes };
}

function diskMounts(identity: BottleIdentity, around: Surroundings, options: { copy: boolean }) {
  return [mount(identity, "home", around, options), mount(identity, "workspace", around, options)];
}

const TARGETS: Record<Part, string> = { home: HOME, workspace: WORKSPACE, sockets: SOCKETS };

function mount(identity: BottleIdentity, part: Part, around: Surroundings, { copy }: { copy: boolean }) {
  // The engine makes a volume that is missing; with these labels it is still ours to find and remove.
  const Labels: Labels = bottleLabels(around.owner, identity, part, around.createdMs);
  return {
    Type: "volume" as const,
    Source: volumeName(identity.uid, part),
    Target: TARGETS[part],
    ReadOnly: false,
    VolumeOptions: { NoCopy: !copy, Labels, DriverConfig: { Name: "local", Options: {} } },
  };
}

function toEnv(env: Readonly<Record<string, string>>): string[] {
  return Object.entries(env).map(([name, value]) => `${name}=${value}`);
}
