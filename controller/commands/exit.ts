import { StatusError } from "../api/errors.ts";
import { unreachable } from "../api/errors.ts";
import type { TurnStatus } from "../api/bottle.ts";
import { BackendError } from "../ports/backend.ts";

/** What the command's exit code says. `turn --wait`, `attach`, `exec` and `resume --prompt --wait` pass the agent's own code on. */
export const EXIT = {
  ok: 0,
  error: 1,
  usage: 2,
  notFound: 3,
  refused: 4,
  timedOut: 5,
  unavailable: 6,
  /** EX_TEMPFAIL: the turn was interrupted and goes on when the bottle may run again. */
  turnInterrupted: 75,
  /** As timeout(1) says it. */
  turnDeadline: 124,
  interrupted: 130,
  turnOutOfMemory: 137,
} as const;

/** The table above as `--help` prints it. */
export const EXIT_HELP = `Exit codes:
  0    ok
  1    error
  2    wrong usage
  3    not found
  4    refused: invalid, or in conflict with what is there
  5    timed out waiting
  6    no backend works, or the store is unavailable
  130  interrupted by Ctrl-C
  turn --wait, attach, exec and resume --prompt --wait exit with the agent's own code;
  a turn that was interrupted is 75, one ended by its deadline 124, one out of memory 137.`;

/** A failure of a command, ready to be printed. Further lines say what can be done. */
export class CommandError extends Error {
  readonly exitCode: number;
  readonly lines: readonly string[];

  constructor(exitCode: number, message: string, options: { lines?: readonly string[]; cause?: unknown } = {}) {
    super(message, { cause: options.cause });
    this.name = "CommandError";
    this.exitCode = exitCode;
    this.lines = options.lines ?? [];
  }
}

export function notFound(what: string, name: string, namespace: string): CommandError {
  return new CommandError(EXIT.notFound, `${what} "${name}" does not exist in namespace "${namespace}"`);
}

export function interrupted(): CommandError {
  return new CommandError(EXIT.interrupted, "interrupted");
}

export function exitCodeOf(error: unknown): number {
  if (error instanceof CommandError) return error.exitCode;
  if (error instanceof StatusError) return statusExit(error.reason);
  if (error instanceof BackendError) return backendExit(error.kind);
  return EXIT.error;
}

function statusExit(reason: StatusError["reason"]): number {
  switch (reason) {
    case "NotFound":
      return EXIT.notFound;
    case "Invalid":
    case "BadRequest":
    case "AlreadyExists":
    case "Conflict":
      return EXIT.refused;
    case "Unavailable":
      return EXIT.unavailable;
    case "Gone":
      return EXIT.error;
    default:
      return unreachable(reason);
  }
}

function backendExit(kind: BackendError["kind"]): number {
  switch (kind) {
    case "NotFound":
      return EXIT.notFound;
    case "Invalid":
    case "Conflict":
      return EXIT.refused;
    case "Unavailable":
      return EXIT.unavailable;
    case "Transient":
      return EXIT.error;
    default:
      return unreachable(kind);
  }
}

/** `error: …` and a line for each cause; never a stack, unless BOT_BOTTLE_DEBUG asks for it. */
export function errorLines(error: unknown, debug = false): string[] {
  const stack = debug && error instanceof Error && error.stack !== undefined ? [error.stack] : [];
  if (error instanceof StatusError && error.causes.length > 1) {
    const end = error.message.indexOf(" is invalid: ");
    const head = end < 0 ? error.message : error.message.slice(0, end + " is invalid".length);
    const causes = error.causes.map(({ field, message }) => (field === "" ? `  ${message}` : `  ${field}: ${message}`));
    return [`error: ${oneLine(head)}`, ...causes.map(oneLine), ...stack];
  }
  const message = error instanceof Error ? error.message : String(error);
  const more = error instanceof CommandError ? error.lines.map((line) => `  ${oneLine(line)}`) : [];
  return [`error: ${oneLine(message)}`, ...more, ...stack];
}

function oneLine(text: string): string {
  return text.replaceAll(/[\r\n]+/g, " ");
}

/** The exit code of a turn that has ended, as its process would have given it. */
export function turnExitCode(turn: Pick<TurnStatus, "outcome" | "exitCode">): number {
  switch (turn.outcome) {
    case "Done":
      return turn.exitCode ?? EXIT.ok;
    case "Failed":
      // A failed turn never looks like success, whatever its process said last.
      return turn.exitCode === undefined || turn.exitCode === 0 ? EXIT.error : turn.exitCode;
    case "Interrupted":
      return EXIT.turnInterrupted;
    case "DeadlineExceeded":
      return EXIT.turnDeadline;
    case "OOMKilled":
      return EXIT.turnOutOfMemory;
    case undefined:
      return EXIT.error;
    default:
      return unreachable(turn.outcome);
  }
}
