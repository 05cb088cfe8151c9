import { admitMetadata, isRecord } from "./admit-meta.ts";
import { deepEqual } from "./deep-equal.ts";
import { type FieldCause, invalid } from "./errors.ts";
import { decodeBase64, encodeBase64, SECRET_BYTES_MAX, SECRET_KEYS_MAX, SECRET_TYPE } from "./secret.ts";
import { count, nearest, quote, typeOf } from "./words.ts";

const FIELDS = ["apiVersion", "kind", "metadata", "type", "immutable", "data", "stringData"] as const;
const KEY = /^[-._a-zA-Z0-9]{1,253}$/;
const TYPE_LENGTH_MAX = 256;

type Report = (field: string, message: string, reason?: FieldCause["reason"]) => void;

/**
 * Decides whether a Secret may be stored, as Kubernetes does: `stringData` goes into `data`, `data` is base64, `type` is fixed, and what is
 * `immutable` stays. Values are in no message, and of a key that is none not even the key, because a value may have slipped into its place.
 */
export function admitSecret(object: unknown, old: unknown): unknown {
  const causes: FieldCause[] = [];
  const report: Report = (field, message, reason = "FieldValueInvalid") => causes.push({ field, message, reason });
  const secret = isRecord(object) ? object : {};
  checkKind(secret, report);
  const metadata = admitMetadata(secret["metadata"], causes);
  const type = admitType(secret["type"], report);
  const immutable = secret["immutable"] ?? undefined;
  if (immutable !== undefined && typeof immutable !== "boolean") {
    report("immutable", `must be true or false, got ${typeOf(immutable)}`);
  }
  const data = admitData(secret, report);
  const admitted = { type, ...(immutable === undefined ? {} : { immutable }), data };
  if (isRecord(old) && causes.length === 0) checkChange(admitted, old, report);
  if (causes.length > 0) throw invalid(whatOf(metadata["name"]), causes);
  return { apiVersion: "v1", kind: "Secret", metadata, ...admitted };
}

/** `data` with `stringData` over it; what is neither stays as it is, for admission to refuse. */
export function foldStringData(secret: Readonly<Record<string, unknown>>): Record<string, unknown> {
  const { stringData, ...rest } = secret;
  const data = rest["data"] ?? {};
  if (stringData === undefined || stringData === null) return { ...rest };
  if (!isRecord(data) || !isRecord(stringData)) return { ...secret };
  if (!Object.values(stringData).every((text) => typeof text === "string")) return { ...secret };
  const folded = Object.entries(stringData).map(([key, text]): [string, string] => [key, encodeBase64(String(text))]);
  return { ...rest, data: { ...data, ...Object.fromEntries(folded) } };
}

function checkKind(secret: Record<string, unknown>, report: Report): void {
  for (const [field, want] of [
    ["apiVersion", "v1"],
    ["kind", "Secret"],
  ] as const) {
    if (secret[field] === undefined) report(field, `is missing: write ${want}`, "FieldValueRequired");
    else if (secret[field] !== want)
      report(field, `must be ${want}, got ${quote(secret[field])}`, "FieldValueNotSupported");
  }
  for (const field of Object.keys(secret)) {
    if ((FIELDS as readonly string[]).includes(field) || secret[field] === undefined) continue;
    const meant = nearest(field, FIELDS);
    const remedy = meant === undefined ? "write values under stringData, as key: text" : `did you mean ${meant}?`;
    report(meant === undefined ? "" : quote(field).slice(1, -1), `unknown field: ${remedy}`);
  }
}

function admitType(type: unknown, report: Report): unknown {
  if (type === undefined || type === null || type === "") return SECRET_TYPE;
  if (typeof type !== "string") report("type", `must be a string, got ${typeOf(type)}: put it in quotes`);
  else if (type.length > TYPE_LENGTH_MAX) {
    report("type", `has ${count(type.length)} characters, at most ${TYPE_LENGTH_MAX} are allowed: shorten it`);
  }
  return type;
}

function admitData(secret: Record<string, unknown>, report: Report): Record<string, string> {
  const data = new Map<string, Uint8Array>();
  for (const [key, value] of entriesOf(secret["data"], "data", report)) {
    const bytes = typeof value === "string" ? decodeBase64(value) : undefined;
    if (bytes !== undefined) data.set(key, bytes);
    else if (value === null) data.set(key, new Uint8Array());
    else {
      const got = typeof value === "string" ? "" : `, got ${typeOf(value)}`;
      report(`data.${key}`, `must be base64${got}: write plain text under stringData instead`);
    }
  }
  for (const [key, value] of entriesOf(secret["stringData"], "stringData", report)) {
    if (typeof value === "string") data.set(key, new TextEncoder().encode(value));
    else if (value === null) data.set(key, new Uint8Array());
    else report(`stringData.${key}`, `must be a string, got ${typeOf(value)}: put it in quotes`);
  }
  const bytes = [...data.values()].reduce((sum, value) => sum + value.length, 0);
  if (bytes > SECRET_BYTES_MAX) {
    const message = `holds ${count(bytes)} bytes, at most ${count(SECRET_BYTES_MAX)} are allowed: split it into several Secrets`;
    report("data", message, "FieldValueTooLong");
  }
  return Object.fromEntries([...data].map(([key, value]) => [key, encodeBase64(value)]));
}

/** The entries with a usable key; the others are reported by their place. */
function entriesOf(value: unknown, field: string, report: Report): [string, unknown][] {
  if (value === undefined || value === null) return [];
  if (!isRecord(value)) {
    report(field, `must be an object of strings, got ${typeOf(value)}`);
    return [];
  }
  const entries = Object.entries(value);
  if (entries.length > SECRET_KEYS_MAX) {
    const message = `has ${count(entries.length)} keys, at most ${SECRET_KEYS_MAX} are allowed: split it into several Secrets`;
    report(field, message, "FieldValueTooLong");
    return [];
  }
  return entries.filter(([key], index) => {
    const isUsable = KEY.test(key) && key !== "." && !key.startsWith("..");
    if (!isUsable) {
      report(
        field,
        `key number ${index + 1} must be 1 to 253 letters, digits, '-', '_' and '.', not starting with '..'`,
      );
    }
    return isUsable;
  });
}

function checkChange(secret: Record<string, unknown>, old: Record<string, unknown>, report: Report): void {
  if (secret["type"] !== old["type"]) {
    const message = `is immutable: delete the Secret and create it anew to make it ${quote(secret["type"])}`;
    report("type", message, "FieldValueForbidden");
  }
  if (old["immutable"] !== true) return;
  const remedy = "create another Secret and refer to that, or delete this one first";
  if (secret["immutable"] !== true) {
    report("immutable", `the Secret is immutable, for good: ${remedy}`, "FieldValueForbidden");
  }
  if (!deepEqual(secret["data"], old["data"])) {
    report("data", `the Secret is immutable: ${remedy}`, "FieldValueForbidden");
  }
}

function whatOf(name: unknown): string {
  return typeof name === "string" ? `Secret ${quote(name)}` : "Secret";
}
