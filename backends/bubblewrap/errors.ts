import { BackendError } from "../../controller/ports/backend.ts";

const TEXT_LENGTH_MAX = 500;

/** Turns a failed system call into a BackendError. An error without an error code is a bug and stays what it is. */
export function translate(error: unknown, what: string): unknown {
  if (error instanceof BackendError || !(error instanceof Error) || !("code" in error)) return error;
  const text = `${what} failed: ${oneLine(error.message)}`;
  const code = String(error.code);
  if (code === "ENOSPC" || code === "EDQUOT") {
    return new BackendError("Transient", "DiskFull", `${text}: make room on the disk`, { cause: error });
  }
  if (code === "EACCES" || code === "EPERM" || code === "EROFS") {
    const fix = "make the state directory writable for the user of the controller";
    return new BackendError("Unavailable", "StateNotWritable", `${text}: ${fix}`, { cause: error });
  }
  return new BackendError("Transient", "SystemError", text, { cause: error });
}

export function oneLine(text: string): string {
  return text.replaceAll(/\s+/g, " ").trim().slice(0, TEXT_LENGTH_MAX);
}

export function isCode(error: unknown, ...codes: string[]): boolean {
  return error instanceof Error && "code" in error && codes.includes(String(error.code));
}
