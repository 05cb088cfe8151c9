import type { AuditPage, AuditRequest, GuardConfig, GuardConfigured } from "../../controller/ports/guard.ts";

/**
 * The controller's way to a guard: JSON, one object a line, in both directions. Requests may overlap, and several clients may share one
 * stream: an answer is known by its id, and a line that is nobody's is left alone.
 */
export type ControlRequest =
  { id: string; type: "configure"; config: GuardConfig } | { id: string; type: "audit"; request: AuditRequest };

export interface ControlError {
  /** Invalid: the same request will fail again. */
  kind: "Invalid" | "Transient";
  /** CamelCase. */
  reason: string;
  /** One line; never holds anything of the request but names. */
  message: string;
}

export type ControlAnswer =
  { id: string; ok: true; result: GuardConfigured | AuditPage } | { id: string; ok: false; error: ControlError };

/** File name in the sockets directory, where the channel is a Unix socket. */
export const CONTROL_SOCKET = "control.sock";
/** Room for the largest settings: the values of all Secrets that a template may name, escaped. */
export const CONTROL_LINE_BYTES_MAX = 16 * 1024 * 1024;
/** Requests of one kind and one stream at a time. */
export const CONTROL_REQUESTS_MAX = 16;

const NEWLINE = 10;

/** Calls `onLine` with each line that was pushed to its end. A line beyond the bound is left out as a whole. */
export function createLineReader(
  onLine: (line: string) => void,
  bytesMax = CONTROL_LINE_BYTES_MAX,
): { push(chunk: Uint8Array): void } {
  let parts: Uint8Array[] = [];
  let bytes = 0;
  let tooLong = false;
  const take = (part: Uint8Array): void => {
    bytes += part.length;
    tooLong ||= bytes > bytesMax;
    if (tooLong) parts = [];
    else if (part.length > 0) parts.push(part);
  };
  const end = (): void => {
    const line = tooLong ? "" : Buffer.concat(parts).toString("utf8");
    parts = [];
    bytes = 0;
    tooLong = false;
    if (line !== "") onLine(line);
  };
  return {
    push(chunk) {
      let from = 0;
      for (let at = chunk.indexOf(NEWLINE); at !== -1; at = chunk.indexOf(NEWLINE, from)) {
        take(chunk.subarray(from, at));
        end();
        from = at + 1;
      }
      take(chunk.subarray(from));
    },
  };
}
