import type { Readable, Writable } from "node:stream";

/** What a command talks through: results to stdout, words to stderr. */
export interface Io {
  stdin: Readable;
  stdout: Writable;
  stderr: Writable;
  /** stderr is a terminal: progress may be rewritten in place. */
  isTerminal: boolean;
  /** stdout is a terminal: untrusted output is made safe for it. */
  showsOutput: boolean;
  /** Colours may be used on stdout. */
  color: boolean;
}

export function print(io: Io, text: string): void {
  io.stdout.write(`${text}\n`);
}

export function say(io: Io, text: string): void {
  io.stderr.write(`${text}\n`);
}

/** Writes all of a stream in order and never holds more than one chunk of it. */
export async function writeChunk(to: Writable, chunk: Uint8Array): Promise<void> {
  if (to.write(chunk)) return;
  await new Promise<void>((resolve) => {
    const done = () => {
      to.off("drain", done);
      to.off("close", done);
      to.off("error", done);
      resolve();
    };
    to.on("drain", done);
    to.on("close", done);
    to.on("error", done);
  });
}

/** Control characters of names, labels and messages that others wrote must not reach a terminal. */
export function plainText(text: string): string {
  // oxlint-disable-next-line no-control-regex -- these are the characters to be replaced.
  return text.replaceAll(/[\u0000-\u001f\u007f-\u009f]/g, " ");
}

export const COLORS = { red: 31, green: 32, yellow: 33, bold: 1, faint: 2 } as const;

export function colored(io: Pick<Io, "color">, color: keyof typeof COLORS, text: string): string {
  return io.color ? `\u001b[${COLORS[color]}m${text}\u001b[0m` : text;
}
