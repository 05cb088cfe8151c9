const GAP = "   ";

/** Columns as wide as their widest cell; an empty cell reads `<none>`. No trailing blanks. */
export function renderTable(rows: readonly (readonly string[])[], headers?: readonly string[]): string {
  const shown = rows.map((row) => row.map((cell) => (cell === "" ? "<none>" : cell)));
  const all = headers === undefined ? shown : [headers.map((header) => header.toUpperCase()), ...shown];
  const widths = columnWidths(all);
  return all.map((row) => renderRow(row, widths)).join("\n");
}

export function columnWidths(rows: readonly (readonly string[])[]): number[] {
  const widths: number[] = [];
  for (const row of rows) {
    for (const [index, cell] of row.entries()) widths[index] = Math.max(widths[index] ?? 0, [...cell].length);
  }
  return widths;
}

function renderRow(row: readonly string[], widths: readonly number[]): string {
  return row
    .map((cell, index) => cell + " ".repeat(Math.max(0, (widths[index] ?? 0) - [...cell].length)))
    .join(GAP)
    .trimEnd();
}
