import type { Measurement } from "./measurement.ts";

const COLUMNS = ["name", "ours", "peer", "ratio", "target", ""] as const;

/** One line a comparison, figures flush right. */
export function table(rows: readonly Measurement[]): string {
  const all = [[...COLUMNS], ...rows.map(cellsOf)];
  const widths = COLUMNS.map((_, column) => Math.max(...all.map((row) => row[column]?.length ?? 0)));
  const aligned = (cell: string, column: number): string => {
    const width = widths[column] ?? 0;
    return column === 0 || column > 3 ? cell.padEnd(width) : cell.padStart(width);
  };
  return all.map((row) => row.map(aligned).join("  ").trimEnd()).join("\n");
}

function cellsOf({ name, ours, peer, ratio, target, met }: Measurement): string[] {
  const shown = Number.isFinite(ratio) ? ratio.toFixed(2) : "-";
  return [name, figure(ours), figure(peer), shown, target, met === undefined ? "" : met ? "met" : "MISSED"];
}

/** Three digits: the rest is noise. */
function figure(value: number): string {
  if (!Number.isFinite(value)) return "-";
  return value === 0 || value >= 100 ? value.toFixed(0) : value.toPrecision(3);
}
