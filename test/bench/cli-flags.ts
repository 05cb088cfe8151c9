import { writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { ContainerCreateOptions, HostConfig } from "dockerode";

type Mount = NonNullable<HostConfig["Mounts"]>[number];

/** The arguments of `docker create` or `docker run` that make the same container as this request to the engine. Throws on a field it does not know: a peer that leaves something out would be no peer. */
export function cliFlags(spec: ContainerCreateOptions): string[] {
  const { name, Image, User, WorkingDir, Entrypoint, Cmd, Env, Labels, StopSignal, Healthcheck, HostConfig, ...more } =
    spec;
  // `--interactive` is an input that stays open; the command line knows no other.
  const { OpenStdin, StdinOnce: _once, AttachStdin: _attached, ...rest } = more;
  refuseUnknown(rest);
  const [program, ...args] = typeof Entrypoint === "string" ? [Entrypoint] : (Entrypoint ?? []);
  return [
    ...flag("--name", name),
    ...(OpenStdin === true ? ["--interactive"] : []),
    ...flag("--user", User),
    ...flag("--workdir", WorkingDir),
    ...flag("--entrypoint", program),
    ...flag("--stop-signal", StopSignal),
    ...(Healthcheck?.Test?.[0] === "NONE" ? ["--no-healthcheck"] : []),
    ...(Env ?? []).flatMap((entry) => ["--env", entry]),
    ...Object.entries(Labels ?? {}).flatMap(([key, value]) => ["--label", `${key}=${value}`]),
    ...hostFlags(HostConfig ?? {}),
    Image ?? "",
    ...args,
    ...(Cmd ?? []),
  ];
}

function hostFlags(host: HostConfig): string[] {
  const { CapDrop, SecurityOpt, ReadonlyRootfs, RestartPolicy, Ulimits, NetworkMode, Tmpfs, Mounts, ...more } = host;
  const { Privileged: _never, Memory, MemorySwap, PidsLimit, NanoCpus, Init, Runtime, LogConfig, ...rest } = more;
  refuseUnknown(rest);
  return [
    ...(CapDrop ?? []).flatMap((capability: string) => ["--cap-drop", capability]),
    ...(SecurityOpt ?? []).flatMap((option: string) => ["--security-opt", securityOption(option)]),
    ...(ReadonlyRootfs === true ? ["--read-only"] : []),
    ...flag("--restart", RestartPolicy?.Name),
    ...(Ulimits ?? []).flatMap((limit) => ["--ulimit", `${limit.Name}=${limit.Soft}:${limit.Hard}`]),
    ...flag("--network", NetworkMode),
    ...Object.entries<string>(Tmpfs ?? {}).flatMap(([path, options]) => ["--tmpfs", `${path}:${options}`]),
    ...(Mounts ?? []).flatMap((mount) => ["--mount", mountText(mount)]),
    ...flag("--memory", Memory),
    ...flag("--memory-swap", MemorySwap),
    ...flag("--pids-limit", PidsLimit ?? undefined),
    ...flag("--cpus", NanoCpus === undefined ? undefined : NanoCpus / 1e9),
    ...(Init === true ? ["--init"] : []),
    ...flag("--runtime", Runtime),
    ...flag("--log-driver", LogConfig?.Type),
    ...Object.entries<string>(LogConfig?.Config ?? {}).flatMap(([key, value]) => ["--log-opt", `${key}=${value}`]),
  ];
}

/** The command line reads a profile of system calls from a file. */
function securityOption(option: string): string {
  const [name, profile] = option.split(/=(.*)/s);
  if (name !== "seccomp" || profile?.startsWith("{") !== true) return option;
  const file = join(tmpdir(), `bot-bottle-bench-seccomp-${process.pid}.json`);
  writeFileSync(file, profile);
  return `seccomp=${file}`;
}

function mountText({ Type, Source, Target, VolumeOptions }: Mount): string {
  const parts = [`type=${Type}`, `src=${Source}`, `dst=${Target}`];
  if (VolumeOptions?.NoCopy === true) parts.push("volume-nocopy");
  for (const [key, value] of Object.entries(VolumeOptions?.Labels ?? {})) parts.push(`volume-label=${key}=${value}`);
  return parts.join(",");
}

function flag(name: string, value: string | number | undefined): string[] {
  return value === undefined || value === "" ? [] : [name, String(value)];
}

function refuseUnknown(rest: object): void {
  const unknown = Object.keys(rest);
  if (unknown.length > 0) throw new Error(`no docker flag is known here for ${unknown.join(", ")}: add it to cliFlags`);
}

/** Words as one line of a shell script. */
export function shellLine(...words: string[]): string {
  return words.map((word) => (/^[\w./:=,@%+-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`)).join(" ");
}
