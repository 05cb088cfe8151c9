import type { IncomingHttpHeaders } from "node:http";
import type { ActiveSettings } from "../settings.ts";
import { carriesToken } from "../token.ts";
import type { Egress } from "./egress.ts";
import { refused, type Refused } from "./respond.ts";

export type Gate = { ok: true; settings: ActiveSettings } | { ok: false; refused: Refused };

/** What everything must pass that comes in by the door: there are settings, and whoever asks knows the token. */
export function authenticate(egress: Egress, headers: IncomingHttpHeaders): Gate {
  const settings = egress.settings.current();
  if (settings === undefined) {
    return { ok: false, refused: refused("not-configured", "this bottle's guard has not been configured yet") };
  }
  if (carriesToken(headers["proxy-authorization"], settings.token)) return { ok: true, settings };
  const reason = "the proxy token is missing or wrong: use the proxy of HTTPS_PROXY with its user and password";
  // Many clients send their first request without a password and the next one with it: being asked for it is no refusal.
  const verdict = headers["proxy-authorization"] === undefined ? "Failed" : "Denied";
  return { ok: false, refused: refused("unauthorized", reason, { verdict }) };
}

/** Whether anything may leave at this moment. Asked again for each request, because a tunnel outlives the answer. */
export function whyShut(egress: Egress, settings: ActiveSettings): Refused | undefined {
  if (settings.closed !== undefined) return refused("closed", settings.closed.message);
  const health = egress.audit.health();
  if (health.ok) return undefined;
  return refused("audit-unavailable", `nothing may leave while it cannot be recorded: ${health.message}`);
}
