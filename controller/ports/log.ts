/** A structured log in pino's shape: fields first, then a fixed message. Never a secret, never a prompt. */
export interface Log {
  debug(fields: object, message: string): void;
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
  error(fields: object, message: string): void;
}
