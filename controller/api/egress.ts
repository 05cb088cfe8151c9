import { z } from "zod";
import { isGuardEnv } from "./guard-env.ts";
import { atomicList, boundedString, dnsLabel, mapList, privateText, withRules, withWords } from "./schema.ts";

/** Methods a rule may name. TRACE and CONNECT lead around a proxy and are never allowed inside it. */
export const METHODS = [
  "GET",
  "HEAD",
  "POST",
  "PUT",
  "PATCH",
  "DELETE",
  "OPTIONS",
  "PROPFIND",
  "REPORT",
  "MKCOL",
] as const;

/** Rules that every guard has. They stand where the name of a rule stands, so no rule of a template may have their names. */
export const RESERVED_RULE_NAMES = [
  "default-deny",
  "method-refused",
  "path-refused",
  "websocket-refused",
  "not-configured",
  "closed",
  "bad-request",
  "unauthorized",
  "authority-mismatch",
  "address-refused",
  "resolve-failed",
  "upstream-failed",
  "tls-refused",
  "dlp",
  "uninspectable",
  "budget",
  "overloaded",
  "audit-unavailable",
  "narrowed",
] as const;
export type ReservedRuleName = (typeof RESERVED_RULE_NAMES)[number];

/** 0 to 255 without leading zeros, which some programs read as octal. */
const OCTET = "(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])";
const IPV4 = `${OCTET}(\\.${OCTET}){3}`;
const IPV6 = "[0-9a-f:.]*:[0-9a-f:.]*";
const NAME = "(\\*\\.)?([a-z0-9_]([-a-z0-9_]{0,61}[a-z0-9_])?\\.)*[a-z]([-a-z0-9]{0,61}[a-z0-9])?";

/** Labels of at most 63 characters; the last one is not a number, so that no IP address slips in unseen. Lower case: one host, one spelling. */
const hostPattern = withWords(
  boundedString(253)
    .min(1)
    .regex(new RegExp(`^(${NAME}|${IPV4}|${IPV6})$`)),
  { form: "a lower-case host name such as api.example.com, *.example.com for one more label, or an IP address" },
);

const cidr = withWords(
  boundedString(64)
    .min(1)
    .regex(new RegExp(`^(${IPV4}/(3[0-2]|[12]?[0-9])|${IPV6}/(12[0-8]|1[01][0-9]|[1-9]?[0-9]))$`)),
  { form: "a network such as 10.0.0.0/8 or fd00::/8" },
);

const headerName = withWords(
  boundedString(128)
    .min(1)
    .regex(/^[A-Za-z0-9][A-Za-z0-9_-]*$/),
  { form: "a header name such as Authorization" },
);

const path = withRules(
  z.strictObject({
    type: z
      .enum(["Exact", "Prefix", "Regex"])
      .describe("How value is compared with the path of a request, without its query."),
    value: boundedString(1024)
      .min(1)
      .describe("Prefix ends at a slash or the end of the path: /v1 allows /v1 and /v1/x, not /v10."),
  }),
  {
    rule: "self.type == 'Regex' || self.value.startsWith('/')",
    message: "must begin with a slash",
    fieldPath: ".value",
  },
);

const envName = withWords(
  boundedString(128)
    .min(1)
    .regex(/^[A-Za-z_][A-Za-z0-9_]*$/),
  { form: "letters, digits and '_', not starting with a digit" },
);

const injection = withRules(
  z.strictObject({
    header: headerName.describe(
      "Set on every request that the rule allows; what the agent sent under this name is dropped.",
    ),
    valueTemplate: privateText(1024)
      .min(1)
      .optional()
      .describe(
        "Holds {value} for the secret, or {base64:TEXT} for the base64 form of TEXT and the secret. Absent: {value}.",
      ),
    secretRef: z
      .strictObject({ name: dnsLabel, key: boundedString(253).min(1) })
      .describe("A Secret of the bottle's namespace and a key in it."),
    placeholderEnv: envName
      .optional()
      .describe("A variable that holds a placeholder in the agent's environment, for programs that want a key."),
  }),
  {
    rule: "!has(self.valueTemplate) || self.valueTemplate.contains('{value}') || self.valueTemplate.contains('{base64:')",
    message: "must hold {value} or {base64:TEXT}, where the secret goes",
    fieldPath: ".valueTemplate",
  },
  {
    rule: "!(self.header.lowerAscii() in ['host', 'connection', 'content-length', 'transfer-encoding', 'upgrade', 'te', 'trailer', 'proxy-authorization', 'proxy-connection', 'keep-alive'])",
    message: "belongs to the connection and cannot be injected: choose a header of the request such as Authorization",
    reason: "FieldValueForbidden",
    fieldPath: ".header",
  },
  {
    rule: `!has(self.placeholderEnv) || !(self.placeholderEnv.startsWith('BOT_BOTTLE_') || ${isGuardEnv("self.placeholderEnv")})`,
    message: "is set by the controller: choose the variable that the program reads its key from",
    reason: "FieldValueForbidden",
    fieldPath: ".placeholderEnv",
  },
);

const READS_REQUESTS = "(!has(self.protocol) || self.protocol in ['HTTPS', 'HTTP'])";

const egressRule = withRules(
  z.strictObject({
    name: dnsLabel.describe(
      "Names the rule in refusals and in the audit; a later template replaces a rule of the same name.",
    ),
    host: hostPattern.describe("A host name, *.name for exactly one more label, or an IP address."),
    ports: atomicList(z.int().min(1).max(65_535), 16).min(1).optional().describe("Absent: 443, or 80 for HTTP."),
    protocol: z
      .enum(["HTTPS", "HTTP", "TLS", "TCP"])
      .optional()
      .describe(
        "HTTPS (absent): requests are read. HTTP: without TLS. TLS: passed on unread, for clients that pin. TCP: any bytes.",
      ),
    methods: atomicList(z.enum(METHODS), METHODS.length).min(1).optional().describe("Absent: all of them."),
    paths: atomicList(path, 64).min(1).optional().describe("Absent: all of them."),
    action: z
      .enum(["Allow", "RequireApproval", "Deny"])
      .describe("Deny wins over RequireApproval, and that over Allow, whatever their order."),
    reason: boundedString(512).optional().describe("Told to the agent when the rule refuses."),
    cidrs: atomicList(cidr, 16)
      .optional()
      .describe("Addresses that are not public and that this host may have all the same."),
    webSocket: z
      .enum(["Allow", "Deny"])
      .optional()
      .describe("Absent: Deny. What passes through a WebSocket is counted, not read."),
    uninspected: z
      .enum(["Refuse", "Allow"])
      .optional()
      .describe("What becomes of a request body that cannot be looked into (an unknown encoding). Absent: Refuse."),
    inject: mapList(injection, ["header"], 8)
      .optional()
      .describe("Credentials that the guard adds and the agent never sees."),
  }),
  {
    rule: `!(self.name in [${RESERVED_RULE_NAMES.map((name) => `'${name}'`).join(", ")}])`,
    message: "is a rule of the guard's own: choose another name",
    reason: "FieldValueForbidden",
    fieldPath: ".name",
  },
  {
    rule: "!has(self.protocol) || self.protocol != 'TCP' || has(self.ports)",
    message: "ports are required with protocol TCP",
    reason: "FieldValueRequired",
    fieldPath: ".ports",
  },
  {
    rule: `${READS_REQUESTS} || (!has(self.methods) && !has(self.paths) && !has(self.webSocket) && !has(self.uninspected))`,
    message:
      "methods, paths, webSocket and uninspected need a protocol whose requests are read: write HTTPS or HTTP, or remove them",
    reason: "FieldValueForbidden",
    fieldPath: ".protocol",
  },
  {
    rule: "!has(self.inject) || ((!has(self.protocol) || self.protocol == 'HTTPS') && self.action != 'Deny')",
    message: "inject needs protocol HTTPS and an action that allows: a credential leaves through verified TLS only",
    reason: "FieldValueForbidden",
    fieldPath: ".inject",
  },
  {
    rule: "!has(self.inject) || self.inject.all(a, !self.inject.exists(b, a.header != b.header && a.header.lowerAscii() == b.header.lowerAscii()))",
    message:
      "names one header in two spellings: names of headers are the same in upper and lower case, so write it once",
    fieldPath: ".inject",
  },
);
export type EgressRule = z.infer<typeof egressRule>;

/** What may leave a bottle. Without a rule nothing does. */
export const egress = z.strictObject({
  rules: mapList(egressRule, ["name"], 128).optional().describe("Merged by name."),
  dlp: z
    .strictObject({
      mode: z
        .enum(["Off", "Audit", "Block"])
        .optional()
        .describe(
          "What happens to a request that carries a secret or something that looks like a token. Absent: Block.",
        ),
    })
    .optional()
    .describe("The scan of what leaves."),
  audit: z
    .enum(["Blocks", "Full"])
    .optional()
    .describe("Blocks: only what was not allowed gets a line and is counted. Absent: Full."),
  budget: z
    .strictObject({
      uploadMiB: z
        .int()
        .min(1)
        .max(1_048_576)
        .optional()
        .describe("Bytes that may leave after each start of the guard."),
      uploadMiBPerHost: z.int().min(1).max(1_048_576).optional().describe("The same for each host."),
    })
    .optional()
    .describe("How much may leave; merged field by field. Absent: no bound."),
});
export type Egress = z.infer<typeof egress>;
