import { execFileSync, spawnSync } from "node:child_process";
import {
  chmodSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readlinkSync,
  realpathSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { basename, dirname, join, resolve } from "node:path";

/** An agent image with the tools of agents, put together from this machine's own: no registry can be asked on a closed network. Raise the number when the list changes. */
export const TOOLS_IMAGE = "bot-bottle-test/tools:1";

/** Programs of the machine itself; a version manager's stand-ins in a home directory need more than they show. */
const PATH = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin";
const PROGRAMS = [
  "sh bash cat chmod chown cp cut date dd df dirname basename du echo env expr false head id install ln ls mkdir mkfifo mktemp mv nproc od",
  "printf pwd readlink realpath rm rmdir seq sha256sum sleep sort stat stty tail tee test timeout touch tr true tty uname uniq wc whoami yes",
  "awk sed grep egrep find xargs tar gzip ps hostname unshare mount setpriv nsenter perl python3 curl git git-upload-pack openssl diff",
].flatMap((line) => line.split(" "));
/** Left out where it is not there. */
const TREES = [
  "/usr/lib/git-core",
  "/usr/libexec/git-core",
  "/usr/share/git-core",
  "/etc/ssl/certs",
  "/etc/ssl/openssl.cnf",
  "/usr/share/ca-certificates",
  "/usr/lib/python3/dist-packages/pip",
  "/usr/share/python-wheels",
];
const TOP_LEVEL = ["bin", "sbin", "lib", "lib64", "lib32"];
const LEFT_OUT = new Set(["__pycache__", "test", "tests", "idlelib", "ensurepip"]);

/** Makes the image if the engine does not have it: some 250 MB, a few seconds. */
export function ensureToolsImage(): string {
  if (spawnSync("docker", ["image", "inspect", TOOLS_IMAGE]).status === 0) return TOOLS_IMAGE;
  const dir = mkdtempSync(join(tmpdir(), "bot-bottle-tools-"));
  try {
    const own = join(dir, "own");
    writeOwnFiles(own);
    const paths = withLibraries([...programs(), ...trees()]);
    writeFileSync(join(dir, "list"), [...TOP_LEVEL.map((name) => `/${name}`).filter(isLink), ...paths].join("\n"));
    const archive = `tar -C / -c --no-recursion --owner 0 --group 0 -T '${dir}/list' --recursion -C '${own}' etc usr tmp 2>/dev/null`;
    const changes = `-c 'ENV PATH=${PATH}'`;
    execFileSync("bash", ["-c", `${archive} | docker import ${changes} - ${TOOLS_IMAGE}`], { stdio: "pipe" });
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
  return TOOLS_IMAGE;
}

/** Users of the image, and Node under the names that people type, wherever this machine has it. */
function writeOwnFiles(own: string): void {
  for (const path of ["etc", "usr/local/bin", "tmp"]) mkdirSync(join(own, path), { recursive: true });
  chmodSync(join(own, "tmp"), 0o1777);
  writeFileSync(join(own, "etc/passwd"), "root:x:0:0::/root:/bin/sh\nagent:x:1000:1000::/home/agent:/bin/bash\n");
  writeFileSync(join(own, "etc/group"), "root:x:0:\nagent:x:1000:\n");
  writeFileSync(join(own, "etc/nsswitch.conf"), "hosts: files dns\n");
  const scripts = { node: nodePath(), npm: `${nodePath()} ${join(npmDir(), "bin/npm-cli.js")}` };
  for (const [name, command] of Object.entries(scripts)) {
    writeFileSync(join(own, "usr/local/bin", name), `#!/bin/sh\nexec ${command} "$@"\n`, { mode: 0o755 });
  }
}

function nodePath(): string {
  return realpathSync(process.execPath);
}

function npmDir(): string {
  return join(dirname(nodePath()), "../lib/node_modules/npm");
}

function programs(): string[] {
  const found = PROGRAMS.map((name) => find(name)).filter((path) => path !== undefined);
  return [nodePath(), ...found];
}

function find(name: string): string | undefined {
  return PATH.split(":")
    .map((directory) => join(directory, name))
    .find((path) => lstatSync(path, { throwIfNoEntry: false }) !== undefined);
}

function trees(): string[] {
  const python = said("python3", ["-c", "import sysconfig; print(sysconfig.get_path('stdlib'))"]);
  const perl = said("perl", ["-e", 'print join "\\n", grep { m{^/usr} } @INC']);
  return [...TREES, npmDir(), ...python, ...perl].flatMap((path) => below(path));
}

/** Lines of a program's output; none if this machine does not have it. */
function said(program: string, words: string[]): string[] {
  const path = find(program);
  if (path === undefined) return [];
  return execFileSync(path, words, { encoding: "utf8" }).trim().split("\n");
}

function below(path: string): string[] {
  const found = lstatSync(path, { throwIfNoEntry: false });
  if (found === undefined) return [];
  if (!found.isDirectory()) return [path];
  const inside = readdirSync(path).filter((name) => !LEFT_OUT.has(name));
  return [path, ...inside.flatMap((name) => below(join(path, name)))];
}

/** Every path as the archive needs it: no link on the way, what a link leads to beside it, and the libraries that programs load. */
function withLibraries(paths: readonly string[]): string[] {
  const found = new Set<string>();
  const add = (path: string) => {
    const entry = join(realpathSync(dirname(path)), basename(path));
    if (found.has(entry)) return;
    found.add(entry);
    const at = lstatSync(entry, { throwIfNoEntry: false });
    if (at?.isSymbolicLink() !== true) return;
    const target = resolve(dirname(entry), readlinkSync(entry));
    if (lstatSync(target, { throwIfNoEntry: false }) !== undefined) add(target);
  };
  for (const path of paths) add(path);
  const loadable = [...found].filter((path) => isLoadable(path));
  const { stdout } = spawnSync("ldd", loadable, { encoding: "utf8", maxBuffer: 64 * 1024 * 1024 });
  for (const [, library] of stdout.matchAll(/(?:=> |^\s+)(\/\S+) \(0x/gm)) if (library !== undefined) add(library);
  return [...found].sort();
}

function isLoadable(path: string): boolean {
  const found = lstatSync(path, { throwIfNoEntry: false });
  return found?.isFile() === true && ((found.mode & 0o111) !== 0 || /\.so(\.\d+)*$/.test(path));
}

function isLink(path: string): boolean {
  return lstatSync(path, { throwIfNoEntry: false })?.isSymbolicLink() === true;
}
