import { createHmac } from "node:crypto";

/** What the agent of a bottle shows its guard: another one for every bottle, and the same after every restart. */
export function guardToken(guardKey: Uint8Array, uid: string): string {
  return createHmac("sha256", guardKey).update(uid, "utf8").digest("base64url");
}
