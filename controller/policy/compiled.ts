import type { GuardRule } from "../ports/guard.ts";
import type { Cidr } from "./address.ts";
import type { Destination } from "./destination.ts";

/** A rule of the policy, with what is looked up at every request worked out once. */
export interface CompiledRule {
  readonly rule: GuardRule;
  /** Place in the policy: among equals the first rule gives its name. */
  readonly index: number;
  readonly ports: ReadonlySet<number>;
  /** Absent: all. */
  readonly methods?: ReadonlySet<string>;
  /** Absent: all. */
  readonly matchesPath?: (path: string) => boolean;
  readonly cidrs: readonly Cidr[];
}

/** A policy in the form in which it decides. */
export interface CompiledPolicy {
  readonly rules: readonly CompiledRule[];
  readonly byHost: ReadonlyMap<string, readonly CompiledRule[]>;
  /** Rules for `*.parent`, by parent. */
  readonly byParent: ReadonlyMap<string, readonly CompiledRule[]>;
}

/** A request as rules see it. */
export interface RequestFacts {
  destination: Destination;
  protocol: "HTTPS" | "HTTP";
  method: string;
  /**
   * As `normalizePath` gives it. Undefined: the path is ambiguous. Then a rule with paths never allows, and a Deny or
   * RequireApproval with paths counts as matching.
   */
  path: string | undefined;
  webSocket: boolean;
}

/** The first thing of a rule that does not fit a request, in the order in which they are compared. */
export type Miss = "host" | "port" | "protocol" | "method" | "path" | "webSocket";

/** Rules that name this host, on whatever port, in the order of the policy. `*.x` names hosts with exactly one more label, never an IP address. */
export function rulesOfHost(policy: CompiledPolicy, destination: Destination): readonly CompiledRule[] {
  const exact = policy.byHost.get(destination.host);
  // What stands behind the first dot of an IP address is no canonical host, so no rule has it as parent.
  const dot = destination.host.indexOf(".");
  const wild = dot === -1 ? undefined : policy.byParent.get(destination.host.slice(dot + 1));
  if (exact === undefined || wild === undefined) return exact ?? wild ?? [];
  return [...exact, ...wild].sort((a, b) => a.index - b.index);
}

/** A Deny without methods and paths closes its host and port to everything, in whatever protocol. */
export function closesDestination({ rule }: CompiledRule): boolean {
  return rule.action === "Deny" && rule.methods === undefined && rule.paths === undefined;
}

/** What of a rule that names the host does not fit the request; undefined: it matches. */
export function missOf(compiled: CompiledRule, request: RequestFacts): Exclude<Miss, "host"> | undefined {
  const { rule } = compiled;
  if (!compiled.ports.has(request.destination.port)) return "port";
  if (closesDestination(compiled)) return undefined;
  if (rule.protocol !== request.protocol) return "protocol";
  if (compiled.methods?.has(request.method) === false) return "method";
  if (!pathFits(compiled, request.path)) return "path";
  // A Deny means every request, also one that wants to become a WebSocket.
  return request.webSocket && !rule.webSocket && rule.action !== "Deny" ? "webSocket" : undefined;
}

function pathFits(compiled: CompiledRule, path: string | undefined): boolean {
  if (compiled.matchesPath === undefined) return true;
  return path === undefined ? compiled.rule.action !== "Allow" : compiled.matchesPath(path);
}
