/** How a connection to a destination is treated. HTTPS: TLS is ended in the guard and each request decided. TLS: passed on unread after a look at its server name. */
export type EgressProtocol = "HTTPS" | "HTTP" | "TLS" | "TCP";

/** Placed by the guard into requests that its rule allows, in place of whatever the agent sent under that name. */
export interface GuardInjection {
  /** Lower case. */
  header: string;
  /** `{value}` stands for the secret, `{base64:TEXT}` for the base64 form of TEXT followed by the secret. */
  valueTemplate: string;
  /** Key of `GuardConfig.secrets`. */
  secret: string;
}

/** A path of a rule, compared with the normalised path of a request, without its query. Regex matches the whole path. */
export interface GuardPath {
  type: "Exact" | "Prefix" | "Regex";
  value: string;
}

/** One egress rule with nothing left open: what a template leaves out is filled in. */
export interface GuardRule {
  name: string;
  /** Canonical: a name, `*.name` (one more label, no more), or an IP address. */
  host: string;
  ports: readonly number[];
  protocol: EgressProtocol;
  /** Absent: all. Upper case. */
  methods?: readonly string[];
  /** Absent: all. */
  paths?: readonly GuardPath[];
  action: "Allow" | "RequireApproval" | "Deny";
  /** Told to the agent when the rule refuses. */
  reason?: string;
  /** Addresses that are not public and that this host may have all the same. */
  cidrs: readonly string[];
  webSocket: boolean;
  /** What becomes of a request body that cannot be looked into. */
  uninspected: "Refuse" | "Allow";
  inject: readonly GuardInjection[];
}

/** What leaves a bottle, and how it is watched. Without a rule nothing leaves. */
export interface GuardPolicy {
  rules: readonly GuardRule[];
  dlp: "Off" | "Audit" | "Block";
  /** Blocks: what was allowed gets no line and is not counted. */
  audit: "Blocks" | "Full";
  /** Bytes that may leave since the guard started. Absent: no bound. */
  budget: { uploadBytes?: number; uploadBytesPerHost?: number };
}

/** All that a guard is told, without the values of secrets: what `plan` knows of it. */
export interface GuardSettings {
  /** Hash of everything below and of the versions of the secrets: two settings with one digest are the same. */
  digest: string;
  /** What the agent must send on every port. It opens this bottle's guard and nothing else. */
  token: string;
  policy: GuardPolicy;
  /** What the agent holds in place of a secret, by key of `secrets`. Opaque; only the whole text means anything. */
  placeholders: Readonly<Record<string, string>>;
  /** `name/key` of core/v1 Secrets in the bottle's namespace. */
  secretRefs: readonly string[];
  /** Present: all egress is refused, and this is why. */
  closed?: { reason: string; message: string };
}

export interface GuardConfig extends GuardSettings {
  /** Values by `name/key`. In memory only: never in a log, an event, a status, an error or a command line. */
  secrets: Readonly<Record<string, string>>;
}

export const AUDIT_VERDICTS = ["Allowed", "Denied", "ApprovalRequired", "Failed"] as const;
export type AuditVerdict = (typeof AUDIT_VERDICTS)[number];

/**
 * What became of one request or tunnel. Written when it ends; of a refused one when it is refused. Never holds a query, a body, a secret: a host, method,
 * path or reason in which the scan found something is `(redacted)`.
 */
export interface AuditLine {
  /** Version of this form. */
  v: 1;
  /** When it began, RFC 3339. */
  time: string;
  kind: "request" | "tunnel";
  verdict: AuditVerdict;
  /** Name of the rule that decided, or of a rule that is always there: see BUILT_IN_RULES in `controller/policy`. */
  rule: string;
  /** One line for people. */
  reason: string;
  protocol: EgressProtocol;
  host: string;
  port: number | null;
  method: string;
  /** Normalised where it could be; at most 1,024 characters. */
  path: string;
  /** The address that was dialled. */
  address?: string;
  /** What the agent was answered. */
  status?: number;
  bytesUp: number;
  bytesDown: number;
  ms: number;
  /** Names of headers. */
  injected: readonly string[];
  /** Ids of findings: `secret:NAME/KEY`, `placeholder:NAME/KEY` or `pattern:ID`. */
  dlp: readonly string[];
  /** Of a request that needs an approval. */
  ticket?: string;
}

/** Why a guard refuses all egress though its policy would allow some. */
export type GuardHealth = { ok: true } | { ok: false; reason: string; message: string };

/** Lines that the guard holds after `cursor`, oldest first. */
export interface AuditPage {
  lines: readonly AuditLine[];
  /** Where the next page begins; the guard may drop what lies before the cursor it is asked with. */
  cursor: string;
  health: GuardHealth;
  /** Digest of the settings in force; absent before the first. */
  digest?: string;
}

export interface AuditRequest {
  /** Empty: from the beginning. */
  cursor: string;
  /** How long to wait for a first line, at most GUARD_WAIT_MS_MAX. */
  waitMs: number;
  linesMax: number;
}

export const GUARD_WAIT_MS_MAX = 20_000;

/** What a guard answers to settings that it put in force. */
export interface GuardConfigured {
  digest: string;
  /** PEM of the certificate authority of this bottle. Its key never leaves the guard. */
  caCertificate: string;
}
