import { ClientGone } from "./body-reader.ts";
import { refused, type Refused } from "./respond.ts";

/** Codes of certificates that are not believed. Said in words, for it is what people must act on. */
const CERTIFICATE_CODES = /^(CERT_|DEPTH_ZERO|SELF_SIGNED|UNABLE_TO|ERR_TLS_CERT|HOSTNAME_MISMATCH)/;
const CODE = /^[A-Z][A-Z0-9_]{2,60}$/;

/**
 * What is told of an error between guard and upstream: a rule and a code. Never the message, which other libraries write, and which may quote a
 * header.
 */
export function failure(error: unknown): Refused {
  if (error instanceof ClientGone) return refused("bad-request", error.message);
  const known = ruleOf(error);
  if (known !== undefined) return refused(known.rule, known.reason);
  const code = codeOf(error);
  if (CERTIFICATE_CODES.test(code))
    return refused("upstream-failed", `the certificate of the host is not valid: ${code}`, { remedy: "TellPerson" });
  return refused("upstream-failed", `the connection to the host failed: ${code}`);
}

/** A dial that was refused says itself by what. */
function ruleOf(error: unknown): { rule: string; reason: string } | undefined {
  for (let at: unknown = error, depth = 0; at instanceof Error && depth < 4; at = at.cause, depth += 1) {
    if ("rule" in at && typeof at.rule === "string") return { rule: at.rule, reason: at.message };
  }
  return undefined;
}

function codeOf(error: unknown): string {
  if (!(error instanceof Error)) return "UNKNOWN";
  const own = "code" in error && typeof error.code === "string" ? error.code : "";
  return CODE.test(own) ? own : error.name;
}
