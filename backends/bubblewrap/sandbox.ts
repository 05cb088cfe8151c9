import { lstatSync, readlinkSync } from "node:fs";
import { join } from "node:path";
import { HOME, WORKSPACE } from "../../controller/ports/backend.ts";
import { guardArguments, holderArguments } from "../guard-launch.ts";
import { nodeEnv, nodeFlags } from "../guard/doors.ts";
import { AUDIT, PROGRAM, type Bottle } from "./bottles.ts";
import type { Context } from "./context.ts";
import type { SandboxInit } from "./processes.ts";
import { CHECK_NAMESPACE, RUN_PROGRAM, STAGE } from "./scripts.ts";

const PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const TMP_BYTES_MAX = 1024 * 1024 * 1024;
/** Where holder and guard find their program and Node. */
const OURS = "/bot-bottle";
const SOCKETS = `${OURS}/sockets`;
/** In the bottle's directory: a copy of what `guardUpstreamCa` names, which the bottle's users could not read where it lies. */
export const UPSTREAM_CA = "upstream-ca.pem";

/** Environment of every process of ours on the host: nothing of the controller's, which may hold secrets. */
export const HOST_ENV: Readonly<Record<string, string>> = { PATH, LC_ALL: "C" };

/** Files of the host's /etc that programs need and that say nothing about the host. */
const ETC_SHARED = [
  "ld.so.cache",
  "ld.so.conf",
  "ld.so.conf.d",
  "alternatives",
  "ssl/certs",
  "ssl/openssl.cnf",
  "ca-certificates",
  "pki/tls/certs",
  "pki/ca-trust/extracted",
  "localtime",
  "mime.types",
  "protocols",
  "services",
];
const ETC_OWN = ["passwd", "group", "hosts", "hostname", "nsswitch.conf", "resolv.conf"];

/** Of a merged-/usr system these are links, of another one directories. */
const TOP_LEVEL = ["bin", "sbin", "lib", "lib32", "lib64", "libx32"];

function system(): string[] {
  const top = TOP_LEVEL.flatMap((name) => {
    const found = lstatSync(`/${name}`, { throwIfNoEntry: false });
    if (found === undefined) return [];
    if (found.isSymbolicLink()) return ["--symlink", readlinkSync(`/${name}`), `/${name}`];
    return ["--ro-bind", `/${name}`, `/${name}`];
  });
  return ["--ro-bind", "/usr", "/usr", ...top];
}

function etcShared(): string[] {
  return ETC_SHARED.flatMap((file) => ["--ro-bind-try", `/etc/${file}`, `/etc/${file}`]);
}

/** What all sandboxes have: no capability, no new privilege, no terminal of ours, and an end with whoever stands over them. */
const SEALED = flags(
  "--unshare-user --unshare-pid --unshare-ipc --unshare-uts --unshare-cgroup-try --uid 1000 --gid 1000 --cap-drop ALL " +
    "--new-session --die-with-parent --clearenv --json-status-fd 3 --seccomp 5",
);

function flags(text: string): string[] {
  return text.split(" ");
}

/** A script of ours as the next part of a command line; it ends in running the words that are left. */
function inShell(script: string, words: readonly string[]): string[] {
  return ["--", "/bin/sh", "-c", script, "sh", ...words];
}

function setenv(env: Readonly<Record<string, string>>): string[] {
  return Object.entries(env).flatMap(([name, value]) => ["--setenv", name, value]);
}

/** Where bubblewrap finds a path of the bottle's directory; for root that directory is shown to it at /tmp. */
function inside(context: Context, bottle: Bottle, path: string): string {
  return join(context.privileged ? "/tmp" : bottle.dir, path);
}

/** What runs in a bottle with the agent's rights. */
export interface AgentProgram {
  argv: readonly string[];
  env: Readonly<Record<string, string>>;
  hostname: string;
  pidsMax: number;
}

/** The agent's sandbox, in the holder's network namespace. */
export function agentCommand(context: Context, bottle: Bottle, program: AgentProgram, holder: SandboxInit): string[] {
  const env = { HOME, PATH, USER: "agent", LOGNAME: "agent", SHELL: "/bin/sh", ...program.env };
  return chain(context, bottle, { user: "agent", join: holder }, [
    ...system(),
    ...etcShared(),
    ...ETC_OWN.flatMap((file) => ["--ro-bind", inside(context, bottle, `etc/${file}`), `/etc/${file}`]),
    ...flags(`--proc /proc --dev /dev --perms 1777 --size ${TMP_BYTES_MAX} --tmpfs /tmp`),
    ...disk(context, bottle),
    ...flags(`--remount-ro / --chdir ${WORKSPACE} --hostname`),
    program.hostname,
    ...SEALED,
    "--disable-userns",
    ...setenv(env),
    ...inShell(RUN_PROGRAM, [String(program.pidsMax), ...program.argv]),
  ]);
}

/** A sandbox that sees the disk and the host's programs, without a network: whatever a link in the disk points to, it is not there. */
export function diskCommand(context: Context, bottle: Bottle, argv: readonly string[]): string[] {
  return chain(context, bottle, { user: "agent" }, [
    ...system(),
    ...flags("--proc /proc --dev /dev"),
    ...disk(context, bottle),
    ...flags("--remount-ro / --unshare-net"),
    ...SEALED,
    "--disable-userns",
    ...setenv({ PATH, LC_ALL: "C" }),
    "--",
    ...argv,
  ]);
}

function disk(context: Context, bottle: Bottle): string[] {
  const bind = (part: string, place: string) => ["--bind", inside(context, bottle, `disk/${part}`), place];
  return [...bind("home", HOME), ...bind("workspace", WORKSPACE)];
}

/**
 * The sandbox of holder or guard: Node, the guard program and the sockets. The holder's has a network namespace of its own, which the agent
 * joins; it has no /dev of its own, because bubblewrap would make that in a second user namespace, through which nobody can join.
 */
export function guardCommand(context: Context, bottle: Bottle, role: "holder" | "guard"): string[] {
  const node = context.privileged ? "/tmp/node" : process.execPath;
  const network = role === "holder" ? ["--unshare-net"] : hostNames();
  return chain(context, bottle, { user: "guard" }, [
    ...system(),
    ...etcShared(),
    ...flags("--proc /proc"),
    ...devices(),
    "--ro-bind",
    node,
    `${OURS}/node`,
    "--ro-bind",
    inside(context, bottle, PROGRAM),
    `${OURS}/program`,
    "--bind",
    inside(context, bottle, "sockets"),
    SOCKETS,
    ...(role === "guard" ? trusted(context, bottle) : []),
    ...network,
    ...flags(`--remount-ro / --chdir / --hostname ${role}`),
    ...SEALED,
    ...setenv({ PATH, ...nodeEnv(role) }),
    "--",
    `${OURS}/node`,
    ...nodeFlags(role),
    `${OURS}/program/main.js`,
    ...(role === "guard" ? guardWords(context) : holderArguments(SOCKETS)),
  ]);
}

function guardWords({ guard }: Context): string[] {
  const upstreamCa = guard.guardUpstreamCa === undefined ? undefined : `${OURS}/${UPSTREAM_CA}`;
  return guardArguments(
    { sockets: SOCKETS, audit: join(SOCKETS, AUDIT), control: "socket", upstreamCa },
    guard.guardDns ?? [],
  );
}

function trusted(context: Context, bottle: Bottle): string[] {
  if (context.guard.guardUpstreamCa === undefined) return [];
  return ["--ro-bind", inside(context, bottle, UPSTREAM_CA), `${OURS}/${UPSTREAM_CA}`];
}

function devices(): string[] {
  return ["null", "urandom", "random", "zero"].flatMap((name) => ["--dev-bind", `/dev/${name}`, `/dev/${name}`]);
}

/** The guard is the one unit that will resolve names. */
function hostNames(): string[] {
  return ["hosts", "resolv.conf", "nsswitch.conf"].flatMap((file) => ["--ro-bind-try", `/etc/${file}`, `/etc/${file}`]);
}

/** The smallest sandbox with everything that real ones use: if this runs, bottles can be made. */
export function checkCommand(context: Context, bottle: Bottle): string[] {
  return chain(context, bottle, { user: "agent" }, [
    ...system(),
    ...flags("--proc /proc --dev /dev --perms 1777 --size 65536 --tmpfs /tmp"),
    ...flags("--remount-ro / --unshare-net --hostname check"),
    ...SEALED,
    "--disable-userns",
    ...setenv({ PATH }),
    ...inShell(RUN_PROGRAM, ["64", "true"]),
  ]);
}

/** The whole command line: into the holder's namespace, for root to the bottle's own user, and into the sandbox. Each word runs the next. */
function chain(
  context: Context,
  bottle: Bottle,
  who: { user: "agent" | "guard"; join?: SandboxInit },
  bwrap: readonly string[],
): string[] {
  const { users } = bottle.meta;
  const staged =
    users === undefined
      ? []
      : [
          ...flags("unshare --mount --propagation private"),
          ...inShell(STAGE, [bottle.dir, process.execPath]),
          ...asUser(users[who.user]),
        ];
  return [...joining(context, who.join), ...staged, "bwrap", ...bwrap];
}

/** An ordinary user may join the network namespace only through the user namespace that owns it, where it counts as root. */
function joining(context: Context, holder: SandboxInit | undefined): string[] {
  if (holder === undefined) return [];
  const through = context.privileged
    ? ["nsenter", `--net=/proc/${holder.pid}/ns/net`]
    : ["nsenter", `--target=${holder.pid}`, "--user", "--net", "--preserve-credentials"];
  return [...through, ...inShell(CHECK_NAMESPACE, [holder.netNamespace])];
}

/** Drops root for ever: bubblewrap needs none of it, and what runs in the sandbox must not be root outside. */
export function asUser(user: number): string[] {
  const ids = [`--reuid=${user}`, `--regid=${user}`, "--clear-groups"];
  return ["setpriv", ...ids, "--inh-caps=-all", "--bounding-set=-all", "--no-new-privs", "--"];
}
