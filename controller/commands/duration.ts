import { InvalidArgumentError } from "commander";

const UNITS: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 };
const DURATION_MS_MAX = 366 * 86_400_000;

/** `90s`, `10m`, `1h30m`, `500ms`; a bare number is seconds. For commander options. */
export function parseDuration(text: string): number {
  if (/^\d+(\.\d+)?$/.test(text)) return bounded(Number(text) * 1000, text);
  if (!/^(\d+(\.\d+)?(ms|s|m|h|d))+$/.test(text))
    throw new InvalidArgumentError("Write a duration like 90s, 10m or 1h30m.");
  let sum = 0;
  for (const [, amount, unit] of text.matchAll(/(\d+(?:\.\d+)?)(ms|s|m|h|d)/g)) {
    sum += Number(amount) * (UNITS[unit ?? ""] ?? 0);
  }
  return bounded(sum, text);
}

function bounded(ms: number, text: string): number {
  if (ms > DURATION_MS_MAX) throw new InvalidArgumentError(`"${text}" is more than a year.`);
  return Math.round(ms);
}

/** How long something took or is ago, as short as kubectl says it: `42s`, `5m10s`, `3h`, `2d`. */
export function formatDuration(ms: number): string {
  const seconds = Math.max(0, Math.floor(ms / 1000));
  const minutes = Math.floor(seconds / 60);
  const hours = Math.floor(minutes / 60);
  const days = Math.floor(hours / 24);
  if (seconds < 120) return `${seconds}s`;
  if (minutes < 10) return joined(minutes, "m", seconds % 60, "s");
  if (hours < 3) return `${minutes}m`;
  if (hours < 8) return joined(hours, "h", minutes % 60, "m");
  if (hours < 48) return `${hours}h`;
  if (days < 8) return joined(days, "d", hours % 24, "h");
  return days < 730 ? `${days}d` : joined(Math.floor(days / 365), "y", days % 365, "d");
}

function joined(...parts: [number, string, number, string]): string {
  const [big, bigUnit, small, smallUnit] = parts;
  return small === 0 ? `${big}${bigUnit}` : `${big}${bigUnit}${small}${smallUnit}`;
}

/** Since an RFC 3339 time; `<unknown>` for what is none. */
export function formatAge(time: string | undefined, nowMs: number): string {
  const ms = Date.parse(time ?? "");
  return Number.isNaN(ms) ? "<unknown>" : formatDuration(nowMs - ms);
}
