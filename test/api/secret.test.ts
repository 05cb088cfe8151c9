import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import { admit } from "../../controller/api/admit.ts";
import { parseManifests } from "../../controller/api/manifest.ts";
import {
  decodeBase64,
  encodeBase64,
  secretSizes,
  secretText,
  type SecretResource,
} from "../../controller/api/secret.ts";
import { refusal } from "./objects.ts";

const CANARY = "hunter2-canary";
const CANARY_BASE64 = encodeBase64(CANARY);

function secret(fields: object = {}): Record<string, unknown> {
  return { apiVersion: "v1", kind: "Secret", metadata: { name: "one" }, ...fields };
}

function admitted(object: object, old?: SecretResource): SecretResource {
  return admit("Secret", object, old) as SecretResource;
}

/** The field of each cause, after a look at the message for what it must not hold. */
function refusedFields(object: object, old?: SecretResource): string[] {
  const error = refusal("Secret", object as Record<string, unknown>, old as never);
  expect(error.reason).toBe("Invalid");
  for (const word of [CANARY, CANARY_BASE64]) {
    expect(JSON.stringify([error.message, error.causes])).not.toContain(word);
  }
  return error.causes.map(({ field }) => field);
}

describe("a Secret", () => {
  it("gets type Opaque, and stringData goes into data over what is there", () => {
    const object = secret({ data: { a: "b2xk", b: "Yg==" }, stringData: { a: "new", c: "" } });

    expect(admitted(object)).toEqual({
      apiVersion: "v1",
      kind: "Secret",
      metadata: { name: "one", namespace: "default" },
      type: "Opaque",
      data: { a: "bmV3", b: "Yg==", c: "" },
    });
  });

  it("may be empty, and null is an empty value", () => {
    expect(admitted(secret()).data).toEqual({});
    expect(admitted(secret({ data: { a: null }, stringData: null })).data).toEqual({ a: "" });
  });

  it("admitted again is the same", () => {
    fc.assert(
      fc.property(fc.dictionary(fc.stringMatching(/^[-_a-z][-._a-z]{0,5}$/), fc.string()), (stringData) => {
        const once = admitted(secret({ stringData }));
        expect(admitted(once)).toEqual(once);
        for (const [key, text] of Object.entries(stringData))
          expect(secretText(once, key)).toBe(Buffer.from(text).toString());
      }),
    );
  });

  it.each([
    ["data", { data: CANARY }],
    ["data", { data: [CANARY] }],
    ["data.a", { data: { a: CANARY } }],
    ["data.a", { data: { a: `${CANARY_BASE64.slice(0, -1)}!` } }],
    ["data.a", { data: { a: 1 } }],
    ["data", { data: { [CANARY + " "]: "" } }],
    ["data", { data: { "": CANARY_BASE64 } }],
    ["data", { data: { "..": CANARY_BASE64 } }],
    ["stringData", { stringData: CANARY }],
    ["stringData.a", { stringData: { a: { b: CANARY } } }],
    ["stringData.a", { stringData: { a: 12_345_678 } }],
    ["immutable", { immutable: CANARY }],
    ["type", { type: { a: CANARY } }],
    ["", { [CANARY]: "x" }],
    ["stringdata", { stringdata: { a: CANARY } }],
    ["spec", { spec: CANARY }],
  ])("is refused at %j without a word of its value (%#)", (field, fields) => {
    const fieldOr = field === "spec" ? "" : field;

    expect(refusedFields(secret(fields))).toEqual([fieldOr]);
  });

  it("holds at most 1 MiB of values and 512 keys", () => {
    const half = "x".repeat(512 * 1024);

    expect(secretSizes(admitted(secret({ stringData: { a: half, b: half } })))).toEqual([
      ["a", half.length],
      ["b", half.length],
    ]);
    expect(refusedFields(secret({ stringData: { a: half, b: half, c: "x" } }))).toEqual(["data"]);
    const many = Object.fromEntries(Array.from({ length: 513 }, (_, n) => [`k${n}`, ""]));
    expect(refusedFields(secret({ data: many }))).toEqual(["data"]);
  });

  it("keeps its type, and once immutable its data", () => {
    const old = admitted(secret({ immutable: true, stringData: { a: CANARY } }));

    expect(admitted(secret({ immutable: true, data: { a: CANARY_BASE64 } }), old)).toEqual(old);
    expect(refusedFields(secret({ type: "other", immutable: true, data: old.data }), old)).toEqual(["type"]);
    expect(refusedFields(secret({ data: old.data }), old)).toEqual(["immutable"]);
    expect(refusedFields(secret({ immutable: false, data: {} }), old)).toEqual(["immutable", "data"]);
    const changed = { ...old, immutable: undefined };
    expect(admitted(secret({ data: {} }), changed).data).toEqual({});
  });
});

describe("base64", () => {
  it("is what Buffer writes, with or without line ends", () => {
    fc.assert(
      fc.property(fc.uint8Array(), (bytes) => {
        const text = encodeBase64(bytes);
        expect(decodeBase64(text.replaceAll(/(.{3})/g, "$1\r\n"))).toEqual(bytes);
        if (text !== "") expect(decodeBase64(text.slice(1))).toBeUndefined();
      }),
    );
  });

  it.each(["a", "ab", "a===", "====", "ab=c", "a b=", "ab-_", "é==="])("is not %j", (text) => {
    expect(decodeBase64(text)).toBeUndefined();
  });

  it("of bytes that are no text has no text", () => {
    expect(secretText({ data: { a: "/w==" } }, "a")).toBeUndefined();
    expect(secretText({ data: {} }, "constructor")).toBeUndefined();
    expect(secretText({ data: { a: encodeBase64("\u{feff}x") } }, "a")).toBe("\u{feff}x");
  });
});

describe("a file with a Secret", () => {
  it("is read beside other kinds, and needs apiVersion v1", () => {
    const [good, bad] = parseManifests(
      "apiVersion: v1\nkind: Secret\nmetadata: { name: a }\n---\n" +
        "apiVersion: bot-bottle.dev/v1alpha1\nkind: Secret\nmetadata: { name: b }\n",
      "x.yaml",
    ).documents;

    expect(good).toMatchObject({ ok: true, object: { kind: "Secret" } });
    expect(bad?.ok === false && bad.error.message).toBe(
      'x.yaml:5: Secret "b" is invalid: apiVersion: must be v1, got "bot-bottle.dev/v1alpha1"',
    );
  });

  // What a parser says of a value that begins with a sign of its own holds that value.
  it.each(["*", "!", "&a &", "|", ">", "@", "`", '"', "'", "{", "[", "%", "- ", "? ", ": ", "a: b: ", "\t"])(
    "that goes wrong at %j is refused without a word of the value",
    (sign) => {
      const text = `apiVersion: v1\nkind: Secret\nmetadata: { name: a }\nstringData:\n  token: ${sign}${CANARY}\n`;
      for (const document of parseManifests(text, "x.yaml").documents) {
        const refused = document.ok ? refusalOf(document.object) : document.error;
        if (refused !== undefined) expect(JSON.stringify([refused.message, refused.causes])).not.toContain(CANARY);
      }
    },
  );
});

function refusalOf(object: object): ReturnType<typeof refusal> | undefined {
  try {
    admitted(object);
    return undefined;
  } catch {
    return refusal("Secret", object as Record<string, unknown>);
  }
}
