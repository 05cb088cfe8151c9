import { posix } from "node:path";
import { BackendError, HOME, WORKSPACE } from "../../controller/ports/backend.ts";

/** A path on the bottle's disk, normalised. Anything else is refused before the engine hears of it. */
export function parseDiskPath(path: string): string {
  const parts = path.split("/");
  const normal = posix.normalize(path).replace(/(?<=.)\/+$/, "");
  if (parts.includes("..") || path.includes("\0") || !isOnDisk(normal)) {
    throw new BackendError(
      "Invalid",
      "PathOutsideDisk",
      `path "${path}" is not on the bottle's disk: write ${HOME}, ${WORKSPACE} or a path below one of them, without ".."`,
    );
  }
  return normal;
}

export function isOnDisk(path: string): boolean {
  return [HOME, WORKSPACE].some((mount) => path === mount || path.startsWith(`${mount}/`));
}

/** The volume's own directory: never a link. */
export function mountOf(path: string): string {
  return path === HOME || path.startsWith(`${HOME}/`) ? HOME : WORKSPACE;
}
