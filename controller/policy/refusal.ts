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
  destination?: Destination;
  method: string;
  path: string;
  reason: string;
  ticket?: string;
}

const FIELD_LENGTH_MAX = 1024;
const ASK_FOR_A_RULE =
  "ask the person who runs this bottle to add an egress rule for this host, port, method and path to its template";
const WAIT = "nothing to ask for: try again in a moment, and tell the person who runs this bottle if it stays so";
const CHANGE_THE_REQUEST = "nothing to ask for: the same request is always refused, send it in another form";

/** Refusals that a rule would not change say something else than "ask for a rule". */
const HOW_TO_ASK: Readonly<Record<string, string>> = {
  "not-configured": WAIT,
  "resolve-failed": WAIT,
  "upstream-failed": WAIT,
  "audit-unavailable": WAIT,
  closed: "ask the person who runs this bottle: all of its egress is closed, for the reason given",
  unauthorized:
    "use the proxy address of the environment variable HTTPS_PROXY as it is, with its user name and password",
  "bad-request": CHANGE_THE_REQUEST,
  "authority-mismatch": CHANGE_THE_REQUEST,
  "address-refused":
    "ask the person who runs this bottle to add the address to the cidrs of the egress rule, if it is meant",
  "tls-refused": "ask the person who runs this bottle to change the protocol of the egress rule for this host",
  dlp: "leave the secret out of the request: credentials are added on the way, where a rule says so",
  uninspectable: "send the body without compression or in gzip, or ask for uninspected: Allow in the egress rule",
  budget: "ask the person who runs this bottle for a larger egress budget",
};

/** Fills in the body of a refusal: every field one line, and cut to a length that is safe to send back and to log. */
export function refusalBody(request: RefusedRequest): Refusal {
  const { rule, destination, method, path, reason, ticket } = request;
  return {
    rule: field(rule),
    host: field(destination?.host ?? ""),
    port: destination?.port ?? null,
    method: field(method),
    path: field(path.split(/[?#]/, 1)[0] ?? ""),
    reason: field(reason),
    howToAsk:
      ticket === undefined
        ? howToAsk(rule)
        : `wait until ticket ${field(ticket)} is answered, then send the request again`,
    ...(ticket === undefined ? {} : { ticket: field(ticket) }),
  };
}

function howToAsk(rule: string): string {
  return (Object.hasOwn(HOW_TO_ASK, rule) ? HOW_TO_ASK[rule] : undefined) ?? ASK_FOR_A_RULE;
}

function field(text: string): string {
  return oneLine(text.slice(0, FIELD_LENGTH_MAX));
}
