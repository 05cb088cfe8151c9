import { dirname } from "node:path";
import { fileURLToPath } from "node:url";

const EXIT_SOFTWARE = 70;
const FRAMES_MAX = 20;

/**
 * An error that nobody expected ends the process, and with it all egress. Of such an error only its name and our places in its stack are told:
 * a message may quote what was read, and that may be a secret.
 */
export function dieQuietly(): void {
  process.on("uncaughtException", (error: unknown) => {
    process.stderr.write(`bottle guard failed: ${[nameOf(error), ...framesOf(error)].join(" at ")}\n`);
    process.exit(EXIT_SOFTWARE);
  });
}

function nameOf(error: unknown): string {
  if (!(error instanceof Error)) return "a value that is no error";
  const code =
    "code" in error && typeof error.code === "string" && /^[A-Z0-9_]{1,64}$/.test(error.code) ? ` ${error.code}` : "";
  return `${/^\w{1,64}$/.test(error.name) ? error.name : "Error"}${code}`;
}

/** File, line and column, below the directory of this program. The part of the stack that repeats the message is skipped. */
function framesOf(error: unknown): string[] {
  if (!(error instanceof Error) || typeof error.stack !== "string") return [];
  const head = error.stack.indexOf(error.message);
  const stack = head === -1 ? "" : error.stack.slice(head + error.message.length);
  const root = `${dirname(fileURLToPath(import.meta.url))}/`;
  return [...stack.matchAll(/^ {4}at (?:.* \()?(?:file:\/\/)?([^()\n]+:\d+:\d+)\)?$/gm)]
    .map(([, place = ""]) => place)
    .filter((place) => place.startsWith(root))
    .map((place) => place.slice(root.length))
    .slice(0, FRAMES_MAX);
}
