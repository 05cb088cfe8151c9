/** One refused field: where, what stood there, and what to write instead. `value` is shortened and never a secret. */
export interface FieldCause {
  /** The path in the object, e.g. `spec.turns[1].prompt`. */
  field: string;
  /** What is wrong, with the value quoted, and the remedy; one line. */
  message: string;
  /** Kubernetes cause types, so that kubectl prints them as it does for a real API server. */
  reason:
    "FieldValueInvalid" | "FieldValueRequired" | "FieldValueNotSupported" | "FieldValueForbidden" | "FieldValueTooLong";
}

export type StatusReason =
  "Invalid" | "BadRequest" | "NotFound" | "AlreadyExists" | "Conflict" | "Gone" | "Unavailable";

const CODES: Record<StatusReason, number> = {
  BadRequest: 400,
  NotFound: 404,
  AlreadyExists: 409,
  Conflict: 409,
  Gone: 410,
  Invalid: 422,
  Unavailable: 503,
};

/** A refusal in the terms of the Kubernetes API (`metav1.Status`): `reason` and `code` are for programs, the message for people. */
export class StatusError extends Error {
  readonly reason: StatusReason;
  readonly code: number;
  readonly causes: readonly FieldCause[];

  constructor(
    reason: StatusReason,
    message: string,
    options: { causes?: readonly FieldCause[]; cause?: unknown } = {},
  ) {
    super(message, { cause: options.cause });
    this.name = "StatusError";
    this.reason = reason;
    this.code = CODES[reason];
    this.causes = options.causes ?? [];
  }
}

/** True for a StatusError with that reason; stores and sources branch on this, never on message text. */
export function isStatus(error: unknown, reason: StatusReason): error is StatusError {
  return error instanceof StatusError && error.reason === reason;
}

/** The object as a whole was refused; the message lists every cause in field order. */
export function invalid(what: string, causes: readonly FieldCause[]): StatusError {
  const text = causes
    .map((cause) => (cause.field === "" ? cause.message : `${cause.field}: ${cause.message}`))
    .join("; ");
  return new StatusError("Invalid", `${what} is invalid: ${text}`, { causes });
}

/** Ends a switch over a union: a case that was forgotten does not compile. */
export function unreachable(value: never): never {
  throw new Error(`unreachable case: ${JSON.stringify(value)}`);
}
