import { DEFAULT_NAMESPACE, GROUP, keyText, type ObjectKey } from "../api/meta.ts";
import type { EventSubject } from "../ports/events.ts";
import type { DeclaredKind } from "./apply.ts";

/** The folder in which the object was declared, told from an empty mount point under the same path. */
export const INODE_ANNOTATION = `${GROUP}/source-inode`;

export interface Problem {
  about: EventSubject;
  reason: "FileInvalid" | "Refused" | "DeclaredTwice" | "FolderUnreadable" | "FolderIncomplete" | "FolderEmpty";
  message: string;
}

/** Names an object of any declared kind. */
export function objectId(of: { kind: DeclaredKind; metadata: ObjectKey }): string {
  return `${of.kind} ${keyText(of.metadata)}`;
}

export function fileProblem(path: string, reason: Problem["reason"], message: string): Problem {
  return {
    about: { kind: "File", namespace: DEFAULT_NAMESPACE, name: safeName(path) },
    reason,
    message: `${path}: ${message}`,
  };
}

/** A path as an object's name: `agents/My File.yaml` becomes `agents-my-file-yaml`. */
function safeName(path: string): string {
  const safe = path
    .toLowerCase()
    .replaceAll(/[^a-z0-9]+/g, "-")
    .slice(0, 63)
    .replaceAll(/^-|-$/g, "");
  return safe === "" ? "file" : safe;
}
