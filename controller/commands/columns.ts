import { KINDS, type PrinterColumn } from "../api/kinds.ts";
import type { KindName } from "../api/kinds.ts";
import { formatAge } from "./duration.ts";
import { plainText } from "./io.ts";

/** `count`: of the members of an object, because those of a Secret's data are not for a table. */
export type Column = Omit<PrinterColumn, "type"> & { type: PrinterColumn["type"] | "count" };

/** As kubectl prints them. */
const SECRET_COLUMNS: readonly Column[] = [
  { name: "Type", type: "string", jsonPath: ".type", priority: 0 },
  { name: "Data", type: "count", jsonPath: ".data", priority: 0 },
  { name: "Age", type: "date", jsonPath: ".metadata.creationTimestamp", priority: 0 },
];

const EVENT_COLUMNS: readonly Column[] = [
  { name: "Last seen", type: "date", jsonPath: ".lastTimestamp", priority: 0 },
  { name: "Type", type: "string", jsonPath: ".type", priority: 0 },
  { name: "Reason", type: "string", jsonPath: ".reason", priority: 0 },
  { name: "Kind", type: "string", jsonPath: ".involvedObject.kind", priority: 0 },
  { name: "Object", type: "string", jsonPath: ".involvedObject.name", priority: 0 },
  { name: "Count", type: "integer", jsonPath: ".count", priority: 0 },
  { name: "Message", type: "string", jsonPath: ".message", priority: 0 },
];

export function columnsOf(kind: KindName, wide: boolean): readonly Column[] {
  const own = kind === "Secret" ? SECRET_COLUMNS : EVENT_COLUMNS;
  const columns = KINDS.find((facts) => facts.kind === kind)?.columns ?? own;
  return columns.filter((column) => wide || column.priority === 0);
}

/** One cell: empty for what is absent. */
export function cellOf(object: unknown, column: Column, nowMs: number): string {
  const value = jsonPathValue(object, column.jsonPath);
  if (value === undefined || value === null) return "";
  if (column.type === "count") return String(Object.keys(value).length);
  if (column.type === "date") return formatAge(String(value), nowMs);
  return plainText(typeof value === "object" ? JSON.stringify(value) : String(value));
}

/** `.a.b` and `.list[?(@.key=="word")].c`: the JSONPath of printer columns, and no more. */
export function jsonPathValue(object: unknown, path: string): unknown {
  const steps = path.matchAll(/\.([A-Za-z][A-Za-z0-9]*)|\[\?\(@\.([A-Za-z]+)=="([^"]*)"\)\]/g);
  let value = object;
  let read = "";
  for (const [step, field, key, word] of steps) {
    read += step;
    if (field !== undefined) value = member(value, field);
    else if (key !== undefined) {
      value = Array.isArray(value) ? value.find((item: unknown) => member(item, key) === word) : undefined;
    }
  }
  if (read !== path) throw new Error(`JSONPath "${path}" is not understood after "${read}"`);
  return value;
}

function member(value: unknown, field: string): unknown {
  if (typeof value !== "object" || value === null || !Object.hasOwn(value, field)) return undefined;
  return Object.entries(value).find(([name]) => name === field)?.[1];
}
