import type { ReservedRuleName } from "../api/egress.ts";

/**
 * What a guard refuses by without any rule of the policy: the names stand where the name of a rule stands, in refusals and in
 * the audit; the texts say what each means.
 */
export const BUILT_IN_RULES = {
  "default-deny": "No rule of the bottle's policy allows this host and port.",
  "method-refused":
    "A rule names this host and port, but not this method; or the method is never allowed through a proxy.",
  "path-refused": "A rule names this host and port, but not this path.",
  "websocket-refused": "A rule names this request, but does not let it become a WebSocket.",
  "not-configured": "The guard has not been told its policy yet.",
  closed: "All egress of this bottle is closed.",
  "bad-request": "The request cannot be understood in one way only, so it is not passed on.",
  unauthorized: "The request does not carry the token of this bottle's guard.",
  "authority-mismatch": "The host of the request, the server name of TLS and the host of the tunnel are not the same.",
  "address-refused": "The host leads to an address that its rule does not open.",
  "resolve-failed": "The host has no address, or its name server does not answer.",
  "upstream-failed": "The connection to the host failed, or its certificate is not valid.",
  "tls-refused": "What came through the tunnel is not the TLS that its rule asks for.",
  dlp: "The request carries a secret, a placeholder or something that looks like a token.",
  uninspectable: "The body of the request, or of an answer that may show a credential, cannot be looked into.",
  budget: "The bottle has sent as many bytes as its policy lets out.",
  overloaded: "More requests of this bottle are in flight than its guard serves at one time.",
  "audit-unavailable": "The guard cannot write its audit, and without an audit nothing leaves.",
  narrowed: "The policy changed and no longer allows what was open.",
} as const satisfies Readonly<Record<ReservedRuleName, string>>;

export type BuiltInRule = ReservedRuleName;
