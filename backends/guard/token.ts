import { createHash, timingSafeEqual } from "node:crypto";

/**
 * Whether an Authorization or Proxy-Authorization header carries the token: as Bearer, or as the password of Basic under any user name.
 * Hashes are compared: they have one length, and how long the comparison takes says nothing about where two tokens differ.
 */
export function carriesToken(header: string | undefined, token: string): boolean {
  const [, scheme = "", value = ""] = /^(\w+) +(\S+) *$/.exec(header ?? "") ?? [];
  if (/^bearer$/i.test(scheme)) return isSame(value, token);
  if (!/^basic$/i.test(scheme)) return false;
  const pair = Buffer.from(value, "base64").toString("utf8");
  return isSame(pair.slice(pair.indexOf(":") + 1), token);
}

function isSame(given: string, wanted: string): boolean {
  const [left, right] = [given, wanted].map((text) => createHash("sha256").update(text).digest());
  return left !== undefined && right !== undefined && timingSafeEqual(left, right);
}
