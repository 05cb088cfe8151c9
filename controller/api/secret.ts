import type { ObjectMeta } from "./meta.ts";

/** Bytes of all values of one Secret, as Kubernetes bounds them. */
export const SECRET_BYTES_MAX = 1024 * 1024;
/** Keys of one Secret. */
export const SECRET_KEYS_MAX = 512;
/** What a Secret is if it does not say so. */
export const SECRET_TYPE = "Opaque";

/** A core/v1 Secret as a store holds it. `data` is base64. Its values appear nowhere but in the store and in the guards that inject them. */
export interface SecretResource {
  apiVersion: "v1";
  kind: "Secret";
  metadata: ObjectMeta;
  type: string;
  immutable?: boolean;
  data: Record<string, string>;
}

/**
 * The bytes of a value in base64, `undefined` if it is none. Line ends are looked over, as in Kubernetes: YAML blocks bring them in.
 * Length and alphabet are checked apart, because one pattern for both would try megabytes again and again.
 */
export function decodeBase64(text: string): Uint8Array | undefined {
  const packed = text.replaceAll(/[\r\n]/g, "");
  if (packed.length % 4 !== 0 || !/^[A-Za-z0-9+/]*={0,2}$/.test(packed)) return undefined;
  return Uint8Array.from(Buffer.from(packed, "base64"));
}

export function encodeBase64(bytes: Uint8Array | string): string {
  return Buffer.from(bytes).toString("base64");
}

/** What a guard puts into a header: the value as text. Absent for a key that is not there and for bytes that are no UTF-8. */
export function secretText(secret: Pick<SecretResource, "data">, key: string): string | undefined {
  const value = Object.hasOwn(secret.data, key) ? secret.data[key] : undefined;
  const bytes = value === undefined ? undefined : decodeBase64(value);
  if (bytes === undefined) return undefined;
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    return undefined;
  }
}

/** Bytes of each value, by key: all that may be told of them. */
export function secretSizes(secret: Pick<SecretResource, "data">): [key: string, bytes: number][] {
  return Object.entries(secret.data)
    .map(([key, value]): [string, number] => [key, decodeBase64(value)?.length ?? 0])
    .sort(([a], [b]) => (a < b ? -1 : 1));
}
