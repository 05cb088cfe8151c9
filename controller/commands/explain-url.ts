import type { Resolution } from "../plan/resolve.ts";
import {
  compilePolicy,
  decideAddress,
  explain,
  type ExplainedFacts,
  type ExplainedStep,
  type Verdict,
} from "../policy/matcher.ts";
import { parseHost, type Destination } from "../policy/destination.ts";
import { normalizePath } from "../policy/path.ts";
import type { EgressProtocol } from "../ports/guard.ts";
import { CommandError, EXIT } from "./exit.ts";

/** What the guard would say to one request, and why. */
export interface UrlExplanation {
  request: { protocol: EgressProtocol; host: string; port: number; method: string; path: string; webSocket: boolean };
  verdict: Pick<Verdict, "action" | "rule" | "reason">;
  /** Names of headers that the guard would set. */
  injected: string[];
  rules: ExplainedStep[];
}

/** `port` absent: it must be written. */
const SCHEMES: Readonly<Record<string, { protocol: EgressProtocol; port?: number; webSocket?: true }>> = {
  https: { protocol: "HTTPS", port: 443 },
  http: { protocol: "HTTP", port: 80 },
  wss: { protocol: "HTTPS", port: 443, webSocket: true },
  ws: { protocol: "HTTP", port: 80, webSocket: true },
  tls: { protocol: "TLS", port: 443 },
  tcp: { protocol: "TCP" },
};

/** Decides as the guard does, with the same functions. What cannot be asked at all is wrong usage. */
export function explainUrl(
  resolution: Resolution,
  asked: { url: string; method: string; webSocket: boolean },
): UrlExplanation {
  const facts = factsOf(asked);
  const { destination, protocol, method, webSocket, target } = facts;
  const normalized = normalizePath(target);
  const path = normalized.ok ? normalized.path : target;
  const request = { protocol, host: destination.host, port: destination.port, method, path, webSocket };
  const refused = (rule: string, reason: string): UrlExplanation => ({
    request,
    verdict: { action: "Deny", rule, reason },
    injected: [],
    rules: [],
  });
  if (!resolution.ok) return refused("closed", resolution.message);
  const compiled = compilePolicy(resolution.egress.policy);
  if (!compiled.ok) return refused("closed", compiled.message);
  if (!normalized.ok && !normalized.ambiguous) return refused("bad-request", normalized.reason);
  const explained = explain(compiled.policy, {
    destination,
    protocol,
    method,
    webSocket,
    path: normalized.ok ? normalized.path : undefined,
  } satisfies ExplainedFacts);
  const { action, rule, reason, matched } = addressed(explained.verdict, destination);
  return {
    request,
    verdict: { action, rule, reason },
    injected: action === "Deny" ? [] : (matched?.rule.inject ?? []).map(({ header }) => header),
    rules: explained.steps,
  };
}

/** An address that is written down can be decided now; what a name leads to is known only when it is dialled. */
function addressed(verdict: Verdict, { address }: Destination): Verdict {
  if (address === undefined || verdict.action === "Deny") return verdict;
  const decided = decideAddress(verdict.matched, address, []);
  return decided.ok ? verdict : { action: "Deny", rule: "address-refused", reason: decided.reason };
}

function factsOf(asked: { url: string; method: string; webSocket: boolean }) {
  const parts = /^(?:([A-Za-z]+):\/\/)?([^/?#]*)([^#]*)/.exec(asked.url);
  const scheme = (parts?.[1] ?? "https").toLowerCase();
  const known = Object.hasOwn(SCHEMES, scheme) ? SCHEMES[scheme] : undefined;
  if (known === undefined) {
    throw usage(asked.url, `the scheme "${scheme}" is none of ${Object.keys(SCHEMES).join(", ")}`);
  }
  const authority = parts?.[2] ?? "";
  if (known.port === undefined && !/:[0-9]+$/.test(authority)) throw usage(asked.url, "it needs a port");
  const parsed = parseHost(authority, known.port ?? 0);
  if (!parsed.ok) throw usage(asked.url, parsed.reason);
  const rest = parts?.[3] ?? "";
  const target = rest.startsWith("/") ? rest : `/${rest}`;
  const { protocol } = known;
  const webSocket = asked.webSocket || known.webSocket === true;
  return { destination: parsed.destination, protocol, method: asked.method, webSocket, target };
}

function usage(url: string, why: string): CommandError {
  return new CommandError(
    EXIT.usage,
    `"${url}" is not a URL that a bottle can ask for: ${why}: write one like https://host/path`,
  );
}
