import { createHash } from "node:crypto";
import { lstatSync, readFileSync } from "node:fs";
import { chmod, chown, mkdir, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { BackendError, type BottleIdentity } from "../../controller/ports/backend.ts";
import { ensureStateDir, hintsDir, type Context } from "./context.ts";
import { isCode } from "./errors.ts";

/** Host users of a bottle: of the agent and its disk, and of holder and guard. */
export interface HostUsers {
  agent: number;
  guard: number;
}

/** What `meta.json` says of a bottle's directory. */
export interface Meta extends BottleIdentity {
  owner: string;
  createdMs: number;
  /** Absent where the controller is no root: everything then belongs to its own user. */
  users?: HostUsers;
}

/** A bottle's directory, and whose it is. */
export interface Bottle {
  dir: string;
  meta: Meta;
}

/** The guard program that this bottle's holder and guard were started with. */
export const PROGRAM = "program";
/** In the sockets directory: where the guard keeps what it has to report. */
export const AUDIT = "audit";

export type Part = "home" | "workspace" | "sockets";

const UID = /^[A-Za-z0-9][-A-Za-z0-9]{0,62}$/;

function bottleDir(context: Context, uid: string): string {
  // The uid becomes a path: one that could leave the state directory is a bug or an attack.
  if (!UID.test(uid))
    throw new BackendError("Invalid", "UidInvalid", `"${uid}" is not a uid: use letters, digits, "-"`);
  return join(context.stateDir, uid);
}

export function partDir(bottle: Bottle, part: Part): string {
  return part === "sockets" ? join(bottle.dir, "sockets") : join(bottle.dir, "disk", part);
}

/** `undefined` where there is none, or one of another installation: that one is not ours to see. */
export function findBottle(context: Context, uid: string): Bottle | undefined {
  const bottle = readBottle(bottleDir(context, uid));
  return bottle?.meta.owner === context.owner ? bottle : undefined;
}

export function readBottle(dir: string): Bottle | undefined {
  const text = readOrAbsent(join(dir, "meta.json"));
  if (text === undefined) return undefined;
  const meta: Meta = JSON.parse(text);
  return { dir, meta };
}

export function readOrAbsent(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8");
  } catch (error) {
    if (isCode(error, "ENOENT", "ENOTDIR")) return undefined;
    throw error;
  }
}

/** Makes the bottle's directory exist: with everything in it at once, so that no crash leaves one that belongs to nobody. */
export async function ensureBottle(context: Context, identity: BottleIdentity, signal?: AbortSignal): Promise<Bottle> {
  const { uid, namespace, name } = identity;
  const dir = bottleDir(context, uid);
  const found = readBottle(dir);
  if (found !== undefined) return ours(context, found);
  const users = context.privileged ? { users: hostUsers(uid) } : {};
  const meta: Meta = { uid, namespace, name, owner: context.owner, createdMs: context.now(), ...users };
  await context.call("bottle.create", () => createBottle(context, dir, meta), { signal, subject: uid });
  const made = readBottle(dir);
  if (made === undefined)
    throw new BackendError("Transient", "BottleGone", `bottle "${uid}" was removed while it was made`);
  return ours(context, made);
}

function ours(context: Context, bottle: Bottle): Bottle {
  const { owner, uid } = bottle.meta;
  if (owner === context.owner) return bottle;
  const message = `"${bottle.dir}" belongs to installation "${owner}": remove it there, or give bottle "${uid}" another uid`;
  throw new BackendError("Conflict", "ForeignObject", message);
}

export async function createBottle(context: Context, dir: string, meta: Meta): Promise<void> {
  await ensureStateDir(context);
  const draft = join(context.stateDir, `.new-${meta.uid}`);
  await rm(draft, { recursive: true, force: true });
  // For root: the bottle's users pass through to what is theirs, and cannot list what is not. The state directory above is closed to them.
  const passable = context.privileged ? 0o711 : 0o700;
  for (const [path, mode] of [
    ["", passable],
    ["disk", passable],
    ["etc", 0o755],
    ["units", 0o700],
  ] as const) {
    await makeDirectory(join(draft, path), mode);
  }
  await writeFile(join(draft, "node"), "", { mode: 0o755 });
  for (const [file, text] of Object.entries(etcFiles(meta.name))) await writePublic(join(draft, "etc", file), text);
  await writeFile(join(draft, "meta.json"), JSON.stringify(meta), { mode: 0o600 });
  try {
    await rename(draft, dir);
  } catch (error) {
    // Somebody made it meanwhile.
    if (!isCode(error, "ENOTEMPTY", "EEXIST")) throw error;
    await rm(draft, { recursive: true, force: true });
  }
}

/** The mode as it is written, whatever the umask. */
export async function makeDirectory(path: string, mode: number): Promise<void> {
  await mkdir(path, { mode });
  await chmod(path, mode);
}

async function writePublic(path: string, text: string): Promise<void> {
  await writeFile(path, text);
  await chmod(path, 0o644);
}

/** /etc as the agent sees it, besides a few files of the host: nothing of the host's users and names. */
function etcFiles(hostname: string): Record<string, string> {
  return {
    passwd:
      "root:x:0:0:root:/:/sbin/nologin\nagent:x:1000:1000:agent:/home/agent:/bin/sh\nnobody:x:65534:65534:nobody:/:/sbin/nologin\n",
    group: "root:x:0:\nagent:x:1000:\nnogroup:x:65534:\n",
    hosts: `127.0.0.1 localhost ${hostname}\n::1 localhost\n`,
    hostname: `${hostname}\n`,
    "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
    "resolv.conf": "",
  };
}

/** Makes a part of the disk exist. Its owner is set before it has its name, so that what has the name is ready. */
export async function ensurePart(context: Context, bottle: Bottle, part: Part, signal?: AbortSignal): Promise<void> {
  const path = partDir(bottle, part);
  const owner = part === "sockets" ? bottle.meta.users?.guard : bottle.meta.users?.agent;
  const draft = join(bottle.dir, `.new-${part}`);
  if (isDirectory(path)) return;
  await context.call(
    `disk.create:${part}`,
    async () => {
      await rm(draft, { recursive: true, force: true });
      const made = part === "sockets" ? [draft, join(draft, AUDIT)] : [draft];
      for (const directory of made) {
        await makeDirectory(directory, 0o700);
        if (owner !== undefined) await chown(directory, owner, owner);
      }
      try {
        await rename(draft, path);
      } catch (error) {
        if (!isCode(error, "ENOTEMPTY", "EEXIST")) throw error;
      }
    },
    { signal, subject: bottle.meta.uid },
  );
}

export function hintPath(context: Context, uid: string): string {
  return join(hintsDir(context), uid);
}

/** Far above what people, daemons and containers with user namespaces of their own get; below 2^31, which some programs take for negative. */
const HOST_USER_BASE = 2_000_000_000;
const HOST_USER_PAIRS = 50_000_000;

/**
 * Two users for each bottle, so that agents of different bottles have no rights over one another's files or processes even outside
 * their sandboxes. Derived from the uid: nothing is registered, and a retry finds the same. Should two bottles ever share a pair, they are
 * still apart by their namespaces.
 */
export function hostUsers(uid: string): HostUsers {
  const agent = HOST_USER_BASE + 2 * (createHash("sha256").update(uid).digest().readUInt32BE(0) % HOST_USER_PAIRS);
  return { agent, guard: agent + 1 };
}

function isDirectory(path: string): boolean {
  return lstatSync(path, { throwIfNoEntry: false })?.isDirectory() === true;
}
