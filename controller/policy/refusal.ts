import type { BuiltInRule } from "./built-in-rules.ts";
import type { Destination } from "./destination.ts";
import { oneLine } from "./text.ts";

/** The body of every refusal. An agent reads it to learn what was refused, why, and how to ask for it. */
export interface Refusal {
  rule: string;
  /** Empty: it could not be read. */
  host: string;
  port: number | null;
  method: string;
  /** Without its query, which may hold a secret. */
  path: string;
  reason: string;
  howToAsk: string;
  /** Of the question that a person was asked; the same request may be sent again once it is answered. */
  ticket?: string;
}

export interface RefusedRequest {
  rule: string;
  destination?: Pick<Destination, "host" | "port">;
  method: string;
  path: string;
  reason: string;
  ticket?: string;
  /** Where the rule alone does not tell what can be done. */
  remedy?: Remedy;
}

const FIELD_LENGTH_MAX = 1024;
const PERSON = "ask the person who runs this bottle";

/** What an agent can do about a refusal, or whom it can ask. */
const REMEDIES = {
  AddRule: `${PERSON} to add an egress rule for this host, port, method and path to its template`,
  ChangeRule: `${PERSON} to change the egress rule of this name in its template, if the request is meant`,
  AllowWebSocket: `${PERSON} to write webSocket: Allow into the egress rule for this host`,
  AllowAddress: `${PERSON} to add the address to the cidrs of the egress rule, if it is meant`,
  AllowBudget: `${PERSON} for a larger egress budget`,
  Open: `${PERSON}: all of its egress is closed, for the reason given`,
  TellPerson: "nothing to ask the guard for: tell the person who runs this bottle what the reason says",
  Wait: "nothing to ask for: try again in a moment, and tell the person who runs this bottle if it stays so",
  WaitForRequests: "nothing to ask for: wait until one of the requests in flight has ended, then send this one again",
  ChangeRequest: "nothing to ask for: the same request is always refused, send it in another form",
  LeaveHeaderOut: "send the request without the header that asks for another method",
  LeaveSecretOut: `leave the secret out of the request: credentials are added on the way, where a rule says so; if it is none, ${PERSON}`,
  UseToken: "use the proxy address of the environment variable HTTPS_PROXY as it is, with its user name and password",
  SendReadable: "send the body without compression or in gzip, or ask for uninspected: Allow in the egress rule",
  AskForReadable:
    "nothing to ask the guard for: the host compressed its answer though it was asked not to; ask it for another form of the same, such as a path or a parameter without compression",
} as const;
export type Remedy = keyof typeof REMEDIES;

const REMEDY_OF: Readonly<Record<BuiltInRule, Remedy>> = {
  "default-deny": "AddRule",
  "method-refused": "AddRule",
  "path-refused": "AddRule",
  "websocket-refused": "AllowWebSocket",
  "not-configured": "Wait",
  closed: "Open",
  "bad-request": "ChangeRequest",
  unauthorized: "UseToken",
  "authority-mismatch": "ChangeRequest",
  "address-refused": "AllowAddress",
  "resolve-failed": "Wait",
  "upstream-failed": "Wait",
  "tls-refused": "TellPerson",
  dlp: "LeaveSecretOut",
  uninspectable: "SendReadable",
  budget: "AllowBudget",
  overloaded: "WaitForRequests",
  "audit-unavailable": "Wait",
  narrowed: "AddRule",
};

/** Fills in the body of a refusal: every field one line, and cut to a length that is safe to send back and to log. */
export function refusalBody(request: RefusedRequest): Refusal {
  const { rule, destination, method, path, reason, ticket, remedy = remedyOf(rule) } = request;
  return {
    rule: field(rule),
    host: field(destination?.host ?? ""),
    port: destination?.port ?? null,
    method: field(method),
    path: field(path.split(/[?#]/, 1)[0] ?? ""),
    reason: field(reason),
    howToAsk:
      ticket === undefined
        ? REMEDIES[remedy]
        : `wait until ticket ${field(ticket)} is answered, then send the request again`,
    ...(ticket === undefined ? {} : { ticket: field(ticket) }),
  };
}

/** A rule that is none of the guard's own is one of a template that says no. */
function remedyOf(rule: string): Remedy {
  return Object.hasOwn(REMEDY_OF, rule) ? REMEDY_OF[rule as BuiltInRule] : "ChangeRule";
}

function field(text: string): string {
  return oneLine(text.slice(0, FIELD_LENGTH_MAX));
}
