import { compilePolicy } from "../../controller/policy/matcher.ts";
import { CA_BUNDLE_FILE, CA_FILE, HOME, BackendError } from "../../controller/ports/backend.ts";
import type {
  AuditLine,
  AuditPage,
  AuditRequest,
  GuardConfig,
  GuardConfigured,
  GuardHealth,
} from "../../controller/ports/guard.ts";
import type { FileTree } from "./file-tree.ts";

/** What runs in a guard's container: as much of a guard as one can tell from outside. */
export interface FakeGuard {
  /** In memory only, as in a real guard: gone with the process. */
  settings?: GuardConfig;
  caCertificate: string;
  lines: AuditLine[];
  health: GuardHealth;
  /** Of all settings that were ever in force, also before it began anew. */
  digests: Set<string>;
}

/** A guard that has just started knows nothing and has an authority of its own. */
export function freshGuard(id: string, before?: FakeGuard): FakeGuard {
  const digests = before?.digests ?? new Set<string>();
  const serial = `${id}-${digests.size}`;
  const caCertificate = `-----BEGIN CERTIFICATE-----\nauthority of guard ${serial}\n-----END CERTIFICATE-----\n`;
  return { caCertificate, lines: [], health: { ok: true }, digests };
}

export function applySettings(guard: FakeGuard, config: GuardConfig): GuardConfigured {
  if (config.token === "") {
    throw new BackendError("Invalid", "TokenInvalid", "cannot use the settings: the token is empty");
  }
  const compiled = compilePolicy(config.policy);
  if (!compiled.ok) throw new BackendError("Invalid", "PolicyInvalid", `cannot use the policy: ${compiled.message}`);
  const missing =
    config.closed === undefined ? config.secretRefs.filter((id) => !Object.hasOwn(config.secrets, id)) : [];
  if (missing.length > 0) {
    throw new BackendError("Invalid", "SecretMissing", `cannot inject ${missing.join(", ")}: no value was given`);
  }
  guard.settings = structuredClone(config);
  guard.digests.add(config.digest);
  return { digest: config.digest, caCertificate: guard.caCertificate };
}

/** A cursor is the number of lines that were read. */
export function auditPage(guard: FakeGuard, { cursor, linesMax }: AuditRequest): AuditPage {
  const from = cursor === "" ? 0 : Number(cursor);
  const lines = guard.lines.slice(from, from + linesMax);
  const digest = guard.settings?.digest;
  const page = { lines, cursor: String(from + lines.length), health: guard.health };
  return digest === undefined ? page : { ...page, digest };
}

/** Decides one request as far as a host says, and notes it. */
export function request(guard: FakeGuard, host: string, timeMs: number): AuditLine {
  const { settings } = guard;
  const named = settings?.policy.rules.find((rule) => rule.host === host);
  const rule = settings === undefined ? "not-configured" : settings.closed ? "closed" : (named?.name ?? "default-deny");
  const isAllowed = settings !== undefined && settings.closed === undefined && named?.action === "Allow";
  const line: AuditLine = {
    v: 1,
    time: new Date(timeMs).toISOString(),
    kind: "request",
    verdict: isAllowed ? "Allowed" : "Denied",
    rule,
    reason: isAllowed ? "a rule allows it" : "no rule allows it",
    protocol: "HTTPS",
    host,
    port: 443,
    method: "GET",
    path: "/",
    status: isAllowed ? 200 : 403,
    bytesUp: 10,
    bytesDown: isAllowed ? 100 : 0,
    ms: 1,
    injected: isAllowed ? (named?.inject ?? []).map(({ header }) => header) : [],
    dlp: [],
  };
  guard.lines.push(line);
  return line;
}

/** An agent starts behind the rules of its own bottle and trusts the guard that is there, or it does not start. */
export function guardViolations(
  run: { what: string; env: Readonly<Record<string, string>> },
  guard: FakeGuard | undefined,
  home: FileTree,
): string[] {
  const settings = guard?.settings;
  if (guard === undefined || settings === undefined) return [`${run.what} behind a guard that has no settings`];
  const found: string[] = [];
  if (settings.closed !== undefined) found.push(`${run.what} behind a guard that is closed`);
  if (!run.env["HTTPS_PROXY"]?.includes(`:${settings.token}@`)) {
    found.push(`${run.what} with another token than its guard's`);
  }
  for (const file of [CA_FILE, CA_BUNDLE_FILE]) {
    const node = home.get(file.slice(HOME.length + 1));
    const end = node?.type === "file" ? node.bytes.subarray(-guard.caCertificate.length) : new Uint8Array();
    if (Buffer.from(end).toString("utf8") !== guard.caCertificate)
      found.push(`${run.what} without its guard's authority in "${file}"`);
  }
  return found;
}
