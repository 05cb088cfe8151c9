import { spawn, type ChildProcess } from "node:child_process";
import { existsSync } from "node:fs";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

const BUILT = fileURLToPath(new URL("../../.build/controller/stores/sqlite/", import.meta.url));

export interface Child {
  process: ChildProcess;
  /** The next line it writes; undefined at its end. */
  line(): Promise<string | undefined>;
  /** Kills it so that no handler of it runs, and waits until it is gone. */
  kill(): Promise<void>;
}

/**
 * A real second process that runs `script`, an ECMAScript module that may import `openDatabase`, `holdControllerLock` and so on from the
 * built program: plain node cannot run TypeScript.
 */
export function startChild(script: string, args: readonly string[]): Child {
  if (!existsSync(`${BUILT}open-database.js`)) throw new Error("these tests run the built program: npm run build");
  const head =
    `import { openDatabase } from ${JSON.stringify(`${BUILT}open-database.js`)};\n` +
    `import { holdControllerLock } from ${JSON.stringify(`${BUILT}lock.js`)};\n` +
    "const [file] = process.argv.slice(-1);\n" +
    "const open = () => openDatabase({ file, admission: (kind, object) => object, now: Date.now });\n" +
    "const say = (text) => process.stdout.write(text + '\\n');\n";
  const argv = ["--input-type=module", "--eval", head + script, "--", ...args];
  const child = spawn(process.execPath, argv, { stdio: ["pipe", "pipe", "inherit"] });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const ended = new Promise<void>((resolve) => {
    child.once("exit", () => resolve());
  });
  return {
    process: child,
    line: async () => {
      const next = await lines.next();
      return next.done === true ? undefined : next.value;
    },
    kill: async () => {
      child.kill("SIGKILL");
      await ended;
    },
  };
}
