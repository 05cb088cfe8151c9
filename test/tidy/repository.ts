import { execFileSync } from "node:child_process";
import { readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import type { RepositoryFile } from "./rules.ts";

/** Every file that git tracks or would: new files are held to the rules before they are committed. */
export function repositoryFiles(): RepositoryFile[] {
  const root = new URL("../..", import.meta.url).pathname;
  const list = execFileSync("git", ["ls-files", "-z", "--cached", "--others", "--exclude-standard"], {
    cwd: root,
    encoding: "utf8",
    maxBuffer: 64 * 1024 * 1024,
  });
  return list
    .split("\0")
    .filter((path) => path !== "" && statSync(join(root, path), { throwIfNoEntry: false })?.isFile() === true)
    .map((path) => ({ path, text: readFileSync(join(root, path), "utf8") }));
}
