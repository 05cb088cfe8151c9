import type { ContainerCreateOptions, HostConfig } from "dockerode";
import { HOME, WORKSPACE, type AgentRun, type Blueprint, type BottleIdentity } from "../../controller/ports/backend.ts";
import { guardArguments, holderArguments } from "../guard-launch.ts";
import { nodeEnv, nodeFlags } from "../guard/doors.ts";
import { AUDIT, GUARD_MAIN, GUARD_NODE, GUARD_USER, SOCKETS, UPSTREAM_CA } from "./guard-image.ts";
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
import { SECCOMP_OPTION } from "./seccomp-profile.ts";

/** The agent's user. Numbers, because an image need not name it. */
export const AGENT_UID = 1000;
export const AGENT_GID = 1000;

const MIB = 1024 * 1024;
const PIDS_DEFAULT = 512;
/** A container cannot have more than its engine; every engine seen allows this many. */
const OPEN_FILES_MAX = 16_384;
const HOLDER_BYTES_MAX = 128 * MIB;
/** Bodies are held until they are scanned, several at a time. */
const GUARD_BYTES_MAX = 512 * MIB;

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
  /** Name servers for the guard; empty: the engine's. */
  guardDns: readonly string[];
  /** Whether a file with further authorities is put into the guard before it starts. */
  upstreamCa: boolean;
}

/** Owns the namespace that the agent will join: no interface but loopback, no route. */
export function holderSpec(blueprint: Blueprint, around: GuardSurroundings): ContainerCreateOptions {
  const host = { NetworkMode: "none", ...memory(HOLDER_BYTES_MAX), PidsLimit: 64 };
  return guardProgram({ role: "holder", args: holderArguments(SOCKETS), host }, blueprint, around);
}

/** The only unit with a network; it shares a volume with the holder, never a namespace. */
export function guardSpec(blueprint: Blueprint, around: GuardSurroundings): ContainerCreateOptions {
  const upstreamCa = around.upstreamCa ? UPSTREAM_CA : undefined;
  const args = guardArguments({ sockets: SOCKETS, audit: AUDIT, control: "stdio", upstreamCa }, around.guardDns);
  const host = { NetworkMode: around.guardNetwork, ...memory(GUARD_BYTES_MAX), PidsLimit: 64 };
  // Input stays open from one controller to the next: it is how a guard is told its settings.
  const input = { OpenStdin: true, StdinOnce: false, AttachStdin: false };
  return { ...guardProgram({ role: "guard", args, host }, blueprint, around), ...input };
}

function guardProgram(
  { role, args, host }: { role: "holder" | "guard"; args: readonly string[]; host: HostConfig },
  blueprint: Blueprint,
  around: GuardSurroundings,
): ContainerCreateOptions {
  const labels = bottleLabels(around.owner, blueprint, role, around.createdMs);
  return {
    name: unitName(blueprint.uid, role),
    Image: around.guardImage,
    User: GUARD_USER,
    Entrypoint: [GUARD_NODE, ...nodeFlags(role), GUARD_MAIN, ...args],
    Cmd: [],
    Env: toEnv(nodeEnv(role)),
    Labels: { ...labels, ...specLabels(blueprint) },
    Healthcheck: { Test: ["NONE"] },
    HostConfig: {
      ...hardened(),
      ...host,
      // Empty and root's at first; the guard's container hands it over. Two at once would be in each other's way.
      Mounts: [mount(blueprint, "sockets", around, { copy: role === "guard" })],
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
    SecurityOpt: ["no-new-privileges", SECCOMP_OPTION],
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
