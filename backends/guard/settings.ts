import { compileDlp, type DlpRules } from "../../controller/policy/dlp/index.ts";
import { compilePolicy, type CompiledPolicy } from "../../controller/policy/matcher.ts";
import type { GuardConfig, GuardPolicy } from "../../controller/ports/guard.ts";

/** Settings as requests are judged by them: what was sent, compiled once. Replaced as a whole, never changed. */
export interface ActiveSettings {
  readonly digest: string;
  readonly token: string;
  readonly policy: CompiledPolicy;
  readonly source: GuardPolicy;
  readonly dlp: DlpRules;
  /** By `name/key`. */
  readonly secrets: Readonly<Record<string, string>>;
  readonly placeholders: Readonly<Record<string, string>>;
  /** Present: all egress is refused, and this is why. */
  readonly closed?: { reason: string; message: string };
}

export interface SettingsHolder {
  /** `undefined` until the first settings: then everything is refused. */
  current(): ActiveSettings | undefined;
  /** Puts settings in force for the next request, or throws a SettingsError and leaves the ones in force. */
  apply(config: GuardConfig): void;
  /** Calls `listener` after each change: for what was decided under the old settings and still runs. */
  onChange(listener: () => void): void;
}

/** Settings that cannot be put in force. The message names what is wrong and never holds a value. */
export class SettingsError extends Error {
  /** CamelCase: PolicyInvalid, SecretMissing, TokenInvalid, DlpError. */
  readonly reason: string;

  constructor(reason: string, message: string) {
    super(message);
    this.name = "SettingsError";
    this.reason = reason;
  }
}

/** The token goes into the URL of a proxy and into headers, so it is made of characters that need no escape in either. */
const TOKEN = /^[A-Za-z0-9_-]{16,256}$/;

export function createSettingsHolder(): SettingsHolder {
  const listeners: (() => void)[] = [];
  let active: ActiveSettings | undefined;
  return {
    current: () => active,
    apply(config) {
      active = activate(config);
      for (const listener of listeners) listener();
    },
    onChange: (listener) => void listeners.push(listener),
  };
}

function activate(config: GuardConfig): ActiveSettings {
  const { digest, token, secrets, placeholders, closed } = config;
  if (!TOKEN.test(token)) {
    throw new SettingsError("TokenInvalid", "cannot use the token: it must be 16 to 256 letters, digits, '-' and '_'");
  }
  requireSecrets(config);
  const compiled = compilePolicy(config.policy);
  if (!compiled.ok) throw new SettingsError("PolicyInvalid", `cannot use the policy: ${compiled.message}`);
  return {
    digest,
    token,
    policy: compiled.policy,
    source: config.policy,
    dlp: rulesOf(config),
    secrets: { ...secrets },
    placeholders: { ...placeholders },
    ...(closed === undefined ? {} : { closed }),
  };
}

/** A rule whose secret is missing would let requests through without their credential: the whole policy waits instead. */
function requireSecrets({ policy, secrets, closed }: GuardConfig): void {
  // Of a closed guard nothing is sent, and a missing secret may be the very reason why it is closed.
  if (closed !== undefined) return;
  const missing = policy.rules.flatMap((rule) =>
    rule.inject
      .filter(({ secret }) => !Object.hasOwn(secrets, secret) || secrets[secret] === "")
      .map(({ secret }) => `"${secret}" of rule "${rule.name}"`),
  );
  if (missing.length === 0) return;
  const names = [...new Set(missing)].sort().join(", ");
  throw new SettingsError("SecretMissing", `cannot inject ${names}: no value was given; add it to the Secret`);
}

function rulesOf({ secrets, placeholders }: GuardConfig): DlpRules {
  try {
    return compileDlp({ secrets, placeholders });
  } catch {
    // What was thrown may hold a value that the scan was to look for.
    throw new SettingsError("DlpError", "cannot make the scan of what leaves from the given secrets");
  }
}
