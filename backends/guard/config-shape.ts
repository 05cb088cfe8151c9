import type {
  AuditRequest,
  GuardConfig,
  GuardInjection,
  GuardPath,
  GuardPolicy,
  GuardRule,
} from "../../controller/ports/guard.ts";

/** Says what is wrong with a value, by the path to it and never by what stands there; `undefined` if nothing is. */
type Check = (value: unknown, at: string) => string | undefined;
/** One check for each field that the type has: a field added to a type and forgotten here does not compile. */
type Fields<T> = { [Name in keyof T]-?: Check };

/**
 * A guard may be older than the controller that configures it. What it does not know it must not skip: a field that it ignored could be
 * the one that narrows a rule.
 */
export function wrongInConfig(value: unknown): string | undefined {
  return object(CONFIG)(value, "config");
}

export function wrongInAuditRequest(value: unknown): string | undefined {
  return object(AUDIT_REQUEST)(value, "request");
}

const INJECTION: Fields<GuardInjection> = { header: text, valueTemplate: text, secret: text };
const PATH: Fields<GuardPath> = { type: oneOf("Exact", "Prefix", "Regex"), value: text };
const RULE: Fields<GuardRule> = {
  name: text,
  host: text,
  ports: list(count),
  protocol: oneOf("HTTPS", "HTTP", "TLS", "TCP"),
  methods: optional(list(text)),
  paths: optional(list(object(PATH))),
  action: oneOf("Allow", "RequireApproval", "Deny"),
  reason: optional(text),
  cidrs: list(text),
  webSocket: truth,
  uninspected: oneOf("Refuse", "Allow"),
  inject: list(object(INJECTION)),
};
const BUDGET: Fields<GuardPolicy["budget"]> = { uploadBytes: optional(count), uploadBytesPerHost: optional(count) };
const POLICY: Fields<GuardPolicy> = {
  rules: list(object(RULE)),
  dlp: oneOf("Off", "Audit", "Block"),
  audit: oneOf("Blocks", "Full"),
  budget: object(BUDGET),
};
const CLOSED: Fields<NonNullable<GuardConfig["closed"]>> = { reason: text, message: text };
const CONFIG: Fields<GuardConfig> = {
  digest: text,
  token: text,
  policy: object(POLICY),
  placeholders: record(text),
  secretRefs: list(text),
  closed: optional(object(CLOSED)),
  secrets: record(text),
};
const AUDIT_REQUEST: Fields<AuditRequest> = { cursor: text, waitMs: count, linesMax: count };

function text(value: unknown, at: string): string | undefined {
  return typeof value === "string" ? undefined : `${at} is not a text`;
}

function count(value: unknown, at: string): string | undefined {
  return Number.isSafeInteger(value) && Number(value) >= 0 ? undefined : `${at} is not a whole number`;
}

function truth(value: unknown, at: string): string | undefined {
  return typeof value === "boolean" ? undefined : `${at} is neither true nor false`;
}

function oneOf(...known: string[]): Check {
  return (value, at) =>
    typeof value === "string" && known.includes(value) ? undefined : `${at} is none of ${known.join(", ")}`;
}

function optional(check: Check): Check {
  return (value, at) => (value === undefined ? undefined : check(value, at));
}

function list(check: Check): Check {
  return (value, at) => {
    if (!Array.isArray(value)) return `${at} is not a list`;
    return first(value.map((item, index) => check(item, `${at}[${index}]`)));
  };
}

function record(check: Check): Check {
  return (value, at) => {
    if (!isRecord(value)) return `${at} is not a map`;
    return first(Object.entries(value).map(([name, item]) => check(item, `${at}[${JSON.stringify(name)}]`)));
  };
}

function object<T>(fields: Fields<T>): Check {
  const checks = new Map<string, Check>(Object.entries<Check>(fields));
  return (value, at) => {
    if (!isRecord(value)) return `${at} is not an object`;
    const unknown = Object.keys(value).find((name) => !checks.has(name));
    if (unknown !== undefined) return `${at} has a field that this guard does not know`;
    return first([...checks].map(([name, check]) => check(value[name], `${at}.${name}`)));
  };
}

function first(found: readonly (string | undefined)[]): string | undefined {
  return found.find((one) => one !== undefined);
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
