import { spawn } from "node:child_process";
import { join } from "node:path";
import { existsSync } from "node:fs";
import type { Availability } from "../../controller/ports/backend.ts";
import { createBottle, hostUsers, type Bottle } from "./bottles.ts";
import { filterPath, type Context } from "./context.ts";
import { isCode, oneLine } from "./errors.ts";
import { ensureFilter } from "./lifecycle.ts";
import { checkCommand, HOST_ENV } from "./sandbox.ts";

const RUN_MS_MAX = 20_000;
const TEXT_BYTES_MAX = 16 * 1024;
const INSTALL = "apt-get install -y bubblewrap util-linux";

/** Runs a real sandbox once, with all the flags of a bottle's. */
export async function available(context: Context, signal?: AbortSignal): Promise<Availability> {
  if (process.platform !== "linux") {
    return { ok: false, reason: `bubblewrap needs Linux, this is ${process.platform}`, fix: "choose another backend" };
  }
  const version = await run("bwrap --version", signal);
  if (version.code !== 0) return { ok: false, reason: "the program bwrap was not found", fix: INSTALL };
  if (!existsSync(join(context.guardProgramDir, "main.js"))) {
    return { ok: false, reason: `the guard program is not in "${context.guardProgramDir}"`, fix: "npm run build" };
  }
  try {
    await ensureFilter(context, signal);
    const script = `${checkCommand(context, await checkBottle(context))
      .map(quoted)
      .join(" ")} 3>/dev/null 5<${quoted(filterPath(context))}`;
    const tried = await run(script, signal);
    if (tried.code === 0) return { ok: true, version: oneLine(version.text).replace(/^bubblewrap /, "") };
    return {
      ok: false,
      reason: `bwrap cannot make a sandbox: ${oneLine(tried.text)}`,
      fix: fixOf(tried, context.privileged),
    };
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    return { ok: false, reason, fix: `make "${context.stateDir}" writable` };
  }
}

async function checkBottle(context: Context): Promise<Bottle> {
  const dir = join(context.stateDir, ".check");
  const uid = "check";
  const users = context.privileged ? { users: hostUsers(uid) } : {};
  const meta = { uid, namespace: "", name: uid, owner: context.owner, createdMs: context.now(), ...users };
  if (!existsSync(dir)) await context.call("check.create", () => createBottle(context, dir, meta));
  return { dir, meta };
}

function fixOf({ text, code }: { text: string; code: number }, privileged: boolean): string {
  if (code === 127 || /not found|No such file/i.test(text)) return INSTALL;
  if (/unknown option|seccomp/i.test(text))
    return "install bubblewrap 0.8.0 or newer, on a kernel with CONFIG_SECCOMP_FILTER";
  if (/unshare|mount|setpriv/.test(text) && !/bwrap:/.test(text) && privileged) {
    return "run the controller as an ordinary user, or give its container CAP_SYS_ADMIN";
  }
  return "allow user namespaces: sysctl -w kernel.unprivileged_userns_clone=1 (Debian), kernel.apparmor_restrict_unprivileged_userns=0 (Ubuntu), user.max_user_namespaces=10000";
}

function run(script: string, signal?: AbortSignal): Promise<{ code: number; text: string }> {
  return new Promise((resolve) => {
    const child = spawn("sh", ["-c", script], {
      env: HOST_ENV,
      stdio: ["ignore", "pipe", "pipe"],
      timeout: RUN_MS_MAX,
      signal,
    });
    let text = "";
    const keep = (chunk: Buffer) => (text = (text + chunk.toString("utf8")).slice(0, TEXT_BYTES_MAX));
    child.stdout.on("data", keep);
    child.stderr.on("data", keep);
    child.once("error", (error) => resolve({ code: isCode(error, "ENOENT") ? 127 : 1, text: error.message }));
    child.once("close", (code) => resolve({ code: code ?? 1, text }));
  });
}

function quoted(word: string): string {
  return `'${word.replaceAll("'", `'\\''`)}'`;
}
