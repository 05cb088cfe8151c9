import { parseAddress } from "../../../controller/policy/address.ts";
import { scanHost, scanTexts } from "../../../controller/policy/dlp/index.ts";
import { authorityOf } from "../../../controller/policy/destination.ts";
import { decideAddress, decideRequest, type CompiledRule, type Verdict } from "../../../controller/policy/matcher.ts";
import { normalizePath } from "../../../controller/policy/path.ts";
import type { GuardRule } from "../../../controller/ports/guard.ts";
import type { ActiveSettings } from "../settings.ts";
import { pathOf } from "./audit-entry.ts";
import type { Incoming, RequestContext } from "./egress.ts";
import type { Exchange } from "./exchange.ts";
import { whyShut } from "./gate.ts";
import { hasMethodOverride, headBytes, requestHeaders } from "./headers.ts";
import { readRequestHead, type RequestHead } from "./request-head.ts";
import { refused, type Refused } from "./respond.ts";

/** A request that may go out as it is written here, once its body was looked into. */
export interface Admitted {
  settings: ActiveSettings;
  matched: CompiledRule;
  method: string;
  /** Path and query. */
  path: string;
  /** With the credentials of the rule in place. */
  headers: string[];
  /** Ids of what must not go to this destination in a body either: placeholders are worth nothing upstream. */
  isRefused(finding: string): boolean;
}

export type Decision = { ok: true; admitted: Admitted } | { ok: false; refused: Refused };

interface Question {
  context: RequestContext;
  settings: ActiveSettings;
  head: RequestHead;
  /** As rules compare it; absent if servers may read the target differently, which no rule with paths allows. */
  path: string | undefined;
  webSocket: boolean;
}

/**
 * Everything that is decided on the head of a request, in the order of threats: is the guard shut, is it clear what is asked, does a rule allow
 * it, does it carry what must not leave. Credentials come last. Nothing was resolved or dialled so far.
 */
export function decide(
  { context, exchange }: { context: RequestContext; exchange: Exchange },
  request: Incoming,
  { target, webSocket }: { target: string; webSocket: boolean },
): Decision {
  const { egress } = context;
  const settings = egress.settings.current();
  if (settings === undefined) return no("not-configured", "this bottle's guard has not been configured yet");
  const shut = whyShut(egress, settings);
  if (shut !== undefined) return { ok: false, refused: shut };
  const read = readRequestHead(context, request, target);
  if (!read.ok) return read;
  const path = readPath(read.head);
  if (!path.ok) return path;
  exchange.entry.path = path.compared ?? pathOf(target);
  const question: Question = { context, settings, head: read.head, path: path.compared, webSocket };
  const verdict = judge(question, settings);
  const { matched } = verdict;
  if (verdict.action !== "Allow" || matched === undefined) return refusedBy(question, verdict);
  const { rule } = matched;
  if (rule.methods !== undefined && hasMethodOverride(read.head.headers)) {
    const reason = `rule "${rule.name}" allows methods, and a header of the request asks for another one`;
    return { ok: false, refused: refused("method-refused", reason, { remedy: "LeaveHeaderOut" }) };
  }
  const checked = inspect(question, exchange, { matched, path: path.sent });
  if (!checked.ok) return checked;
  if (!egress.budget.take(settings, context.destination.host, exchange.entry.bytesUp))
    return no("budget", BUDGET_SPENT);
  exchange.allow(rule.name, verdict.reason, (other) => whyNot(question, other, exchange.entry.address));
  return checked;
}

export const BUDGET_SPENT = "this bottle has sent as many bytes as its budget allows";

function no(rule: string, reason: string): { ok: false; refused: Refused } {
  return { ok: false, refused: refused(rule, reason) };
}

/** What is decided is what is sent; an ambiguous target goes as it was written, where a rule without paths allows it. */
function readPath({
  target,
}: RequestHead): { ok: true; sent: string; compared: string | undefined } | { ok: false; refused: Refused } {
  const path = normalizePath(target);
  if (path.ok) return { ok: true, sent: path.path + path.query, compared: path.path };
  if (path.ambiguous) return { ok: true, sent: target, compared: undefined };
  return no("bad-request", path.reason);
}

function judge({ context, head, path, webSocket }: Question, settings: ActiveSettings): Verdict {
  const { destination, protocol } = context;
  return decideRequest(settings.policy, { destination, protocol, method: head.method, path, webSocket });
}

/** For what runs already, under settings that came later. */
function whyNot(question: Question, settings: ActiveSettings, address: string | undefined): string | undefined {
  if (settings.closed !== undefined) return settings.closed.message;
  const verdict = judge(question, settings);
  return verdict.action === "Allow" ? whyNotAddress(verdict.matched, address) : verdict.reason;
}

/** The address that a host led to when it was dialled, under a rule that came later. Which addresses are the guard's own never changes. */
export function whyNotAddress(matched: CompiledRule | undefined, text: string | undefined): string | undefined {
  const address = text === undefined ? undefined : parseAddress(text);
  if (address === undefined) return undefined;
  const decided = decideAddress(matched, address, []);
  return decided.ok ? undefined : decided.reason;
}

function refusedBy({ context, head }: Question, verdict: Verdict): { ok: false; refused: Refused } {
  const { action, rule, reason } = verdict;
  if (action !== "RequireApproval") return no(rule, reason);
  const asked = `${rule} ${head.method} ${context.protocol} ${authorityOf(context.destination)} ${pathOf(head.target)}`;
  return { ok: false, refused: refused(rule, reason, { ticket: context.egress.tickets.of(asked) }) };
}

/** Scans what would leave, and of what is kept back only whether it holds a placeholder of elsewhere: that is an attempt, though a vain one. */
function inspect(
  { context, settings, head }: Question,
  { entry }: Exchange,
  { matched, path }: { matched: CompiledRule; path: string },
): Decision {
  const { destination, egress } = context;
  const { rule } = matched;
  const injection = egress.injections.of(settings, rule);
  if (!injection.ok) return no(injection.rule, injection.reason);
  const isBound = egress.injections.isBound(settings, destination);
  const { kept, stripped } = requestHeaders(head.headers, egress.injections.isStripped(rule, isBound));
  entry.bytesUp = headBytes(head.method, path, kept);
  const foreign = (finding: string): boolean => isPlaceholder(finding) && !injection.placeholders.has(finding);
  const found = [...scanTexts(settings.dlp, [path, ...kept]), ...hostFindings(settings, rule, destination.host)];
  entry.isClean = found.length === 0;
  const findings = [
    ...found.filter((finding) => settings.source.dlp !== "Off" || isPlaceholder(finding)),
    ...(stripped.length === 0 ? [] : scanTexts(settings.dlp, stripped).filter(foreign)),
  ];
  entry.dlp = [...new Set(findings)];
  const isRefused = (finding: string): boolean => settings.source.dlp === "Block" || isPlaceholder(finding);
  const suspects = entry.dlp.filter(isRefused);
  const isLetIn = suspects.length > 0 && injection.names.length === 0;
  const bad = isLetIn ? suspects.filter(isOutsideAuthorization(settings, [path, ...kept])) : suspects;
  if (bad.length > 0) return no("dlp", dlpReason(bad));
  if (injection.names.length > 0) {
    // What is scrubbed out of the answer must be readable there.
    dropHeader(kept, "accept-encoding");
    kept.push("accept-encoding", "identity", ...injection.headers);
    entry.injected = injection.names;
  }
  return { ok: true, admitted: { settings, matched, method: head.method, path, headers: kept, isRefused } };
}

/** The name of a host holds something of the agent's only where a rule leaves a label open. */
export function hostFindings({ dlp }: ActiveSettings, rule: GuardRule, host: string): string[] {
  return rule.host.startsWith("*.") ? scanHost(dlp, host) : [];
}

/**
 * A JSON web token in `Authorization` is one that the agent was given by the host it goes to: registries of containers hand them to anybody. No other
 * token shape is let through: an agent holds none.
 */
function isOutsideAuthorization({ dlp }: ActiveSettings, [path, ...headers]: string[]): (finding: string) => boolean {
  const others = headers.filter((_, at) => at % 2 === 0 || headers[at - 1]?.toLowerCase() !== "authorization");
  const outside = new Set(scanTexts(dlp, [path ?? "", ...others]));
  return (finding) => finding !== "pattern:jwt" || outside.has(finding);
}

export function isPlaceholder(finding: string): boolean {
  return finding.startsWith("placeholder:");
}

export function dlpReason(findings: readonly string[]): string {
  return `the request carries what must not leave: ${findings.join(", ")}`;
}

function dropHeader(headers: string[], name: string): void {
  for (let at = headers.length - 2; at >= 0; at -= 2) {
    if (headers[at]?.toLowerCase() === name) headers.splice(at, 2);
  }
}
