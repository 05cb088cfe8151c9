import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import { invalid, StatusError } from "../../controller/api/errors.ts";
import { KINDS } from "../../controller/api/kinds.ts";
import { jsonPathValue } from "../../controller/commands/columns.ts";
import { formatDuration, parseDuration } from "../../controller/commands/duration.ts";
import { CommandError, errorLines, EXIT, exitCodeOf, turnExitCode } from "../../controller/commands/exit.ts";
import { createOutputFilter } from "../../controller/commands/safe-output.ts";
import { renderTable } from "../../controller/commands/table.ts";
import { BackendError } from "../../controller/ports/backend.ts";

describe("printer columns", () => {
  it("are all understood: every JSONPath of every kind", () => {
    for (const facts of KINDS) {
      for (const column of facts.columns) expect(jsonPathValue({}, column.jsonPath)).toBeUndefined();
    }
  });

  it("find fields and the item of a list with a given key, and nothing inherited", () => {
    const object = {
      a: { b: 1 },
      list: [
        { type: "X", status: "no" },
        { type: "Ready", status: "True" },
      ],
    };
    expect(jsonPathValue(object, ".a.b")).toBe(1);
    expect(jsonPathValue(object, '.list[?(@.type=="Ready")].status')).toBe("True");
    expect(jsonPathValue(object, '.list[?(@.type=="None")].status')).toBeUndefined();
    expect(jsonPathValue(object, ".a.constructor")).toBeUndefined();
    expect(() => jsonPathValue(object, ".list[0]")).toThrow("not understood");
  });
});

describe("tables", () => {
  it("align by characters, show <none> for nothing and have no trailing blanks", () => {
    expect(
      renderTable(
        [
          ["é", ""],
          ["longer", "x"],
        ],
        ["a", "b"],
      ),
    ).toBe("A        B\né        <none>\nlonger   x");
  });
});

describe("durations", () => {
  it.each([
    ["90s", 90_000],
    ["10m", 600_000],
    ["1h30m", 5_400_000],
    ["500ms", 500],
    ["2", 2000],
    ["1.5s", 1500],
  ])("%s is read", (text, ms) => expect(parseDuration(text)).toBe(ms));

  it.each(["", "x", "10 m", "-1s", "1x", "999d"])("%j is refused", (text) =>
    expect(() => parseDuration(text)).toThrow(),
  );

  it.each([
    [0, "0s"],
    [119_000, "119s"],
    [310_000, "5m10s"],
    [3_600_000, "60m"],
    [4 * 3_600_000, "4h"],
    [50 * 3_600_000, "2d2h"],
  ])("%i ms is shown as %s", (ms, text) => expect(formatDuration(ms)).toBe(text));
});

describe("errors", () => {
  it("are one line, and one for each of several causes", () => {
    const causes = [
      { field: "spec.a", message: "is wrong", reason: "FieldValueInvalid" },
      { field: "spec.b", message: "is\nmissing", reason: "FieldValueRequired" },
    ] as const;
    expect(errorLines(invalid('Bottle "x"', causes))).toEqual([
      'error: Bottle "x" is invalid',
      "  spec.a: is wrong",
      "  spec.b: is missing",
    ]);
    expect(errorLines(invalid('Bottle "x"', causes.slice(0, 1)))).toEqual([
      'error: Bottle "x" is invalid: spec.a: is wrong',
    ]);
    expect(errorLines(new Error("two\nlines"))).toEqual(["error: two lines"]);
    expect(errorLines(new Error("e"), true).join("\n")).toContain("text.test.ts");
  });

  it("have the exit code of their kind", () => {
    expect(exitCodeOf(new StatusError("NotFound", ""))).toBe(EXIT.notFound);
    expect(exitCodeOf(new StatusError("Conflict", ""))).toBe(EXIT.refused);
    expect(exitCodeOf(new StatusError("Unavailable", ""))).toBe(EXIT.unavailable);
    expect(exitCodeOf(new BackendError("Unavailable", "X", ""))).toBe(EXIT.unavailable);
    expect(exitCodeOf(new CommandError(EXIT.timedOut, ""))).toBe(EXIT.timedOut);
    expect(exitCodeOf("thrown text")).toBe(EXIT.error);
  });

  it("of a turn are its process's code, or say why there is none; a failure is never 0", () => {
    expect(turnExitCode({ outcome: "Done", exitCode: 0 })).toBe(0);
    expect(turnExitCode({ outcome: "Failed", exitCode: 9 })).toBe(9);
    expect(turnExitCode({ outcome: "Failed" })).toBe(1);
    expect(turnExitCode({ outcome: "Failed", exitCode: 0 })).toBe(1);
    expect(turnExitCode({ outcome: "DeadlineExceeded", exitCode: 143 })).toBe(124);
    expect(turnExitCode({ outcome: "Interrupted", exitCode: 143 })).toBe(75);
    expect(turnExitCode({ outcome: "OOMKilled", exitCode: 137 })).toBe(137);
  });
});

function filtered(text: string, sizes: readonly number[] = [text.length]): string {
  const filter = createOutputFilter();
  const bytes = Buffer.from(text);
  const out: Uint8Array[] = [];
  let at = 0;
  for (const size of [...sizes, bytes.length]) {
    out.push(filter(bytes.subarray(at, at + size)));
    at += size;
  }
  return Buffer.concat(out).toString();
}

describe("an agent's output on a terminal", () => {
  it("keeps text, tabs, line ends and colours", () => {
    const text = "plain\tÄ€\u{1f600}\r\n\u001b[1;31mred\u001b[0m";
    expect(filtered(text)).toBe(text);
  });

  it.each([
    ["a title", "\u001b]0;evil\u0007"],
    ["the clipboard", "\u001b]52;c;ZXZpbA==\u001b\\"],
    ["cursor movement", "\u001b[2A\u001b[2K\u001b[H"],
    ["a device control string", "\u001bPq evil \u001b\\"],
    ["a bell and backspaces", "\u0007\b\b"],
    ["two-byte control characters", "\u009b2J\u009d"],
    ["a reset", "\u001bc"],
  ])("drops %s", (_what, sequence) => {
    expect(filtered(`a${sequence}b`)).toMatch(/^a(2J)?b$/);
  });

  it("is the same however it is cut into chunks", () => {
    const part = fc.constantFrom(
      "text",
      "\u001b[31m",
      "\u001b]0;t\u0007",
      "\u001b[2J",
      "é",
      "\u0085",
      "\u001b",
      "[",
      "\u001bP",
      "\u001b\\",
      "m",
    );
    fc.assert(
      fc.property(fc.array(part, { maxLength: 12 }), fc.array(fc.nat(5), { maxLength: 30 }), (parts, sizes) => {
        const text = parts.join("");
        expect(filtered(text, sizes)).toBe(filtered(text));
      }),
    );
  });
});
