import { Writable } from "node:stream";
import { pino } from "pino";
import type { Log } from "../ports/log.ts";
import { plainText, say, type Io } from "./io.ts";

/** A pino log on stderr: JSON lines for programs, short lines for a person at a terminal. */
export function createLogger(io: Io, level: string): Log {
  const destination = io.isTerminal ? readable(io) : io.stderr;
  return pino({ level, base: undefined, timestamp: pino.stdTimeFunctions.isoTime }, destination);
}

function readable(io: Io): Writable {
  return new Writable({
    write(chunk: Buffer, _encoding, done) {
      for (const line of chunk.toString("utf8").split("\n")) if (line !== "") say(io, readableLine(line));
      done();
    },
  });
}

/** `12:01:02 warn  step failed bottle=default/hello step=prepare`. */
function readableLine(line: string): string {
  const { time, level, msg, ...fields } = JSON.parse(line) as { time: string; level: number; msg: string };
  const name = pino.levels.labels[level] ?? String(level);
  const pairs = Object.entries(fields).map(
    ([field, value]) => `${field}=${typeof value === "string" ? value : JSON.stringify(value)}`,
  );
  return plainText(`${time.slice(11, 19)} ${name.padEnd(5)} ${msg} ${pairs.join(" ")}`.trimEnd());
}
