import { foldStringData } from "../api/admit-secret.ts";
import { decodeBase64, encodeBase64 } from "../api/secret.ts";

type Fields = Record<string, unknown>;

const PREFIX = "data.";

/**
 * A Secret without its metadata as one flat list of fields, each key of `data` for itself: then keys merge as the fields of a spec do, and what
 * a declaration wrote can be noted by name, without a value. What is no Secret stays as it is, for admission to refuse.
 */
export function secretFields(secret: Readonly<Fields>): Fields {
  const { apiVersion: _version, kind: _kind, metadata: _metadata, ...written } = secret;
  const { data, ...rest } = foldStringData(written);
  if (typeof data !== "object" || data === null || Array.isArray(data)) {
    return data === undefined || data === null ? rest : { ...rest, data };
  }
  const keys = Object.entries(data).map(([key, value]): [string, unknown] => [PREFIX + key, normalised(value)]);
  return { ...rest, ...Object.fromEntries(keys) };
}

/** The object with these fields in place of its own. */
export function withFields(secret: object, fields: Fields): Fields {
  const { apiVersion, kind, metadata }: Fields = { ...secret };
  const entries = Object.entries(fields);
  const data = entries.filter(isKey).map(([name, value]): [string, unknown] => [name.slice(PREFIX.length), value]);
  const rest = Object.fromEntries(entries.filter((entry) => !isKey(entry)));
  return { apiVersion, kind, metadata, ...("data" in rest ? {} : { data: Object.fromEntries(data) }), ...rest };
}

function isKey([name]: readonly [string, unknown]): boolean {
  return name.startsWith(PREFIX);
}

/** As a store would keep it, so that the same value written in another way is no change. */
function normalised(value: unknown): unknown {
  const bytes = typeof value === "string" ? decodeBase64(value) : undefined;
  return bytes === undefined ? value : encodeBase64(bytes);
}
