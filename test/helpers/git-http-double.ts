import { execFileSync, spawn } from "node:child_process";
import { mkdirSync, writeFileSync } from "node:fs";
import type { IncomingMessage, ServerResponse } from "node:http";
import { join } from "node:path";
import type { UpstreamHandler } from "./upstreams.ts";

const CGI_MS_MAX = 60_000;
const CGI_HEAD_BYTES_MAX = 16 * 1024;

/** Reads no configuration of the machine or its user, so that a test means the same everywhere. */
export const GIT_ENV: Readonly<Record<string, string>> = {
  GIT_CONFIG_GLOBAL: "/dev/null",
  GIT_CONFIG_SYSTEM: "/dev/null",
  GIT_TERMINAL_PROMPT: "0",
  GIT_AUTHOR_NAME: "Test",
  GIT_AUTHOR_EMAIL: "test@example.com",
  GIT_COMMITTER_NAME: "Test",
  GIT_COMMITTER_EMAIL: "test@example.com",
};

/** Makes `root/NAME.git` with one commit on main, so that it can be cloned, and lets everybody push. Returns its path. */
export function createRepository(root: string, name: string): string {
  const bare = join(root, `${name}.git`);
  const seed = join(root, `${name}.seed`);
  mkdirSync(seed, { recursive: true });
  git(["init", "--quiet", "--bare", "--initial-branch=main", bare]);
  for (const setting of ["http.receivepack", "uploadpack.allowFilter", "uploadpack.allowAnySHA1InWant"]) {
    git(["-C", bare, "config", setting, "true"]);
  }
  git(["init", "--quiet", "--initial-branch=main", seed]);
  writeFileSync(join(seed, "README.md"), "# A repository of a test\n");
  git(["-C", seed, "add", "README.md"]);
  git(["-C", seed, "commit", "--quiet", "-m", "first"]);
  git(["-C", seed, "push", "--quiet", bare, "main"]);
  return bare;
}

/** One git command of the test itself, on this machine. */
export function git(args: readonly string[]): string {
  const env = { PATH: process.env["PATH"], ...GIT_ENV };
  return execFileSync("git", [...args], { encoding: "utf8", env, stdio: ["ignore", "pipe", "pipe"], timeout: 60_000 });
}

/** Serves the repositories below `root` as a forge does, through git's own CGI program; `authorization` is what a client must send. */
export function gitHttp(options: { root: string; authorization?: string }): UpstreamHandler {
  return (request, response) => {
    const url = new URL(request.url ?? "/", "https://git.test");
    if (!/^\/[\w.-]+\.git\//.test(url.pathname)) return false;
    const { authorization } = options;
    if (authorization !== undefined && request.headers.authorization !== authorization) {
      request.resume();
      response.writeHead(401, { "www-authenticate": 'Basic realm="git"', "content-length": "0" }).end();
      return true;
    }
    runCgi({ root: options.root, url }, request, response);
    return true;
  };
}

function runCgi({ root, url }: { root: string; url: URL }, request: IncomingMessage, response: ServerResponse): void {
  const header = (name: string): string => String(request.headers[name] ?? "");
  const child = spawn("git", ["http-backend"], {
    env: {
      PATH: process.env["PATH"],
      ...GIT_ENV,
      GIT_PROJECT_ROOT: root,
      GIT_HTTP_EXPORT_ALL: "1",
      GIT_PROTOCOL: header("git-protocol"),
      REQUEST_METHOD: request.method,
      PATH_INFO: url.pathname,
      QUERY_STRING: url.search.slice(1),
      CONTENT_TYPE: header("content-type"),
      CONTENT_LENGTH: header("content-length"),
      HTTP_CONTENT_ENCODING: header("content-encoding"),
      REMOTE_USER: "test",
      REMOTE_ADDR: "127.0.0.1",
    },
    stdio: ["pipe", "pipe", "ignore"],
    timeout: CGI_MS_MAX,
  });
  child.on("error", () => response.destroy());
  child.stdin.on("error", () => child.stdin.destroy());
  request.pipe(child.stdin);
  let head: Buffer | undefined = Buffer.alloc(0);
  child.stdout.on("data", (chunk: Buffer) => {
    if (head === undefined) return void response.write(chunk);
    head = Buffer.concat([head, chunk]);
    const end = head.indexOf("\r\n\r\n");
    if (end === -1) {
      if (head.length > CGI_HEAD_BYTES_MAX) response.destroy();
      return;
    }
    const rest = head.subarray(end + 4);
    writeHead(response, head.toString("latin1", 0, end));
    head = undefined;
    response.write(rest);
  });
  child.stdout.on("end", () => response.end());
}

function writeHead(response: ServerResponse, head: string): void {
  let status = 200;
  for (const line of head.split("\r\n")) {
    const [name = "", value = ""] = line.split(/:\s*/, 2);
    if (name.toLowerCase() === "status") status = Number.parseInt(value, 10);
    else response.setHeader(name, value);
  }
  response.writeHead(status);
}
