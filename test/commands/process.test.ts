import { execFileSync, spawn, type ChildProcess } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { bottleYaml } from "../sources/fixtures.ts";

const ROOT = new URL("../..", import.meta.url).pathname;
const MAIN = join(ROOT, ".build/controller/main.js");
const WAIT = { timeout: 30_000, interval: 50 };

let dir = "";
let environment: NodeJS.ProcessEnv = {};

beforeAll(() => {
  if (!existsSync(MAIN)) execFileSync("npx", ["tsc", "-p", "tsconfig.json"], { cwd: ROOT });
  dir = mkdtempSync(join(tmpdir(), "bot-bottle-process-"));
  environment = { PATH: process.env["PATH"], BOT_BOTTLE_STATE_DIR: join(dir, "state") };
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));

interface Started {
  child: ChildProcess;
  out: () => string;
  err: () => string;
  ended: Promise<number | null>;
}

function start(args: readonly string[], env: NodeJS.ProcessEnv = {}): Started {
  const child = spawn(process.execPath, [MAIN, ...args], { env: { ...environment, ...env }, cwd: dir });
  const text = { out: "", err: "" };
  child.stdout.on("data", (chunk: Buffer) => (text.out += chunk.toString("utf8")));
  child.stderr.on("data", (chunk: Buffer) => (text.err += chunk.toString("utf8")));
  const ended = new Promise<number | null>((resolve) => child.on("close", resolve));
  return { child, out: () => text.out, err: () => text.err, ended };
}

async function run(...args: string[]): Promise<{ code: number | null; out: string; err: string }> {
  const started = start(args);
  started.child.stdin?.end();
  return { code: await started.ended, out: started.out(), err: started.err() };
}

describe("the command", () => {
  it("explains itself: every verb, every exit code, and help of a verb", async () => {
    const help = await run("--help");
    const verb = await run("turn", "--help");

    expect([help.code, verb.code]).toEqual([0, 0]);
    for (const word of ["serve", "apply", "export", "doctor", "130  interrupted"]) expect(help.out).toContain(word);
    expect(verb.out).toContain("--prompt-file <file>");
  });

  it("answers a wrong word with what was meant, an exit code of 2 and no stack", async () => {
    const verb = await run("gett", "bottles");
    const option = await run("get", "bottles", "--wach");
    const kind = await run("get", "bottel");
    const file = await run("apply");

    expect([verb, option, kind, file].map(({ code }) => code)).toEqual([2, 2, 2, 2]);
    expect(verb.err).toContain("Did you mean get?");
    expect(option.err).toContain("Did you mean --watch?");
    expect(kind.err).toMatch(/^error: unknown kind "bottel": did you mean "bottles?"\?\n$/);
    for (const { err } of [verb, option, kind, file]) expect(err).not.toMatch(/^\s+at /m);
  });

  it("applies, gets and deletes across processes, with data on stdout and words on stderr", async () => {
    writeFileSync(join(dir, "a.yaml"), bottleYaml("a"));

    const applied = await run("apply", "-f", "a.yaml");
    const got = await run("get", "bt", "-n", "default", "-o", "name");
    const none = await run("get", "bt", "none");
    const refused = await run("apply", "-f", "a.yaml", "--log-level", "debug", "-n", "Not_A_Name");
    const deleted = await run("delete", "bottle", "a");

    expect(applied.out).toBe("bottle/a created\n");
    expect(applied.err).toMatch(/^note: no controller is running on ".*state": .*"bot-bottle serve" runs\n$/);
    expect(got).toEqual({ code: 0, out: "bottle/a\n", err: "" });
    expect(none.code).toBe(3);
    expect(refused.code).toBe(2);
    expect(deleted).toMatchObject({ code: 0, out: "bottle/a deleted\n" });
  });

  it("passes what follows -- on and reads no option there", async () => {
    const got = await run("exec", "none", "--", "ls", "-n", "--help");

    expect(got.code).toBe(3);
    expect(got.err).toContain('bottle "none" does not exist in namespace "default"');
  });

  it("is quiet when its reader goes away", async () => {
    mkdirSync(join(dir, "many"));
    const text = Array.from({ length: 200 }, (_, index) => bottleYaml(`m${index}`)).join("---\n");
    writeFileSync(join(dir, "many/m.yaml"), text);
    await run("apply", "-f", "many");

    const piped = execFileSync("sh", ["-c", `"${process.execPath}" "${MAIN}" get bt -o json 2>&1 >&3 | head -c 1000`], {
      env: { ...environment },
      stdio: ["ignore", "pipe", "pipe", "ignore"],
    });
    const headed = execFileSync("sh", ["-c", `"${process.execPath}" "${MAIN}" get bt -o json | head -n 1`], {
      env: { ...environment },
      encoding: "utf8",
    });

    expect(piped.toString()).not.toContain("EPIPE");
    expect(headed).toBe("{\n");
  });

  it("watches what another process does, and ends with 130 on Ctrl-C", async () => {
    const watching = start(["get", "bottletemplates", "--watch"]);
    await expect.poll(() => watching.err(), WAIT).toContain("nothing found");
    writeFileSync(
      join(dir, "t.yaml"),
      "apiVersion: bot-bottle.dev/v1alpha1\nkind: BottleTemplate\nmetadata: { name: seen }\nspec: {}\n",
    );

    await run("apply", "-f", "t.yaml");

    await expect.poll(() => watching.out(), WAIT).toMatch(/^NAME .*\nseen /);
    watching.child.kill("SIGINT");
    expect(await watching.ended).toBe(130);
  });

  it("uses no colours where there is no terminal", async () => {
    const doctor = await run("doctor");

    expect(doctor.out).toMatch(/^CHECK +STATE/);
    expect(doctor.out).not.toContain("\u001b");
    expect([0, 6]).toContain(doctor.code);
  });
});
