import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import { parseManifests } from "../../controller/api/manifest.ts";

const HEAD = "apiVersion: bot-bottle.dev/v1alpha1\n";
const bottle = (name: string) => `${HEAD}kind: Bottle\nmetadata:\n  name: ${name}\nspec:\n  agentRef: { name: a }\n`;
const parse = (text: string | Uint8Array) => parseManifests(text, "dir/b.yaml").documents;

/** Reason, code, message and line of the only refusal. */
function refused(text: string | Uint8Array) {
  const documents = parse(text);
  expect(documents).toHaveLength(1);
  const [document] = documents;
  if (document === undefined || document.ok) throw new Error("it was accepted");
  return { ...document, reason: document.error.reason, code: document.error.code, message: document.error.message };
}

describe("what is read", () => {
  it("many documents, each with its line, empty ones left out", () => {
    const documents = parse(`# a comment\n---\n${bottle("one")}---\n---\n# nothing\n---\n${bottle("two")}`);

    expect(documents.map((document) => document.ok && [document.object.metadata.name, document.line])).toEqual([
      ["one", 3],
      ["two", 13],
    ]);
  });

  it("JSON, a byte order mark and Windows line ends", () => {
    const object = {
      apiVersion: "bot-bottle.dev/v1alpha1",
      kind: "Bottle",
      metadata: { name: "one" },
      spec: { turns: [{ id: "1", prompt: "a\nb" }] },
    };

    expect(parse(JSON.stringify(object, undefined, "\t"))).toEqual([{ ok: true, object, line: 1 }]);
    expect(parse(new TextEncoder().encode(`\ufeff${bottle("one").replaceAll("\n", "\r\n")}`))[0]?.ok).toBe(true);
  });

  it("the items of a List, each by itself", () => {
    const documents = parse(
      `apiVersion: v1\nkind: List\nitems:\n- kind: Foo\n- ${bottle("one").trim().replaceAll("\n", "\n  ")}\n`,
    );

    expect(documents.map(({ ok, line }) => [ok, line])).toEqual([
      [false, 4],
      [true, 5],
    ]);
  });

  it("an anchor used a few times", () => {
    const text = `${bottle("one")}  templateRefs: [&t { name: x }, *t, *t]\n`;

    expect(parse(text)[0]).toMatchObject({
      object: { spec: { templateRefs: [{ name: "x" }, { name: "x" }, { name: "x" }] } },
    });
  });

  it("yes and no stay words, as in YAML 1.2", () => {
    expect(parse(`${bottle("one")}  label: yes\n`)[0]).toMatchObject({ object: { spec: { label: "yes" } } });
  });

  it("a broken document does not take its neighbours along, and says which object it meant", () => {
    const documents = parse(`${bottle("one")}---\n${bottle("two")}  label: [1\n---\n${bottle("three")}`);

    expect(
      documents.map((document) => (document.ok ? document.object.metadata.name : [document.kind, document.name])),
    ).toEqual(["one", ["Bottle", "two"], "three"]);
  });
});

describe("what is refused", () => {
  it.each([
    ["a tab", "a:\n\t- b\n", "dir/b.yaml:2:1:", "indent with spaces"],
    ["a duplicate key", "a: 1\nb: 2\na: 3\n", "dir/b.yaml:3:1:", "remove one of the two"],
    ["a colon in a value", "a: b: c\n", "dir/b.yaml:1:4:", "in quotes"],
    ["an unclosed bracket", "a: {b: 1\n", "dir/b.yaml:", "indent"],
    ["an unclosed quote", 'a: "b\n', "dir/b.yaml:", "write the missing character"],
    ["an unknown anchor", "a: *x\n", "dir/b.yaml:1:", "define the anchor first"],
    ["a tag", "a: !!binary aGk=\n", "dir/b.yaml:1:4:", "remove the tag"],
    ["a key that is no string", "? [a]\n: b\n", "dir/b.yaml:1:3:", "put the key in quotes"],
    ["a merge key", "a: &a { b: 1 }\nc: { <<: *a }\n", "dir/b.yaml:1:", "write the fields out"],
    ["__proto__", "a: { __proto__: { b: 1 } }\n", "dir/b.yaml:1:", "remove it"],
    ["a scalar", "hello\n", "dir/b.yaml:1:", "must be an object"],
  ])("%s, with file, place and remedy", (_, text, place, remedy) => {
    const { reason, code, message } = refused(text);

    expect([reason, code]).toEqual(["BadRequest", 400]);
    expect(message.startsWith(place)).toBe(true);
    expect(message).toContain(remedy);
    expect(message).not.toContain("\n");
  });

  it.each<[string, string, [string, string][]]>([
    [
      "no kind, version and name",
      "spec: {}\n",
      [
        ["apiVersion", "is missing: write bot-bottle.dev/v1alpha1"],
        ["kind", "is missing: write Secret, BottleTemplate, Agent or Bottle"],
        ["metadata.name", "is missing: write a name, e.g. my-bottle"],
      ],
    ],
    [
      "another group",
      "apiVersion: v1\nkind: Pod\nmetadata: { name: x }\n",
      [
        ["apiVersion", 'must be bot-bottle.dev/v1alpha1, got "v1"'],
        ["kind", 'unknown kind "Pod": write Secret, BottleTemplate, Agent or Bottle'],
      ],
    ],
    [
      "a name that is a number",
      `${HEAD}kind: Bottle\nmetadata: { name: 5 }\n`,
      [["metadata.name", "must be a string, got 5: put it in quotes"]],
    ],
    [
      "metadata that is a word",
      `${HEAD}kind: Bottle\nmetadata: x\n`,
      [["metadata", "must be an object: write the name below it, as in { name: my-bottle }"]],
    ],
  ])("%s, with each field", (_, text, causes) => {
    const { reason, error } = refused(text);

    expect(reason).toBe("Invalid");
    expect(error.causes.map(({ field, message }) => [field, message])).toEqual(causes);
  });

  it("bytes that are not UTF-8, with the offset", () => {
    const text = new TextEncoder().encode(`${bottle("ünë")}# `);
    const broken = new Uint8Array([...text, 0xe2, 0x82, 0x28, 0x0a]);

    expect(refused(broken)).toMatchObject({
      code: 400,
      message: expect.stringContaining(`offset ${text.length + 2} `) as string,
    });
    expect(refused(broken.slice(0, text.length + 2)).message).toContain(`offset ${text.length + 2} `);
  });

  it("a NUL character, with the line", () => {
    expect(refused("a: 1\nb: \0\n").message).toBe(
      "dir/b.yaml:2: a NUL character: the file is binary or damaged, write it again as UTF-8 text",
    );
  });

  it("aliases that multiply", () => {
    const laughs = Array.from(
      { length: 12 },
      (_, index) => `l${index + 1}: &l${index + 1} [${Array(9).fill(`*l${index}`).join(", ")}]`,
    );

    expect(refused(`l0: &l0 [ha]\n${laughs.join("\n")}\n`).message).toContain("write the values out");
    expect(refused("a: &a [*a]\n").code).toBe(400);
  });

  it.each([
    ["flow lists", "[".repeat(100_000)],
    ["flow objects", "{a: ".repeat(100_000)],
    ["lists on one line", "- ".repeat(100_000)],
    ["explicit keys", "? ".repeat(100_000)],
    ["indented objects", Array.from({ length: 1000 }, (_, level) => `${" ".repeat(level)}a:`).join("\n")],
    ["sixty-five levels", `a: ${"[".repeat(64)}${"]".repeat(64)}`],
  ])("deep nesting: %s", (_, text) => {
    expect(refused(text).message).toContain("nested deeper than 64 levels");
  });

  it("sixty-three levels are not too deep", () => {
    const text = `${bottle("one")}  label: ${"[".repeat(60)}${"]".repeat(60)}\n`;

    expect(parse(text)[0]?.ok).toBe(true);
  });

  it.each([
    ["a file beyond 4 MiB", "#".repeat(4 * 1024 * 1024 + 1), "at most 4 MiB"],
    ["more than a thousand documents", "a: 1\n---\n".repeat(1001), "more than 1000 objects"],
    ["more than a thousand items", `kind: List\nitems:\n${"- {}\n".repeat(1001)}`, "more than 1000 objects"],
    ["too many values", `a:\n${"- a\n".repeat(300_000)}`, "too many values"],
  ])("%s", (_, text, message) => {
    expect(refused(text)).toMatchObject({ code: 400, line: 1, message: expect.stringContaining(message) as string });
  });

  it("any text gives documents or refusals, never an exception", () => {
    const piece = fc.constantFrom(
      "a",
      ": ",
      "- ",
      "\n",
      "  ",
      "[",
      "]",
      "{",
      "}",
      "&a ",
      "*a",
      "!t ",
      '"',
      "'",
      "|",
      ">",
      "---\n",
      "#",
      "? ",
      "%Y",
      "\t",
      ",",
      bottle("x"),
    );
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 40 }), (pieces) => {
        for (const document of parse(pieces.join(""))) {
          if (!document.ok) expect(["Invalid", "BadRequest"]).toContain(document.error.reason);
        }
      }),
      { numRuns: 300 },
    );
  });
});
