import { API_VERSION } from "../../controller/api/meta.ts";
import { stringify } from "yaml";
import { bottleManifest, bottleYaml, SHELL_AGENT } from "./bottles.ts";

/** Something a person got wrong. */
export interface BadInput {
  what: string;
  /** What the file holds. */
  content: string | Uint8Array;
  /** The field, the value and the remedy, as the message names them. */
  says: RegExp;
  /** What was declared before, of the same name; its declaration is refused and it stays as it is. */
  before?: string;
}

function bottle(name: string, spec: object): string {
  return stringify({ apiVersion: API_VERSION, kind: "Bottle", metadata: { name }, spec });
}

function templates(...bases: readonly [string, string][]): string {
  return bases
    .map(([name, base]) =>
      stringify({
        apiVersion: API_VERSION,
        kind: "BottleTemplate",
        metadata: { name },
        spec: { extendsRef: { name: base } },
      }),
    )
    .join("---\n");
}

/** Nine lines that stand for half a million nodes. */
function bomb(): string {
  const letters = "abcdef".split("");
  const lines = letters.map((letter, index) => {
    const item = index === 0 ? "x" : `*${letters[index - 1]}`;
    return `${letter}: &${letter} [${Array.from({ length: 9 }, () => item).join(", ")}]`;
  });
  return [...lines, bottleYaml("bomb", []), ""].join("\n");
}

/** By the name of the object, which is also that of the file. */
export const BAD_INPUTS: Readonly<Record<string, BadInput>> = {
  "unknown-field": {
    what: "an unknown field",
    content: bottle("unknown-field", { agent: SHELL_AGENT, trns: [] }),
    says: /Bottle "unknown-field" is invalid: spec\.trns: unknown field: did you mean turns\?/,
  },
  "wrong-type": {
    what: "a value of the wrong type",
    content: bottle("wrong-type", { agent: SHELL_AGENT, turns: "go" }),
    says: /Bottle "wrong-type" is invalid: spec\.turns: .*list.*/,
  },
  "two-agents": {
    what: "agent and agentRef at once",
    content: bottle("two-agents", { agent: SHELL_AGENT, agentRef: { name: "a" } }),
    says: /Bottle "two-agents" is invalid: spec: agent and agentRef: write exactly one of them/,
  },
  circle: {
    what: "templates that extend one another",
    content: templates(["circle", "round"], ["round", "circle"]),
    says: /BottleTemplate "circle" is invalid: spec\.extendsRef\.name: extends itself \(circle -> round -> circle\): let one/,
  },
  "long-prompt": {
    what: "a prompt of a megabyte",
    content: bottleYaml("long-prompt", ["x".repeat(1_000_000)]),
    says: /spec\.turns\[0\]\.prompt: has 1,000,000 characters, at most 32,000 are allowed: put the text in a file/,
  },
  "same-id": {
    what: "two turns with one id",
    content: bottle("same-id", {
      agent: SHELL_AGENT,
      turns: [
        { id: "go", prompt: "a" },
        { id: "go", prompt: "b" },
      ],
    }),
    says: /spec\.turns\[1\]\.id: duplicate of spec\.turns\[0\]: id "go" is used twice: each item needs its own id/,
  },
  "removed-turn": {
    what: "a turn that is gone from the declaration",
    before: bottleYaml("removed-turn", ["true", "true"], { operatingMode: "Frozen" }),
    content: bottleYaml("removed-turn", ["true"], { operatingMode: "Frozen" }),
    says: /spec\.turns: a turn was removed: turns are append-only, so keep every declared turn.*\(removed: "2"\)/,
  },
  "edited-turn": {
    what: "a turn with another prompt than before",
    before: bottleYaml("edited-turn", ["true"], { operatingMode: "Frozen" }),
    content: bottleYaml("edited-turn", ["false"], { operatingMode: "Frozen" }),
    says: /spec\.turns\[0\]\.prompt: is part of a turn that was already declared: .* add a turn with a new id instead/,
  },
  "not-utf8": {
    what: "bytes that are no UTF-8",
    content: Buffer.concat([Buffer.from(stringify(bottleManifest("not-utf8", []))), Buffer.from([0x23, 0xff, 0xfe])]),
    says: /not-utf8\.yaml: not UTF-8: the byte at offset \d+ is out of place: save the file as UTF-8/,
  },
  bomb: {
    what: "aliases that unfold without end",
    content: bomb(),
    says: /bomb\.yaml:\d+: aliases \(\*name\) stand for more than 50 nodes: write the values out/,
  },
};
