import { HOME, WORKSPACE } from "../../controller/ports/backend.ts";

/** One entry of a volume. A link is kept as text and never followed. */
export type FileNode =
  | { type: "file"; bytes: Uint8Array; mode: number }
  | { type: "directory"; mode: number }
  | { type: "link"; target: string };

/** Path below the volume's root, without a leading slash, to entry. Directories on the way need no entry of their own. */
export type FileTree = Map<string, FileNode>;

/** As much of a volume as files need. */
export interface FileVolume {
  part: "home" | "workspace" | "sockets";
  files: FileTree;
}

const ROOTS = { home: HOME, workspace: WORKSPACE } as const;

/** The volume of an absolute path and the path below its root (empty for the root itself); `undefined` if it is on no volume. */
export function locate<V extends FileVolume>(
  volumes: readonly V[],
  path: string,
): { volume: V; below: string } | undefined {
  for (const volume of volumes) {
    if (volume.part === "sockets") continue;
    const root = ROOTS[volume.part];
    if (path === root) return { volume, below: "" };
    if (path.startsWith(`${root}/`)) return { volume, below: path.slice(root.length + 1) };
  }
  return undefined;
}

/** All files as text by absolute path, which is how scripted programs see a disk. */
export function filesOf(volumes: readonly FileVolume[]): Map<string, string> {
  const files = new Map<string, string>();
  for (const volume of volumes) {
    if (volume.part === "sockets") continue;
    for (const [path, node] of volume.files) {
      if (node.type === "file") files.set(`${ROOTS[volume.part]}/${path}`, new TextDecoder().decode(node.bytes));
    }
  }
  return files;
}

/** Writes outside the disk are a mistake of the test: the root file system is read-only. */
export function applyWrites(volumes: readonly FileVolume[], writes: Readonly<Record<string, string>>): void {
  for (const [path, text] of Object.entries(writes)) {
    const place = locate(volumes, path);
    if (place === undefined || place.below === "")
      throw new Error(`"${path}" is not a file below ${HOME} or ${WORKSPACE}`);
    place.volume.files.set(place.below, { type: "file", bytes: new TextEncoder().encode(text), mode: 0o644 });
  }
}
