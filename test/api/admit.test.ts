import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import { admit } from "../../controller/api/admit.ts";
import { agent, bottle, causesOf, CUSTOM, refusal, template } from "./objects.ts";

const PROMPT = "Rewrite the payroll export, password hunter2";

describe("what is admitted", () => {
  it("defaults are filled in, also the namespace", () => {
    const draft = { ...bottle({ lifecycle: {}, workspace: {} }), metadata: { name: "one" } };

    expect(admit("Bottle", draft, undefined)).toEqual({
      apiVersion: "bot-bottle.dev/v1alpha1",
      kind: "Bottle",
      metadata: { name: "one", namespace: "default" },
      spec: {
        agentRef: { name: "worker" },
        operatingMode: "Running",
        workspace: { type: "Empty" },
        lifecycle: { afterTurn: "Freeze", turnDeadlineSeconds: 3600 },
      },
    });
  });

  it("admitting an admitted object changes nothing", () => {
    const spec = fc.record(
      {
        turns: fc.uniqueArray(
          fc.record({ id: fc.stringMatching(/^[a-z0-9]{1,5}$/), prompt: fc.string({ minLength: 1 }) }),
          {
            selector: (turn) => turn.id,
            maxLength: 8,
          },
        ),
        lifecycle: fc.record({ ttlSecondsAfterFrozen: fc.nat(100) }, { requiredKeys: [] }),
        operatingMode: fc.constantFrom("Running", "Frozen"),
        label: fc.stringMatching(/^[a-z ]{1,20}$/),
      },
      { requiredKeys: [] },
    );
    fc.assert(
      fc.property(spec, (fields) => {
        const turns = fields.turns?.filter((turn) => !turn.prompt.includes("\0"));
        const once = admit("Bottle", bottle({ ...fields, turns }), undefined);
        expect(admit("Bottle", once, undefined)).toEqual(once);
        expect(admit("Bottle", once, once as never)).toEqual(once);
      }),
      { numRuns: 100 },
    );
  });

  it("the object handed in is not changed", () => {
    const draft = Object.freeze({ ...bottle({ lifecycle: {} }), metadata: Object.freeze({ name: "one" }) });

    expect(() => admit("Bottle", draft, undefined)).not.toThrow();
    expect(draft.spec).not.toHaveProperty("operatingMode");
  });

  it("what the store and kubectl write under metadata passes, and what only an API server uses is dropped", () => {
    const metadata = {
      name: "one",
      namespace: "team",
      uid: "u",
      resourceVersion: "7",
      generation: 2,
      creationTimestamp: null,
      finalizers: ["bot-bottle.dev/bottle"],
      labels: { "app.example/name": "x", empty: "" },
      annotations: { note: "any\ntext" },
      managedFields: [{}],
    };
    const admitted = admit("Bottle", { ...bottle(), metadata }, undefined);

    const { creationTimestamp: _, managedFields: __, ...kept } = metadata;
    expect(admitted).toHaveProperty("metadata", kept);
  });

  it("a spec that is stored already is not judged again, so that a finalizer can always be removed", () => {
    const stored = bottle({ label: "\u001b[31m" });

    expect(admit("Bottle", structuredClone(stored), stored as never)).toEqual(stored);
    expect(causesOf("Bottle", stored)).toHaveLength(1);
  });

  it("status passes unseen", () => {
    expect(admit("Bottle", { ...bottle(), status: { any: 1 } }, undefined)).toHaveProperty("status", { any: 1 });
  });

  it("an event passes with light checks", () => {
    const event = {
      apiVersion: "v1",
      kind: "Event",
      metadata: { name: "one.1", namespace: "default" },
      involvedObject: { kind: "Bottle" },
      type: "Normal",
      reason: "Frozen",
      message: "frozen",
    };

    expect(admit("Event", { ...event, metadata: { ...event.metadata, name: "one" } }, undefined)).toMatchObject({
      reason: "Frozen",
    });
    expect(refusal("Event", { ...event, involvedObject: 1 }).reason).toBe("Invalid");
  });
});

describe("what is refused", () => {
  it("is refused as Invalid, 422, with kind and name", () => {
    const error = refusal("Bottle", bottle({ color: "pink" }));

    expect([error.reason, error.code]).toEqual(["Invalid", 422]);
    expect(error.message).toMatch(
      /^Bottle "one" is invalid: spec\.color: must be "black", .* or "brightWhite", got "pink"/,
    );
  });

  it.each<[string, unknown, [string, string][]]>([
    [
      "an unknown field near a known one",
      bottle({ lifecylce: {} }),
      [["spec.lifecylce", "unknown field: did you mean lifecycle?"]],
    ],
    [
      "a misspelt required field, once",
      bottle({ turns: [{ id: "1", promt: "x" }] }),
      [["spec.turns[0].promt", "unknown field: did you mean prompt?"]],
    ],
    [
      "a misspelt agentRef, once",
      { ...bottle(), spec: { agentref: { name: "x" } } },
      [["spec.agentref", "unknown field: did you mean agentRef?"]],
    ],
    [
      "an unknown field far from any",
      bottle({ turns: [{ id: "1", prompt: "x", deadlineInMinutes: 3 }] }),
      [["spec.turns[0].deadlineInMinutes", "unknown field: remove it; the known fields are id, prompt"]],
    ],
    ["a spec field at the top", { ...bottle(), turns: [] }, [["turns", "unknown field: did you mean spec.turns?"]]],
    [
      "a word for a number",
      bottle({ lifecycle: { turnDeadlineSeconds: "x" } }),
      [["spec.lifecycle.turnDeadlineSeconds", 'must be a whole number, got the string "x"']],
    ],
    [
      "a fraction",
      bottle({ resources: { pids: 20.5 } }),
      [["spec.resources.pids", "must be a whole number, got the number 20.5"]],
    ],
    [
      "a number out of bounds",
      bottle({ resources: { pids: 2 } }),
      [["spec.resources.pids", "must be at least 16, got 2"]],
    ],
    [
      "a number for a string",
      bottle({ resources: { cpu: 2 } }),
      [["spec.resources.cpu", "must be a string, got the number 2: put it in quotes"]],
    ],
    [
      "a string for an object",
      bottle({ agentRef: "worker" }),
      [["spec.agentRef", "must be an object with name, got a string"]],
    ],
    ["an object for a list", bottle({ turns: {} }), [["spec.turns", "must be a list, got an object"]]],
    [
      "null",
      bottle({ label: null }),
      [["spec.label", "must be a string, got null: write a value or remove the field"]],
    ],
    [
      "a value of the wrong case",
      bottle({ operatingMode: "frozen" }),
      [["spec.operatingMode", 'must be "Running" or "Frozen", got "frozen": did you mean Frozen?']],
    ],
    [
      "neither agent nor agentRef",
      { ...bottle(), spec: {} },
      [["spec", "agent and agentRef: write exactly one of them"]],
    ],
    ["both agent and agentRef", bottle({ agent: CUSTOM }), [["spec", "agent and agentRef: write exactly one of them"]]],
    [
      "a duplicate turn id",
      bottle({
        turns: [
          { id: "a", prompt: "x" },
          { id: "b", prompt: "y" },
          { id: "a", prompt: "z" },
        ],
      }),
      [["spec.turns[2].id", 'duplicate of spec.turns[0]: id "a" is used twice: each item needs its own id']],
    ],
    [
      "no spec",
      { ...bottle(), spec: undefined },
      [
        [
          "spec",
          "is missing: write spec with agentRef, agent, templateRefs, backend, operatingMode, turns, workspace, lifecycle, resources, label, color",
        ],
      ],
    ],
    ["no name", { ...bottle(), metadata: {} }, [["metadata.name", "is missing: write a name, e.g. my-bottle"]]],
    [
      "an upper-case name",
      { ...bottle(), metadata: { name: "Fix" } },
      [
        [
          "metadata.name",
          "must be lower-case letters, digits and '-', starting and ending with a letter or digit, got \"Fix\"",
        ],
      ],
    ],
    [
      "another kind",
      { ...bottle(), kind: "Pod", apiVersion: "v1" },
      [
        ["apiVersion", 'must be bot-bottle.dev/v1alpha1, got "v1"'],
        ["kind", 'must be Bottle, got "Pod"'],
      ],
    ],
    ["something else", "x", [["", "must be an object with apiVersion, kind, metadata and spec, got a string"]]],
  ])("%s is named with its field and what to write instead", (_, object, causes) => {
    expect(causesOf("Bottle", object)).toEqual(causes);
  });

  it("every cause is listed at once, in field order", () => {
    const turns = Array.from({ length: 11 }, (_, index) => ({
      id: `t${index}`,
      prompt: index < 2 || index > 9 ? "" : "x",
    }));
    const fields = causesOf("Bottle", bottle({ agent: CUSTOM, turns, color: "pink", resources: { cpu: "0" } })).map(
      ([field]) => field,
    );

    expect(fields).toEqual([
      "spec",
      "spec.color",
      "spec.resources.cpu",
      "spec.turns[0].prompt",
      "spec.turns[1].prompt",
      "spec.turns[10].prompt",
    ]);
  });

  it("a prompt of a megabyte is refused with its length, the limit and a way out, and is not repeated", () => {
    const error = refusal("Bottle", bottle({ turns: [{ id: "1", prompt: PROMPT.repeat(24_000) }] }));

    expect(error.causes).toEqual([
      {
        field: "spec.turns[0].prompt",
        message:
          "has 1,056,000 characters, at most 32,000 are allowed: put the text in a file in the workspace and name that file in the prompt",
        reason: "FieldValueTooLong",
      },
    ]);
    expect(error.message.length).toBeLessThan(300);
  });

  it("prompts, values of env and commands never stand in a message", () => {
    const secret = "hunter2";
    const refused = [
      refusal("Bottle", bottle({ turns: [{ id: "1", prompt: `${PROMPT}\0` }] })),
      refusal("Bottle", bottle({ turns: PROMPT })),
      refusal("Bottle", bottle({ turns: [PROMPT] })),
      refusal(
        "Bottle",
        bottle({ turns: [{ id: "1", prompt: "x" }] }),
        bottle({ turns: [{ id: "1", prompt: PROMPT }] }),
      ),
      refusal("BottleTemplate", template({ env: [{ name: "A", value: `${secret}\0` }] })),
      refusal("BottleTemplate", template({ env: { A: secret } })),
      refusal("BottleTemplate", template({ env: `A=${secret}` })),
      refusal("Agent", agent({ provider: { type: "Custom", custom: { command: [`--token=${secret}\0`] } } })),
      refusal("Agent", agent({ provider: { type: "Custom", custom: { command: secret } } })),
    ];

    for (const error of refused) expect(JSON.stringify([error.message, error.causes])).not.toContain(secret);
  });

  it("a long value is shortened to sixty characters", () => {
    const [[, message] = ["", ""]] = causesOf("Bottle", bottle({ backend: { type: "x".repeat(500) } }));

    expect(message).toContain(`got "${"x".repeat(60)}…"`);
    expect(message).not.toContain("x".repeat(61));
  });

  it("a message is one line, whatever the value", () => {
    fc.assert(
      fc.property(fc.string({ unit: "binary" }), (text) => {
        const { message } = refusal("Bottle", bottle({ color: `?${text}`, [`?${text}`]: 1 }));
        expect(message).not.toMatch(/[\p{Cc}\p{Zl}\p{Zp}]/u);
      }),
      { numRuns: 200 },
    );
  });

  it("of very many causes the first twenty are listed", () => {
    const turns = Array.from({ length: 250 }, (_, index) => ({ id: `t${index}`, prompt: 1 }));
    const causes = causesOf("Bottle", bottle({ turns }));

    expect(causes).toHaveLength(21);
    expect(causes.at(-1)).toEqual(["", "and 230 more: correct these first"]);
  });

  it("any JSON value is either admitted or refused as Invalid", () => {
    fc.assert(
      fc.property(fc.jsonValue(), fc.constantFrom("Bottle", "Agent", "BottleTemplate"), (spec, kind) => {
        const object = { apiVersion: "bot-bottle.dev/v1alpha1", kind, metadata: { name: "one" }, spec };
        try {
          admit(kind as "Bottle", object, undefined);
        } catch (error) {
          expect(error).toMatchObject({ reason: "Invalid" });
        }
      }),
      { numRuns: 300 },
    );
  });

  it("a list or a nesting far beyond its bound is refused without being compared item by item", () => {
    const turns = Array.from({ length: 50_000 }, (_, index) => ({ id: `t${index}`, prompt: "x" }));
    const old = bottle({ turns: turns.slice(0, 256) });
    const deep = JSON.parse(`${"[".repeat(100_000)}${"]".repeat(100_000)}`) as unknown;

    expect(causesOf("Bottle", bottle({ turns }), old)).toEqual([
      ["spec.turns", "has 50,000 items, at most 256 are allowed: remove some"],
    ]);
    expect(causesOf("Bottle", bottle({ color: deep }))).toHaveLength(1);
  });

  it.each([
    ["a label key", { labels: { "a b": "c" } }, "metadata.labels"],
    ["a label value", { labels: { a: "b c" } }, "metadata.labels"],
    ["a number as a label", { labels: { a: 1 } }, "metadata.labels"],
    ["annotations beyond 256 KiB", { annotations: { a: "x".repeat(300_000) } }, "metadata.annotations"],
    ["an unknown field", { lables: {} }, "metadata.lables"],
    ["a finalizer", { finalizers: ["a b"] }, "metadata.finalizers"],
    ["an owner", { ownerReferences: [{}] }, "metadata.ownerReferences"],
    ["a namespace", { namespace: "A" }, "metadata.namespace"],
  ])("metadata: %s that Kubernetes would refuse is refused", (_, metadata, field) => {
    expect(
      causesOf("Bottle", { ...bottle(), metadata: { name: "one", ...metadata } }).map((cause) => cause[0]),
    ).toEqual([field]);
  });
});

describe("images and quantities", () => {
  it.each([
    "debian",
    "debian:12",
    "registry.example:5000/a/b-c.d__e:v1",
    "Registry.example/x",
    `a/b@sha256:${"0".repeat(64)}`,
    "localhost/x",
  ])("%s is an image", (image) => {
    expect(() => admit("BottleTemplate", template({ image }), undefined)).not.toThrow();
  });

  it.each([
    "",
    "-a",
    "a b",
    "a:",
    "a//b",
    "A",
    "a@sha256:12",
    "http://x/y",
    `a${"-a".repeat(200)}!`,
    `${"a".repeat(600)}`,
  ])("%s is no image, and saying so is quick", (image) => {
    expect(causesOf("BottleTemplate", template({ image })).map(([field]) => field)).toEqual(["spec.image"]);
  });

  it.each([
    ["cpu", "2 cores"],
    ["cpu", "-1"],
    ["memory", "512"],
    ["memory", "4Pi"],
    ["memory", "1000000Ti"],
    ["memory", "4 Gi"],
  ])("%s %s is no quantity", (name, value) => {
    expect(causesOf("Bottle", bottle({ resources: { [name]: value } })).map(([field]) => field)).toEqual([
      `spec.resources.${name}`,
    ]);
  });
});
