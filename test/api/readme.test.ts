import { readFileSync } from "node:fs";
import { expect, it } from "vitest";
import { CONDITION_TYPES } from "../../controller/api/conditions.ts";
import { TURN_OUTCOMES } from "../../controller/api/bottle.ts";
import { type Field, fieldOf } from "../../controller/api/fields.ts";
import { KINDS } from "../../controller/api/kinds.ts";
import { parseManifests } from "../../controller/api/manifest.ts";
import { METHODS } from "../../controller/api/egress.ts";
import { GUARD_ENV_NAMES } from "../../controller/api/guard-env.ts";
import { guardEnv } from "../../controller/plan/guard-env.ts";
import { BUILT_IN_RULES } from "../../controller/policy/built-in-rules.ts";
import { refusalBody } from "../../controller/policy/refusal.ts";
import { CA_BUNDLE_FILE, CA_FILE } from "../../controller/ports/backend.ts";
import { AUDIT_VERDICTS } from "../../controller/ports/guard.ts";
import { auditLine } from "../contract/store-audit-rules.ts";
import { bottle, CUSTOM, refusal, template } from "./objects.ts";

const README = readFileSync(new URL("../../crds/README.md", import.meta.url), "utf8");
const turn = { id: "1", prompt: "a" };
const turns = [turn, { id: "2", prompt: "b" }];
const stored = bottle({ turns });

function leavesOf(field: Field): string[] {
  if (field.type === "list") return leavesOf(field.item);
  if (field.type !== "object") return [];
  return [...field.properties].flatMap(([name, property]) => {
    const below = leavesOf(property.field);
    return below.length === 0 ? [name] : below;
  });
}

it.each([
  bottle({ lifecylce: {} }),
  bottle({ lifecycle: { turnDeadlineSeconds: "x" } }),
  bottle({ operatingMode: "frozen" }),
  bottle({ agent: CUSTOM }),
  bottle({ turns: [{ id: "1", prompt: "x".repeat(1024 * 1024) }] }),
  bottle({ turns: [turn, turn] }),
])("the README shows the refusal of a new bottle word for word (%#)", (object) => {
  expect(README).toContain(`\n${refusal("Bottle", object).message}\n`);
});

it.each([
  bottle({ turns: [{ id: "2", prompt: "b" }] }),
  bottle({
    turns: [
      { id: "1", prompt: "edited" },
      { id: "2", prompt: "b" },
    ],
  }),
  bottle({ turns, agentRef: { name: "other" } }),
])("the README shows the refusal of a changed bottle word for word (%#)", (object) => {
  expect(README).toContain(`\n${refusal("Bottle", object, stored).message}\n`);
});

it("the README shows the refusal of a credential in env word for word", () => {
  const { message } = refusal("BottleTemplate", template({ env: [{ name: "API_TOKEN", value: "x" }] }));

  expect(README).toContain(`\n${message}\n`);
});

it.each(["a: 1\nb: 2\na: 3\n", "apiVersion: v1\nkind: Pod\nmetadata: { name: x }\n"])(
  "the README shows the refusal of a file word for word (%#)",
  (text) => {
    const [document] = parseManifests(text, "bottles/a.yaml").documents;
    const message = document?.ok === false ? document.error.message : "";

    expect(README).toContain(`\n${message}\n`);
  },
);

it("the README names every built-in rule with its text, every verdict, method and variable of a guard", () => {
  const plain = README.replaceAll(/ +/g, " ");
  for (const [rule, text] of Object.entries(BUILT_IN_RULES)) expect(plain).toContain(`| \`${rule}\` | ${text} |`);
  const variables = Object.keys(guardEnv("token"));
  for (const word of [...AUDIT_VERDICTS, ...METHODS, ...variables, ...GUARD_ENV_NAMES, CA_FILE, CA_BUNDLE_FILE]) {
    expect(README).toContain(`\`${word}\``);
  }
});

it("the README names every field of an audit line, of a refusal and of a Secret", () => {
  const body = refusalBody({ rule: "", method: "", path: "", reason: "", ticket: "t" });
  for (const field of Object.keys(body)) expect(README).toContain(`"${field}"`.replace('"ticket"', "`ticket`"));
  const line = auditLine({ address: "192.0.2.1", status: 200, ticket: "t" });
  for (const field of Object.keys(line)) expect(README).toMatch(new RegExp(`\`${field}(\\[\\])?\``));
  for (const field of ["type", "data", "stringData", "immutable"]) expect(README).toContain(`\`${field}\``);
});

it("the README names every field, condition and outcome", () => {
  const fields = KINDS.flatMap(({ spec }) => leavesOf(fieldOf(spec)));

  for (const word of [...fields, ...CONDITION_TYPES, ...TURN_OUTCOMES]) expect(README).toContain(word);
});
