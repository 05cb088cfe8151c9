import type { GuardInjection, GuardPath, GuardPolicy, GuardRule } from "../ports/guard.ts";
import { unreachable } from "../api/errors.ts";
import { parseCidr, type Cidr } from "./address.ts";
import type { CompiledPolicy, CompiledRule } from "./compiled.ts";
import { canonicalHost } from "./destination.ts";
import { normalizePath } from "./path.ts";
import { compilePathRegex } from "./path-regex.ts";
import { codePoint, quoted } from "./text.ts";

export type PolicyCompilation = { ok: true; policy: CompiledPolicy } | { ok: false; message: string };

/** Methods that lead around a proxy; no rule opens them. */
export const NEVER_METHODS: ReadonlySet<string> = new Set(["CONNECT", "TRACE", "TRACK"]);
export const METHOD = /^[A-Z][A-Z0-9-]{0,31}$/;
const HEADER = /^[a-z0-9][a-z0-9_-]*$/;
/** Where a value goes: both forms of a template of a credential. */
const PLACE = /\{value\}|\{base64:[^{}]*\}/;

type PathTest = (path: string) => boolean;

/** Says which field of a rule is wrong; caught by compilePolicy, which knows the rule. */
class FieldError extends Error {
  constructor(message: string) {
    super(message);
    this.name = "FieldError";
  }
}

/**
 * Works a policy out once, so that a decision looks up its host and compares few rules. One wrong rule refuses the whole policy:
 * leaving out a Deny would open what it closes. The message names the rule, the field, its value and what to write instead;
 * a template of a credential is never shown.
 */
export function compilePolicy(policy: GuardPolicy): PolicyCompilation {
  const rules: CompiledRule[] = [];
  const names = new Set<string>();
  for (const [index, rule] of policy.rules.entries()) {
    try {
      if (names.has(rule.name)) throw new FieldError("name is given twice: give each rule a name of its own");
      names.add(rule.name);
      rules.push(compileRule(rule, index));
    } catch (error) {
      if (!(error instanceof FieldError)) throw error;
      return { ok: false, message: `egress rule ${quoted(rule.name)}: ${error.message}` };
    }
  }
  const wild = rules.filter(({ rule }) => rule.host.startsWith("*."));
  const exact = rules.filter(({ rule }) => !rule.host.startsWith("*."));
  return {
    ok: true,
    policy: { rules, byHost: grouped(exact, ({ host }) => host), byParent: grouped(wild, ({ host }) => host.slice(2)) },
  };
}

function grouped(rules: readonly CompiledRule[], keyOf: (rule: GuardRule) => string): Map<string, CompiledRule[]> {
  const groups = new Map<string, CompiledRule[]>();
  for (const compiled of rules) {
    const key = keyOf(compiled.rule);
    groups.set(key, [...(groups.get(key) ?? []), compiled]);
  }
  return groups;
}

function compileRule(rule: GuardRule, index: number): CompiledRule {
  checkHost(rule.host);
  checkPorts(rule.ports);
  checkProtocol(rule);
  checkMethods(rule.methods);
  checkInjections(rule);
  const tests = rule.paths?.map(compilePath);
  if (tests?.length === 0) throw new FieldError("paths is empty: name a path, or leave paths out for all of them");
  return {
    rule,
    index,
    ports: new Set(rule.ports),
    cidrs: rule.cidrs.map(compileCidr),
    ...(rule.methods === undefined ? {} : { methods: new Set(rule.methods) }),
    ...(tests === undefined ? {} : { matchesPath: (path: string) => tests.some((test) => test(path)) }),
  };
}

function checkHost(host: string): void {
  const wild = host.startsWith("*.");
  const parsed = canonicalHost(wild ? host.slice(2) : host);
  if (!parsed.ok) throw new FieldError(`host ${quoted(host)} is refused: ${parsed.reason}`);
  if (wild && parsed.address !== undefined) {
    throw new FieldError(`host ${quoted(host)} puts *. before an IP address: write the address alone`);
  }
  const canonical = wild ? `*.${parsed.host}` : parsed.host;
  if (canonical !== host) throw new FieldError(`host ${quoted(host)} has another spelling: write ${quoted(canonical)}`);
}

function checkPorts(ports: readonly number[]): void {
  if (ports.length === 0) throw new FieldError("ports is empty: name a port");
  const wrong = ports.find((port) => !Number.isInteger(port) || port < 1 || port > 65_535);
  if (wrong !== undefined) throw new FieldError(`ports holds ${wrong}: write a number from 1 to 65535`);
}

/** What is not read cannot be compared: a condition on it would look as if it held. */
function checkProtocol(rule: GuardRule): void {
  if (rule.protocol === "HTTPS" || rule.protocol === "HTTP") return;
  const field = rule.methods ? "methods" : rule.paths ? "paths" : rule.webSocket ? "webSocket" : undefined;
  if (field === undefined) return;
  throw new FieldError(
    `${field} needs a protocol whose requests are read, not "${rule.protocol}": write HTTPS or HTTP`,
  );
}

function checkMethods(methods: readonly string[] | undefined): void {
  if (methods?.length === 0)
    throw new FieldError("methods is empty: name a method, or leave methods out for all of them");
  const wrong = methods?.find((method) => !METHOD.test(method) || NEVER_METHODS.has(method));
  if (wrong !== undefined)
    throw new FieldError(`methods holds ${quoted(wrong)}: write a method such as GET, in upper case`);
}

function checkInjections(rule: GuardRule): void {
  const headers = new Set<string>();
  for (const [index, injection] of rule.inject.entries()) {
    const field = `inject[${index}]`;
    if (rule.protocol !== "HTTPS") {
      throw new FieldError(
        `${field} needs protocol HTTPS, not "${rule.protocol}": credentials leave through verified TLS only`,
      );
    }
    if (rule.action === "Deny")
      throw new FieldError(`${field} is for requests that are allowed: remove it from a Deny`);
    checkInjection(field, injection);
    if (headers.has(injection.header)) {
      throw new FieldError(`${field}.header ${quoted(injection.header)} is given twice: one value for each header`);
    }
    headers.add(injection.header);
  }
}

function checkInjection(field: string, { header, valueTemplate }: GuardInjection): void {
  if (!HEADER.test(header)) {
    throw new FieldError(
      `${field}.header ${quoted(header)} is no header name in lower case: write one such as "authorization"`,
    );
  }
  if (!PLACE.test(valueTemplate)) {
    throw new FieldError(`${field}.valueTemplate has no place for the value: write {value} or {base64:TEXT} into it`);
  }
}

function compileCidr(text: string): Cidr {
  const cidr = parseCidr(text);
  if (cidr !== undefined) return cidr;
  throw new FieldError(
    `cidrs holds ${quoted(text)}: write a network such as "10.0.0.0/8", with no bits set behind its length`,
  );
}

function compilePath(path: GuardPath, index: number): PathTest {
  const { type, value } = path;
  const field = `paths[${index}].value ${quoted(value)}`;
  switch (type) {
    case "Exact":
      checkPath(value, field);
      return (candidate) => candidate === value;
    case "Prefix":
      checkPath(value, field);
      return prefixTest(value);
    case "Regex":
      return regexTest(value, field);
    default:
      return unreachable(type);
  }
}

function regexTest(value: string, field: string): PathTest {
  const regex = compilePathRegex(value);
  if (!regex.ok) throw new FieldError(`${field} is refused: the pattern ${regex.reason}`);
  return regex.matches;
}

/** A value that no normalised path can be equal to would never match: a Deny with it would close nothing. */
function checkPath(value: string, field: string): void {
  const normal = normalizePath(value);
  if (!normal.ok) throw new FieldError(`${field} is refused: ${normal.reason}`);
  const mark = value.includes("?") ? codePoint("?") : undefined;
  if (mark !== undefined) throw new FieldError(`${field} holds a query (${mark}): rules compare paths only, remove it`);
  if (normal.path !== value) throw new FieldError(`${field} has another spelling: write ${quoted(normal.path)}`);
}

/** Ends at a slash or at the end of the path: `/v1` holds `/v1` and `/v1/x`, not `/v10`; `/v1/` holds `/v1/x`, not `/v1`. */
function prefixTest(value: string): PathTest {
  const folder = value.endsWith("/") ? value : `${value}/`;
  return (path) => path === value || path.startsWith(folder);
}
