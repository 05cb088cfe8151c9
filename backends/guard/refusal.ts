import type { Door } from "./doors.ts";

/** What a port answers that does not speak its protocol yet: JSON, so that programs and people can tell why. */
export interface DoorRefusal {
  status: 401 | 501 | 503;
  body: { error: string; door: Door["name"]; reason: string };
}

export function notConfigured(door: Door["name"]): DoorRefusal {
  const reason = "this bottle's guard has no settings yet: try again in a moment";
  return { status: 503, body: { error: "not configured", door, reason } };
}

export function unauthorized(door: Door["name"]): DoorRefusal {
  const reason = "the token of this bottle is missing or is not the one of this bottle";
  return { status: 401, body: { error: "unauthorized", door, reason } };
}

export function notEnabled(door: Door["name"]): DoorRefusal {
  return { status: 501, body: { error: "not enabled", door, reason: `this bottle's guard does not offer ${door}` } };
}
