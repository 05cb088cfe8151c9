import type { GuardRule } from "../ports/guard.ts";
import { unreachable } from "../api/errors.ts";
import { classOf, cidrContains, embeddedAddresses, type Address } from "./address.ts";
import type { BuiltInRule } from "./built-in-rules.ts";
import { METHOD, NEVER_METHODS } from "./compile-policy.ts";
import {
  missOf,
  rulesOfHost,
  type CompiledPolicy,
  type CompiledRule,
  type Miss,
  type RequestFacts,
} from "./compiled.ts";
import { authorityOf, type Destination } from "./destination.ts";
import { oneLine, quoted } from "./text.ts";

/** What becomes of a request or a tunnel. */
export interface Verdict {
  action: GuardRule["action"];
  /** The rule that decided, or one of BUILT_IN_RULES. */
  rule: string;
  /** One line for people. */
  reason: string;
  /** The rule of the policy that decided; absent where a built-in one did. */
  matched?: CompiledRule;
}

/** HTTPS: nothing is decided yet, each request in the tunnel will be. Otherwise bytes pass unread, and this is decided now. */
export type ConnectDecision = { protocol: "HTTPS" } | { protocol: "TLS" | "TCP"; verdict: Verdict };

const RANK: Readonly<Record<GuardRule["action"], number>> = { Deny: 2, RequireApproval: 1, Allow: 0 };
const NEARNESS: Readonly<Record<Miss, number>> = { host: 0, port: 1, protocol: 2, method: 3, path: 4, webSocket: 5 };
const MISS_RULES: Readonly<Record<Miss, BuiltInRule>> = {
  host: "default-deny",
  port: "default-deny",
  protocol: "default-deny",
  method: "method-refused",
  path: "path-refused",
  webSocket: "websocket-refused",
};
const PATHS_SHOWN_MAX = 5;

/**
 * Decides how a tunnel is treated. Where rules of several protocols name one host and port, the one that looks closest wins,
 * whatever their order: HTTPS and HTTP (requests are read) before TLS (the server name is) before TCP. So a TLS rule opens
 * nothing on a host and port that an HTTPS or HTTP rule names too, even if that one is a Deny of some paths. Deny is different: without
 * methods and paths it closes its host and port in every protocol.
 * A tunnel that no rule names is HTTPS as well: it is refused inside TLS, where agents read refusals.
 */
export function decideConnect(policy: CompiledPolicy, destination: Destination): ConnectDecision {
  const named = rulesOfHost(policy, destination).filter(({ ports }) => ports.has(destination.port));
  const winner = named.reduce<CompiledRule | undefined>(stronger, undefined);
  if (winner === undefined || named.some(readsRequests)) return { protocol: "HTTPS" };
  const protocol = named.some(({ rule }) => rule.protocol === "TLS") ? "TLS" : "TCP";
  return { protocol, verdict: verdictOf(winner, destination) };
}

/**
 * Decides one request. Among all rules that match it Deny beats RequireApproval beats Allow, and among equals the first gives
 * its name. If none matches, the reason says what the nearest rule of this host would allow.
 */
export function decideRequest(policy: CompiledPolicy, request: RequestFacts): Verdict {
  const { destination, method } = request;
  if (!METHOD.test(method) || NEVER_METHODS.has(method)) {
    return denied("method-refused", `the method ${quoted(method)} is never passed on`);
  }
  let winner: CompiledRule | undefined;
  let near: { compiled: CompiledRule; miss: Miss } | undefined;
  for (const compiled of rulesOfHost(policy, destination)) {
    const miss = missOf(compiled, request);
    if (miss === undefined) winner = stronger(winner, compiled);
    const nearer = miss !== undefined && (near === undefined || NEARNESS[miss] > NEARNESS[near.miss]);
    if (nearer && compiled.rule.action !== "Deny") near = { compiled, miss };
  }
  if (winner !== undefined) return verdictOf(winner, destination);
  if (near === undefined) return nothingAllows(destination);
  return denied(MISS_RULES[near.miss], whyMissed(near.compiled, near.miss, request));
}

/**
 * Decides the address that a host was resolved to. What is not public, and what is an address of the machine that the guard
 * runs on, needs a CIDR of the rule. Metadata services need a CIDR of that one address: whoever opens 100.64.0.0/10 or
 * 0.0.0.0/0 does not mean to hand out the credentials of the machine.
 */
export function decideAddress(
  compiled: CompiledRule | undefined,
  address: Address,
  hostAddresses: readonly Address[],
): { ok: true } | { ok: false; reason: string } {
  const kind = classOf(address);
  const own = [address, ...embeddedAddresses(address)].some(({ text }) =>
    hostAddresses.some((one) => one.text === text),
  );
  if (kind === "Public" && !own) return { ok: true };
  const bitsMin = kind === "Metadata" ? address.bytes.length * 8 : 0;
  const opened = compiled?.cidrs.some((cidr) => cidr.bits >= bitsMin && cidrContains(cidr, address)) === true;
  if (opened) return { ok: true };
  const what = kind === "Public" ? "an address of the machine that the guard runs on" : `an address of class ${kind}`;
  const missing = kind === "Metadata" ? `${address.text}/${bitsMin}` : "it";
  const rule = compiled === undefined ? "no rule" : `rule ${quoted(compiled.rule.name)} has no cidr that`;
  return { ok: false, reason: `${address.text} is ${what}, and ${rule} opens ${missing}` };
}

/** Why this rule does not match; one line. */
export function whyMissed(compiled: CompiledRule, miss: Miss, request: RequestFacts): string {
  const { rule } = compiled;
  const name = `rule ${quoted(rule.name)}`;
  switch (miss) {
    case "host":
      return `${name} is for host ${rule.host}`;
    case "port":
      return `${name} is for ${rule.host} on port ${rule.ports.join(", ")}, not ${request.destination.port}`;
    case "protocol":
      return `${name} is for protocol ${rule.protocol}, not ${request.protocol}`;
    case "method":
      return `${name} is for the methods ${rule.methods?.join(", ")}, not ${request.method}`;
    case "path":
      return `${name} is for the paths ${pathsOf(rule)}, not ${request.path === undefined ? "an ambiguous one" : "this one"}`;
    case "webSocket":
      return `${name} does not say webSocket: Allow`;
    default:
      return unreachable(miss);
  }
}

/** The verdict of a rule that decides; its own reason, where its author gave one. */
export function verdictOf(matched: CompiledRule, destination: Destination): Verdict {
  const { action, name, reason } = matched.rule;
  return { action, rule: name, reason: oneLine(reason ?? "") || defaultReason(matched.rule, destination), matched };
}

export function nothingAllows(destination: Destination): Verdict {
  return denied("default-deny", `no egress rule allows ${authorityOf(destination)}`);
}

export function denied(rule: BuiltInRule, reason: string): Verdict {
  return { action: "Deny", rule, reason };
}

/** The rule whose action is the stronger one; of equals the first, which is the earlier one where rules come in the order of the policy. */
export function stronger(a: CompiledRule | undefined, b: CompiledRule): CompiledRule {
  if (a === undefined) return b;
  return RANK[b.rule.action] > RANK[a.rule.action] ? b : a;
}

/** Also a Deny of a whole destination: what is refused then can be said inside TLS. */
function readsRequests({ rule }: CompiledRule): boolean {
  return rule.protocol === "HTTPS" || rule.protocol === "HTTP";
}

function defaultReason({ action, name }: GuardRule, destination: Destination): string {
  const verb = { Allow: "allows", RequireApproval: "needs an approval for", Deny: "denies" }[action];
  return `rule ${quoted(name)} ${verb} ${authorityOf(destination)}`;
}

function pathsOf({ paths = [] }: GuardRule): string {
  const shown = paths.slice(0, PATHS_SHOWN_MAX).map(({ type, value }) => `${quoted(value)} (${type})`);
  return [...shown, ...(paths.length > PATHS_SHOWN_MAX ? [`${paths.length - PATHS_SHOWN_MAX} more`] : [])].join(", ");
}
