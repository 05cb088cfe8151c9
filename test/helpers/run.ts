import { spawn, type ChildProcessByStdio } from "node:child_process";
import { fileURLToPath } from "node:url";
import type { Readable } from "node:stream";

const RUN_MS_MAX = 60_000;
const WAIT_MS_MAX = 20_000;
const OUTPUT_BYTES_MAX = 16 * 1024 * 1024;
/** Programs run here, so that scripts of `node --eval` find the project's packages. */
const PROJECT = fileURLToPath(new URL("../..", import.meta.url));

export interface Ran {
  status: number | null;
  stdout: string;
  stderr: string;
}

export interface RunOptions {
  env: Readonly<Record<string, string>>;
  cwd?: string;
}

/** A program that runs and whose output can be waited for. */
export interface Running {
  /** Resolves when stdout holds the text; rejects when the program ends or time is up without it. */
  shows(text: string): Promise<void>;
  ended: Promise<Ran>;
  kill(): void;
}

/** Runs a program to its end, with this environment only. It is killed when its time is up: `status` is null then. */
export function run(command: readonly string[], options: RunOptions): Promise<Ran> {
  return start(command, options).ended;
}

/** A script in the language of modules, run by the Node of the tests. */
export function runNode(script: string, options: RunOptions): Promise<Ran> {
  return run([process.execPath, "--input-type=module", "--eval", script], options);
}

export function start(command: readonly string[], options: RunOptions): Running {
  const [program = "", ...args] = command;
  const child = spawn(program, args, {
    cwd: options.cwd ?? PROJECT,
    env: { ...options.env },
    stdio: ["ignore", "pipe", "pipe"],
    timeout: RUN_MS_MAX,
    killSignal: "SIGKILL",
  });
  const output = { stdout: "", stderr: "" };
  for (const name of ["stdout", "stderr"] as const) {
    child[name].setEncoding("utf8").on("data", (text: string) => {
      if (output[name].length < OUTPUT_BYTES_MAX) output[name] += text;
    });
  }
  const ended = new Promise<Ran>((resolve, reject) => {
    child.once("error", reject);
    child.once("close", (status) => resolve({ status, ...output }));
  });
  return { shows: (text) => shows(child, { text, output }), ended, kill: () => void child.kill("SIGKILL") };
}

function shows(
  child: ChildProcessByStdio<null, Readable, Readable>,
  { text, output }: { text: string; output: { stdout: string; stderr: string } },
): Promise<void> {
  return new Promise((resolve, reject) => {
    const fail = (why: string): void => {
      const said = output.stdout + output.stderr;
      reject(new Error(`"${text}" was not shown: ${why}; output: ${said.slice(-2_000)}`));
    };
    const timeout = setTimeout(() => fail(`nothing within ${WAIT_MS_MAX} ms`), WAIT_MS_MAX);
    const look = (): void => {
      if (!output.stdout.includes(text)) return;
      clearTimeout(timeout);
      resolve();
    };
    child.stdout.on("data", look);
    child.once("close", () => {
      clearTimeout(timeout);
      look();
      fail("the program ended");
    });
    look();
  });
}
