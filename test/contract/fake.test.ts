import { createFakeBackend, World, type ProgramResult, type ProgramRun } from "../../backends/fake/index.ts";
import { backendContract } from "./backend-contract.ts";
import type { Bed } from "./bottles.ts";
import { shellArgv, type Program } from "./programs.ts";

/** Agents of the contract start without settings for their guard: that a plan never does so is a rule of simulations. */
async function makeBed(): Promise<Bed> {
  const world = new World({ nowMs: 1_800_000_000_000, guarded: false });
  world.program = perform;
  return {
    backend: createFakeBackend({ world, owner: "us" }),
    stranger: createFakeBackend({ world, owner: "them" }),
    another: () => createFakeBackend({ world, owner: "us" }),
    now: () => world.now(),
    image: "bot-bottle-test/busybox:1",
    argv: (program) => (program.type === "missing" ? shellArgv(program) : [JSON.stringify(program)]),
    close: async () => world.check(),
  };
}

backendContract("fake", [], makeBed, { guard: "Verbs" });

function perform(run: ProgramRun): ProgramResult {
  const line = run.argv[0] ?? "";
  if (!line.startsWith("{")) return { missing: true };
  const program = JSON.parse(line) as Program;
  switch (program.type) {
    case "exit":
      return { code: program.code };
    case "print":
      return { output: program.text, code: 0 };
    case "repeat":
      return { output: `${program.text}\n`.repeat(program.count), code: 0 };
    case "write":
      return { writes: { [program.path]: program.text }, code: 0 };
    case "append":
      return { writes: { [program.path]: (run.files.get(program.path) ?? "") + program.text }, code: 0 };
    case "cat": {
      const text = run.files.get(program.path);
      return text === undefined ? { output: "no such file", code: 1 } : { output: text, code: 0 };
    }
    case "env":
      return { output: run.env[program.name] ?? "", code: 0 };
    case "words":
      return { output: program.words.map((word) => `[${word}]`).join(""), code: 0 };
    case "sleep":
      return { output: `${program.text}\n` };
    case "echo":
      return { echo: true };
    case "tty":
      return { output: run.tty === true ? "terminal\r\n" : "pipe\n", code: 0 };
    case "missing":
      return { missing: true };
  }
}
