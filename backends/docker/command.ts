import { posix } from "node:path";
import type { ContainerInspectInfo } from "dockerode";
import { BackendError, WORKSPACE } from "../../controller/ports/backend.ts";
import type { Context } from "./context.ts";
import { orAbsent } from "./errors.ts";

const PATH_DEFAULT = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const PATH_PARTS_MAX = 32;
/** Go's bits of a file mode, as the engine sends them. */
const MODE_DIRECTORY = 2 ** 31;
const MODE_SYMLINK = 2 ** 27;
const MODE_EXECUTABLE = 0o111;

/**
 * Refuses to start a container whose command is not in it. Only needed with docker-init: the engine then starts successfully, and init exits
 * with 127, which cannot be told from an agent that ends with 127. Without init the engine's own refusal says it.
 */
export async function refuseMissingCommand(
  context: Context,
  container: ContainerInspectInfo,
  signal?: AbortSignal,
): Promise<void> {
  if (container.HostConfig.Init !== true) return;
  const command = container.Path;
  const found = await Promise.all(
    candidates(command, container).map((path) => statIn(context, container.Id, path, signal)),
  );
  if (found.some((mode) => mode !== undefined && isExecutable(mode))) return;
  const why = found.every((mode) => mode === undefined) ? "it is not there" : "it is not an executable file";
  throw new BackendError(
    "Invalid",
    "CommandNotFound",
    `cannot run "${command}" in image "${container.Config.Image}": ${why}; install it in the image or correct the command`,
  );
}

function candidates(command: string, container: ContainerInspectInfo): string[] {
  if (command.includes("/")) return [posix.resolve(WORKSPACE, command)];
  const path = container.Config.Env.find((entry) => entry.startsWith("PATH="))?.slice("PATH=".length) ?? PATH_DEFAULT;
  const directories = path
    .split(":")
    .filter((part) => part !== "")
    .slice(0, PATH_PARTS_MAX);
  return directories.map((directory) => posix.resolve(WORKSPACE, directory, command));
}

/** What a link points to decides when the engine runs it; that it is there is enough here. */
function isExecutable(mode: number): boolean {
  if ((mode & MODE_SYMLINK) !== 0) return true;
  return mode < MODE_DIRECTORY && (mode & MODE_EXECUTABLE) !== 0;
}

/** The mode of a path in a container, `undefined` if there is none. */
async function statIn(context: Context, id: string, path: string, signal?: AbortSignal): Promise<number | undefined> {
  return (await statPath(context, id, path, signal))?.mode;
}

export interface PathStat {
  mode: number;
  isLink: boolean;
  isDirectory: boolean;
  /** Of a link: where it leads in the container, resolved by the engine. */
  linkTarget: string;
}

/** `undefined` if there is no such path. */
export async function statPath(
  context: Context,
  id: string,
  path: string,
  signal?: AbortSignal,
): Promise<PathStat | undefined> {
  const { docker, call } = context.engine;
  const answer = await orAbsent(
    call("archive.stat", (abortSignal) => docker.getContainer(id).infoArchive({ path, abortSignal }), {
      signal,
      subject: path,
    }),
  );
  if (answer === undefined) return undefined;
  answer.resume();
  const header: unknown = answer.headers["x-docker-container-path-stat"];
  const stat: { mode: number; linkTarget?: string } = JSON.parse(
    Buffer.from(String(header), "base64").toString("utf8"),
  );
  return {
    mode: stat.mode,
    isLink: (stat.mode & MODE_SYMLINK) !== 0,
    isDirectory: stat.mode >= MODE_DIRECTORY,
    linkTarget: stat.linkTarget ?? "",
  };
}
