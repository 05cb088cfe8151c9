import { BackendError } from "../../controller/ports/backend.ts";

const TEXT_LENGTH_MAX = 500;
const NO_ENGINE = new Set(["ECONNREFUSED", "ENOENT", "EACCES", "EPERM", "ENOTFOUND"]);

/** What the engine or the connection to it said. */
interface Failure {
  statusCode?: number;
  code?: string;
  text: string;
}

/** Turns a failed request into a BackendError. An error that is neither the engine's nor the connection's is a bug and stays what it is. */
export function translate(error: unknown, where: { what: string; address: string }): unknown {
  if (error instanceof BackendError || !(error instanceof Error)) return error;
  const failure = readFailure(error);
  if (failure.code !== undefined) return connectionFailure(failure.code, failure.text, where, error);
  if (failure.statusCode === undefined) return error;
  const message = `Docker Engine answered ${failure.statusCode} to ${where.what}: ${failure.text}`;
  return new BackendError(...kindOf(failure), message, { cause: error });
}

function readFailure(error: Error): Failure {
  const body = "json" in error ? error.json : undefined;
  const said = typeof body === "object" && body !== null && "message" in body ? String(body.message) : error.message;
  return {
    text: oneLine(said),
    ...("statusCode" in error && typeof error.statusCode === "number" ? { statusCode: error.statusCode } : {}),
    ...("code" in error && typeof error.code === "string" ? { code: error.code } : {}),
  };
}

/** The engine's own words on one line of bounded length. */
export function oneLine(text: string): string {
  return text.replaceAll(/\s+/g, " ").trim().slice(0, TEXT_LENGTH_MAX);
}

function kindOf({ statusCode, text }: Failure): [BackendError["kind"], string] {
  if (/no such image/i.test(text)) return ["NotFound", "ImageNotFound"];
  if (/(unknown or invalid runtime|unknown runtime)/i.test(text)) return ["Invalid", "RuntimeNotFound"];
  if (isCommandFailure(text)) return ["Invalid", "CommandNotFound"];
  if (/seccomp is not enabled/i.test(text)) return ["Invalid", "SeccompUnavailable"];
  if (statusCode === 404) return ["NotFound", "NotFound"];
  if (statusCode === 409) return ["Conflict", "Conflict"];
  if (statusCode === 304) return ["Conflict", "NotModified"];
  if (statusCode === 400 || statusCode === 403) return ["Invalid", "EngineRefused"];
  return ["Transient", "EngineError"];
}

/** Runtimes say it in their own words: the program is absent (127) or cannot be executed (126). */
function isCommandFailure(text: string): boolean {
  return (
    /executable file not found/i.test(text) ||
    /(exec|stat|starting container process).*(no such file or directory|permission denied|is a directory)/i.test(text)
  );
}

function connectionFailure(
  code: string,
  text: string,
  { what, address }: { what: string; address: string },
  cause: Error,
): BackendError {
  if (!NO_ENGINE.has(code)) {
    return new BackendError("Transient", "ConnectionLost", `${what} lost the Docker Engine: ${text}`, { cause });
  }
  return new BackendError(
    "Unavailable",
    "EngineUnavailable",
    `cannot reach the Docker Engine at "${address}" (${code}): ${engineRemedy(code)}`,
    { cause },
  );
}

/** What to type when the engine cannot be reached. */
export function engineRemedy(code: string): string {
  if (code === "EACCES" || code === "EPERM") {
    return "add yourself to its group with sudo usermod -aG docker $USER and log in again";
  }
  return "start it with sudo systemctl start docker, or set DOCKER_HOST to where it listens";
}

export function isKind(error: unknown, kind: BackendError["kind"]): error is BackendError {
  return error instanceof BackendError && error.kind === kind;
}

/** Already so: the engine's 304. */
export function isNotModified(error: unknown): boolean {
  return error instanceof BackendError && error.reason === "NotModified";
}

/** `undefined` where the engine knows no such object. */
export async function orAbsent<T>(promise: Promise<T>): Promise<T | undefined> {
  try {
    return await promise;
  } catch (error) {
    if (isKind(error, "NotFound")) return undefined;
    throw error;
  }
}
