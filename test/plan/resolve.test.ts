import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { Agent, AgentSpec } from "../../controller/api/agent.ts";
import type { Bottle, BottleSpec } from "../../controller/api/bottle.ts";
import type { BottleTemplate, BottleTemplateSpec } from "../../controller/api/template.ts";
import { canonicalJson, sha256 } from "../../controller/plan/digest.ts";
import {
  type EffectiveTemplate,
  findTemplateCycle,
  mergeTemplate,
  resolveBottle,
} from "../../controller/plan/resolve.ts";

const EMPTY: EffectiveTemplate = { env: [], resources: {} };
const WORKER: AgentSpec = { provider: { type: "Custom", custom: { command: ["true"] } } };

const metadata = (name: string) => ({
  name,
  namespace: "default",
  uid: name,
  resourceVersion: "1",
  generation: 1,
  creationTimestamp: "2026-01-01T00:00:00Z",
});
const apiVersion = "bot-bottle.dev/v1alpha1";

function template(name: string, spec: BottleTemplateSpec, namespace = "default"): BottleTemplate {
  return { apiVersion, kind: "BottleTemplate", metadata: { ...metadata(name), namespace }, spec };
}

function bottle(spec: Partial<BottleSpec>): Bottle {
  return { apiVersion, kind: "Bottle", metadata: metadata("one"), spec: { operatingMode: "Running", ...spec } };
}

/** A bottle of these template names, resolved among these templates. */
function resolve(refs: string[], templates: Record<string, BottleTemplateSpec>, spec: Partial<BottleSpec> = {}) {
  return resolveBottle(bottle({ agent: WORKER, templateRefs: refs.map((name) => ({ name })), ...spec }), {
    agent: (): Agent | undefined => undefined,
    template: (name) => (Object.hasOwn(templates, name) ? template(name, templates[name] ?? {}) : undefined),
    secret: () => undefined,
  });
}

function merged(...args: Parameters<typeof resolve>): EffectiveTemplate {
  const resolution = resolve(...args);
  if (!resolution.ok) throw new Error(resolution.message);
  return resolution.template;
}

function digest(...args: Parameters<typeof resolve>): string {
  const resolution = resolve(...args);
  return resolution.ok ? resolution.digest : resolution.message;
}

/** A chain of so many templates, t0 on top. */
function chain(length: number): Record<string, BottleTemplateSpec> {
  const link = (index: number) => (index + 1 < length ? { extendsRef: { name: `t${index + 1}` } } : {});
  return Object.fromEntries(Array.from({ length }, (_, index) => [`t${index}`, link(index)]));
}

const envOf = (names: string[]) =>
  fc.uniqueArray(fc.record({ name: fc.constantFrom(...names), value: fc.string({ maxLength: 3 }) }), {
    selector: (variable) => variable.name,
  });
const specOf = (names: string[]) =>
  fc.record<BottleTemplateSpec>(
    {
      image: fc.constantFrom("a", "b"),
      env: envOf(names),
      resources: fc.record(
        { cpu: fc.constantFrom("1", "2"), pids: fc.integer({ min: 16, max: 18 }) },
        { requiredKeys: [] },
      ),
      allowedBackends: fc.uniqueArray(fc.constantFrom("Docker", "Bubblewrap")),
    },
    { requiredKeys: [] },
  );

describe("the merge", () => {
  it("a bottle without templates has an empty environment and its own limits", () => {
    expect(merged([], {}, { resources: { cpu: "2" } })).toEqual({ env: [], resources: { cpu: "2" } });
  });

  it("later wins field by field; backends must be allowed by all; the bottle's limits come last", () => {
    const base = {
      image: "base",
      env: [
        { name: "B", value: "1" },
        { name: "A", value: "1" },
      ],
      resources: { cpu: "1", memory: "1Gi" },
    };
    const over = {
      image: "over",
      env: [{ name: "A", value: "2" }],
      resources: { memory: "2Gi", pids: 64 },
      allowedBackends: ["Docker" as const],
    };

    expect(merged(["base", "over"], { base, over }, { resources: { pids: 99 } })).toEqual({
      image: "over",
      env: [
        { name: "A", value: "2" },
        { name: "B", value: "1" },
      ],
      resources: { cpu: "1", memory: "2Gi", pids: 99 },
      allowedBackends: ["Docker"],
    });
  });

  it("what a template extends lies below it", () => {
    const templates = {
      top: { extendsRef: { name: "mid" }, image: "top" },
      mid: { extendsRef: { name: "low" }, image: "mid", resources: { cpu: "2" } },
      low: { image: "low", resources: { cpu: "1", pids: 20 } },
    };

    expect(merged(["top"], templates)).toEqual({ image: "top", env: [], resources: { cpu: "2", pids: 20 } });
  });

  it("a base that two templates share does not undo the first of them", () => {
    const templates = {
      base: { image: "base" },
      claude: { extendsRef: { name: "base" }, image: "claude" },
      dev: { extendsRef: { name: "base" }, resources: { cpu: "2" } },
    };

    expect(merged(["claude", "dev"], templates).image).toBe("claude");
    expect(merged(["claude", "base"], templates).image).toBe("base");
  });

  it("the agent's templates lie below those of the bottle", () => {
    const agent: Agent = {
      apiVersion,
      kind: "Agent",
      metadata: metadata("worker"),
      spec: { ...WORKER, templateRefs: [{ name: "low" }] },
    };
    const resolution = resolveBottle(bottle({ agentRef: { name: "worker" }, templateRefs: [{ name: "top" }] }), {
      agent: (name) => (name === "worker" ? agent : undefined),
      template: (name) => template(name, { image: name, env: [{ name: name.toUpperCase(), value: "" }] }),
      secret: () => undefined,
    });

    expect(resolution).toMatchObject({
      ok: true,
      agent: agent.spec,
      template: { image: "top", env: [{ name: "LOW" }, { name: "TOP" }] },
    });
  });

  it("backends that exclude one another leave none", () => {
    expect(
      merged(["a", "b"], { a: { allowedBackends: ["Docker"] }, b: { allowedBackends: ["Bubblewrap"] } })
        .allowedBackends,
    ).toEqual([]);
  });

  it("a template merged with itself is itself", () => {
    fc.assert(
      fc.property(specOf(["A", "B", "C"]), (spec) => {
        const once = mergeTemplate(EMPTY, spec);
        expect(mergeTemplate(once, spec)).toEqual(once);
        expect(merged(["a"], { a: spec })).toEqual(once);
        expect(merged(["a", "a"], { a: spec })).toEqual(once);
      }),
    );
  });

  it("merging is associative, so that a chain and a list of the same templates agree", () => {
    fc.assert(
      fc.property(specOf(["A", "B"]), specOf(["B", "C"]), specOf(["A", "C"]), (a, b, c) => {
        const list = merged(["a", "b", "c"], { a, b, c });
        const extended = merged(["c"], {
          a,
          b: { ...b, extendsRef: { name: "a" } },
          c: { ...c, extendsRef: { name: "b" } },
        });
        expect(extended).toEqual(list);
      }),
    );
  });

  it("the order matters only where both templates say something", () => {
    fc.assert(
      fc.property(specOf(["A", "B"]), specOf(["C", "D"]), (a, { env, allowedBackends }) => {
        const b = { env, allowedBackends };
        expect(merged(["a", "b"], { a, b })).toEqual(merged(["b", "a"], { a, b }));
      }),
    );
  });
});

describe("the digest", () => {
  it("does not depend on the order in which keys were written", () => {
    const shuffled = (value: unknown): unknown => {
      if (Array.isArray(value)) return value.map(shuffled);
      if (typeof value !== "object" || value === null) return value;
      return Object.fromEntries(
        Object.entries(value)
          .toReversed()
          .map(([key, member]) => [key, shuffled(member)]),
      );
    };
    fc.assert(
      fc.property(fc.jsonValue(), (value) => {
        expect(canonicalJson(shuffled(value))).toBe(canonicalJson(value));
      }),
    );
  });

  it("is JSON for the same value", () => {
    fc.assert(
      fc.property(fc.jsonValue({ noUnicodeString: false }), (value) => {
        expect(JSON.parse(canonicalJson(value))).toEqual(JSON.parse(JSON.stringify(value)));
      }),
    );
    expect(canonicalJson({ b: [1, { d: undefined, c: null }], a: "x" })).toBe('{"a":"x","b":[1,{"c":null}]}');
    expect(() => canonicalJson({ a: Number.NaN })).toThrow(TypeError);
  });

  it("is the SHA-256 of the text", () => {
    expect(sha256("abc")).toBe("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  });

  it("differs where the environment or the agent differs, and only there", () => {
    const one = digest(["a"], { a: { image: "x", resources: { pids: 20 } } });

    expect(one).toMatch(/^sha256:[0-9a-f]{64}$/);
    expect(digest(["a"], { a: { resources: { pids: 20 }, image: "x", env: [] } }, { label: "other" })).toBe(one);
    expect(digest(["a"], { a: { image: "y", resources: { pids: 20 } } })).not.toBe(one);
    expect(
      digest(
        ["a"],
        { a: { image: "x", resources: { pids: 20 } } },
        { agent: { provider: { type: "Custom", custom: { command: ["false"] } } } },
      ),
    ).not.toBe(one);
  });
});

describe("what cannot be resolved", () => {
  it("an agent that does not exist is named, with the field to correct", () => {
    expect(resolve([], {}, { agent: undefined, agentRef: { name: "ghost" } })).toEqual({
      ok: false,
      reason: "AgentNotFound",
      message: 'Agent "ghost" does not exist in namespace "default": create it or correct spec.agentRef.name',
    });
  });

  it("a template that does not exist is named, and who refers to it", () => {
    expect(resolve(["ghost"], {})).toMatchObject({
      reason: "TemplateNotFound",
      message: expect.stringContaining('"ghost"') as string,
    });
    expect(resolve(["a"], { a: { extendsRef: { name: "ghost" } } })).toMatchObject({
      reason: "TemplateNotFound",
      message: 'BottleTemplate "ghost" does not exist: create it or correct extendsRef of BottleTemplate "a"',
    });
  });

  it("a cycle is told as the way round", () => {
    const templates = {
      top: { extendsRef: { name: "a" } },
      a: { extendsRef: { name: "b" } },
      b: { extendsRef: { name: "a" } },
    };

    expect(resolve(["top"], templates)).toEqual({
      ok: false,
      reason: "TemplateCycle",
      message: "templates extend one another in a cycle: a -> b -> a: remove extendsRef from one of them",
    });
  });

  it("sixteen templates in a chain are accepted, seventeen are too deep", () => {
    expect(resolve(["t0"], chain(16)).ok).toBe(true);
    expect(resolve(["t0"], chain(17))).toMatchObject({
      reason: "TemplateTooDeep",
      message: expect.stringContaining('"t0"') as string,
    });
  });

  it("every cycle is found, and only cycles, whatever extends what", () => {
    // Each template extends one of the others, itself or nothing: every graph of extendsRef of this size is reached.
    fc.assert(
      fc.property(fc.array(fc.option(fc.nat(19)), { minLength: 1, maxLength: 20 }), (bases) => {
        const name = (index: number) => `t${index % bases.length}`;
        const specs = Object.fromEntries(
          bases.map((base, index) => [name(index), base === null ? {} : { extendsRef: { name: name(base) } }]),
        );
        const cycle = findTemplateCycle(Object.entries(specs).map(([key, spec]) => template(key, spec)));
        const reasons = Object.keys(specs).map((key) => {
          const resolution = resolve([key], specs);
          return resolution.ok ? "ok" : resolution.reason;
        });

        expect(reasons.includes("TemplateCycle")).toBe(cycle !== undefined);
        if (cycle === undefined) return;
        expect(cycle.at(-1)).toBe(cycle[0]);
        for (const [index, step] of cycle.slice(0, -1).entries()) {
          expect(specs[step]).toEqual({ extendsRef: { name: cycle[index + 1] } });
        }
      }),
      { numRuns: 500 },
    );
  });

  it("a cycle longer than the permitted depth is still a cycle", () => {
    const round = Object.fromEntries(
      Array.from({ length: 40 }, (_, index) => [`t${index}`, { extendsRef: { name: `t${(index + 1) % 40}` } }]),
    );

    expect(resolve(["t0"], round)).toMatchObject({ reason: "TemplateCycle" });
  });

  it("templates of the same name in two namespaces are two templates", () => {
    const apart = [
      template("a", { extendsRef: { name: "b" } }, "one"),
      template("b", { extendsRef: { name: "a" } }, "two"),
    ];

    expect(findTemplateCycle(apart)).toBeUndefined();
    expect(findTemplateCycle([...apart, template("b", { extendsRef: { name: "a" } }, "one")])).toEqual(["a", "b", "a"]);
  });
});
