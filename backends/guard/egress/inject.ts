import type { Destination } from "../../../controller/policy/destination.ts";
import type { GuardInjection, GuardRule } from "../../../controller/ports/guard.ts";
import type { ActiveSettings } from "../settings.ts";
import { headerName } from "./headers.ts";

/**
 * Where programs put credentials. On a host that the guard has a credential for, the agent's own are dropped: it must not act there as somebody
 * else. Cookies are among them, for a session is a credential.
 */
const CREDENTIAL_HEADERS: ReadonlySet<string> = new Set([
  "authorization",
  "cookie",
  "cookie2",
  "api-key",
  "apikey",
  "x-api-key",
  "x-apikey",
  "x-api-token",
  "x-access-token",
  "x-auth-token",
  "x-auth-key",
  "x-token",
  "x-goog-api-key",
  "x-amz-security-token",
  "x-github-token",
  "x-vault-token",
  "private-token",
  "job-token",
  "deploy-token",
  "ocp-apim-subscription-key",
  "x-functions-key",
  "x-ms-token",
]);
const UNSENDABLE = /[^\t\x20-\x7e\x80-\xff]/;

/** What a rule puts into requests, ready to be sent. */
export type Injection =
  | { ok: true; headers: readonly string[]; names: readonly string[]; placeholders: ReadonlySet<string> }
  | { ok: false; rule: string; reason: string };

export interface Injections {
  of(settings: ActiveSettings, rule: GuardRule): Injection;
  /** True if any rule has a credential for the destination, whatever its method and path. */
  isBound(settings: ActiveSettings, destination: Destination): boolean;
  isStripped(rule: GuardRule, bound: boolean): (name: string) => boolean;
}

/** Keeps what it made as long as the settings are in force: values are rendered once, not for each request. */
export function createInjections(): Injections {
  const rendered = new WeakMap<ActiveSettings, Map<GuardRule, Injection>>();
  return {
    of(settings, rule) {
      const known = rendered.get(settings) ?? new Map<GuardRule, Injection>();
      rendered.set(settings, known);
      const injection = known.get(rule) ?? render(settings, rule);
      known.set(rule, injection);
      return injection;
    },
    isBound(settings, destination) {
      return settings.source.rules.some(
        (rule) =>
          rule.inject.length > 0 && rule.ports.includes(destination.port) && covers(rule.host, destination.host),
      );
    },
    isStripped(rule, bound) {
      if (!bound && rule.inject.length === 0) return nothing;
      const replaced = rule.inject.map(({ header }) => headerName(header));
      return (name) => CREDENTIAL_HEADERS.has(name) || replaced.includes(name);
    },
  };
}

function nothing(): boolean {
  return false;
}

function covers(pattern: string, host: string): boolean {
  if (!pattern.startsWith("*.")) return pattern === host;
  const dot = host.indexOf(".");
  return dot > 0 && host.slice(dot) === pattern.slice(1);
}

function render(settings: ActiveSettings, rule: GuardRule): Injection {
  const headers: string[] = [];
  for (const injection of rule.inject) {
    const secret = settings.secrets[injection.secret];
    const name = JSON.stringify(injection.secret);
    if (secret === undefined) return { ok: false, rule: "closed", reason: `there is no value for the secret ${name}` };
    const value = renderValue(injection, secret);
    if (UNSENDABLE.test(value)) {
      const reason = `the secret ${name} cannot stand in a header: it holds a line break or a character beyond Latin-1`;
      return { ok: false, rule: "closed", reason };
    }
    headers.push(injection.header, value);
  }
  return {
    ok: true,
    headers,
    names: rule.inject.map(({ header }) => header),
    placeholders: new Set(rule.inject.map(({ secret }) => `placeholder:${secret}`)),
  };
}

/** Files leave a line break at the end of a value. No credential begins or ends with white space, and the scan looks for it without. */
function renderValue(injection: GuardInjection, secret: string): string {
  const value = secret.trim();
  return injection.valueTemplate.replaceAll(/\{value\}|\{base64:([^}]*)\}/g, (found, text: string | undefined) =>
    found === "{value}" ? value : Buffer.from(`${text ?? ""}${value}`).toString("base64"),
  );
}
