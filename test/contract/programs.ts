/** What a test wants an agent or a command in a bottle to do, said so that busybox, a host's shell and the fake can all do it. */
export type Program =
  | { type: "exit"; code: number }
  | { type: "print"; text: string }
  /** Prints that many lines of the text. */
  | { type: "repeat"; text: string; count: number }
  | { type: "write"; path: string; text: string }
  | { type: "append"; path: string; text: string }
  /** Prints a file; fails if there is none. */
  | { type: "cat"; path: string }
  /** Prints a variable of its environment. */
  | { type: "env"; name: string }
  /** Prints its arguments, each in brackets. */
  | { type: "words"; words: readonly string[] }
  /** Prints the text as a line (an engine may keep half a line back) and runs until it is stopped. */
  | { type: "sleep"; text: string }
  /** Copies its input to its output. */
  | { type: "echo" }
  /** Prints `terminal` or `pipe` for what its input is. */
  | { type: "tty" }
  | { type: "missing" };

/** Longer than any test: whoever stops it is the test. */
const SLEEP_SECONDS = 600;

/** The program as a command line of a POSIX shell. */
export function shellArgv(program: Program): string[] {
  if (program.type === "missing") return ["/no/such/program"];
  if (program.type === "words") return ["/bin/sh", "-c", 'printf "[%s]" "$@"', "sh", ...program.words];
  return ["/bin/sh", "-c", script(program)];
}

function script(program: Exclude<Program, { type: "missing" | "words" }>): string {
  switch (program.type) {
    case "exit":
      return `exit ${program.code}`;
    case "print":
      return `printf %s ${quoted(program.text)}`;
    case "repeat":
      return `yes ${quoted(program.text)} | head -n ${program.count}`;
    case "write":
      return `printf %s ${quoted(program.text)} > ${quoted(program.path)}`;
    case "append":
      return `printf %s ${quoted(program.text)} >> ${quoted(program.path)}`;
    case "cat":
      return `cat ${quoted(program.path)}`;
    case "env":
      return `printf %s "$${program.name}"`;
    case "sleep":
      return `echo ${quoted(program.text)}; exec sleep ${SLEEP_SECONDS}`;
    case "echo":
      return "exec cat";
    case "tty":
      return "if [ -t 0 ]; then echo terminal; else echo pipe; fi";
  }
}

function quoted(text: string): string {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}
