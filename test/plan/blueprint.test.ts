import { describe, expect, it } from "vitest";
import type { Bottle } from "../../controller/api/bottle.ts";
import { API_VERSION } from "../../controller/api/meta.ts";
import { agentBlueprint, blueprintOf, unservedReasons } from "../../controller/plan/blueprint.ts";
import { GUARD_ENV_NAMES } from "../../controller/api/guard-env.ts";
import { guardEnv } from "../../controller/plan/guard-env.ts";
import type { EffectiveTemplate } from "../../controller/plan/resolve.ts";
import { CA_BUNDLE_FILE, CA_FILE, type BackendFeatures } from "../../controller/ports/backend.ts";
import { NO_EGRESS } from "./case-reader.ts";

const FEATURES: BackendFeatures = { images: true, limits: { cpu: true, memory: true, pids: true } };

function bottle(change: { metadata?: Partial<Bottle["metadata"]>; spec?: Partial<Bottle["spec"]> } = {}): Bottle {
  const metadata = {
    name: "fix",
    namespace: "team",
    uid: "uid-1",
    resourceVersion: "7",
    generation: 3,
    creationTimestamp: "2026-11-20T12:00:00Z",
  };
  return {
    apiVersion: API_VERSION,
    kind: "Bottle",
    metadata: { ...metadata, ...change.metadata },
    spec: { operatingMode: "Running", turns: [{ id: "1", prompt: "first" }], ...change.spec },
  };
}

function template(change: Partial<EffectiveTemplate> = {}): EffectiveTemplate {
  return { image: "debian:12", env: [{ name: "COLOR", value: "green" }], resources: {}, ...change };
}

function blueprint(made = bottle(), environment = template(), features = FEATURES) {
  const resolved = { template: environment, egress: NO_EGRESS };
  return blueprintOf(made, resolved, { features, defaultImage: "default:1", token: "open-sesame" });
}

/** With variables that hold placeholders of secrets. */
function placing(placeholderEnv: Record<string, string>, environment = template(), token = "open-sesame") {
  const resolved = { template: environment, egress: { ...NO_EGRESS, placeholderEnv } };
  return blueprintOf(bottle(), resolved, { features: FEATURES, defaultImage: "default:1", token });
}

describe("blueprintOf", () => {
  it("spells out everything: identity, image, runtime, environment and limits in the units of engines", () => {
    const made = bottle({ spec: { backend: { type: "Docker", docker: { runtime: "runsc" } } } });
    const resources = { cpu: "500m", memory: "4Gi", pids: 64 };

    const { specHash, ...rest } = blueprint(made, template({ resources }));

    expect(specHash).toMatch(/^[0-9a-f]{32}$/);
    expect(rest).toEqual({
      uid: "uid-1",
      namespace: "team",
      name: "fix",
      generation: 3,
      image: "debian:12",
      runtime: "runsc",
      env: { ...guardEnv("open-sesame"), COLOR: "green" },
      limits: { cpuMillis: 500, memoryBytes: 4 * 1024 ** 3, pids: 64 },
    });
  });

  it("a template without an image gets the default one", () => {
    expect(blueprint(bottle(), template({ image: undefined })).image).toBe("default:1");
  });

  it("a backend that runs programs of the host gets no image", () => {
    expect(blueprint(bottle(), template(), { ...FEATURES, images: false }).image).toBeUndefined();
  });

  it("a limit that nobody wrote is absent, not zero: to engines zero is a number too", () => {
    expect(blueprint().limits).toEqual({});
  });
});

describe("the spec hash", () => {
  const same = blueprint().specHash;

  it.each([
    ["the image", blueprint(bottle(), template({ image: "debian:13" }))],
    ["the runtime", blueprint(bottle({ spec: { backend: { type: "Docker", docker: { runtime: "runsc" } } } }))],
    ["the limit of cores", blueprint(bottle(), template({ resources: { cpu: "2" } }))],
    ["the limit of memory", blueprint(bottle(), template({ resources: { memory: "4Gi" } }))],
    ["the limit of processes", blueprint(bottle(), template({ resources: { pids: 64 } }))],
    ["that the backend has no images", blueprint(bottle(), template(), { ...FEATURES, images: false })],
  ])("changes with %s, because holder and guard of another one must be replaced", (_what, changed) => {
    expect(changed.specHash).not.toBe(same);
  });

  it.each([
    ["another turn", blueprint(bottle({ spec: { turns: [{ id: "2", prompt: "second" }] } }))],
    ["the generation", blueprint(bottle({ metadata: { generation: 9 } }))],
    ["the resource version", blueprint(bottle({ metadata: { resourceVersion: "99" } }))],
    ["the operating mode", blueprint(bottle({ spec: { operatingMode: "Frozen" } }))],
    ["label and colour", blueprint(bottle({ spec: { label: "nightly", color: "green" } }))],
    ["the environment of the agent", blueprint(bottle(), template({ env: [{ name: "COLOR", value: "red" }] }))],
    ["another placeholder", placing({ API_KEY: "api/key" })],
    ["a backend that is named instead of detected", blueprint(bottle({ spec: { backend: { type: "Docker" } } }))],
  ])("stays with %s, because a running bottle need not be replaced for it", (_what, changed) => {
    expect(changed.specHash).toBe(same);
  });

  it("is about amounts, not about how they are written", () => {
    const binary = blueprint(bottle(), template({ resources: { cpu: "2", memory: "1Gi" } }));
    const spelled = blueprint(bottle(), template({ resources: { cpu: "2000m", memory: "1024Mi" } }));

    expect(spelled.specHash).toBe(binary.specHash);
  });
});

describe("the hash of a run", () => {
  const same = agentBlueprint(blueprint()).specHash;

  it.each([
    ["what changes holder and guard", blueprint(bottle(), template({ image: "debian:13" }))],
    ["a value of the environment", blueprint(bottle(), template({ env: [{ name: "COLOR", value: "red" }] }))],
    ["a name of the environment", blueprint(bottle(), template({ env: [{ name: "COLOUR", value: "green" }] }))],
    ["another placeholder", placing({ API_KEY: "api/key" })],
    ["the secret behind a placeholder", placing({ COLOR: "api/key" })],
    ["the token", placing({}, template(), "another")],
  ])("changes with %s, because a process keeps the environment it started with", (_what, changed) => {
    expect(agentBlueprint(changed).specHash).not.toBe(same);
  });

  it("is another one than that of holder and guard, and the only thing that differs", () => {
    expect(agentBlueprint(blueprint())).toEqual({
      ...blueprint(),
      specHash: expect.not.stringMatching(blueprint().specHash),
    });
  });

  it("does not ask in which order templates wrote their variables", () => {
    const [a, b] = [
      { name: "A", value: "1" },
      { name: "B", value: "2" },
    ];

    expect(agentBlueprint(blueprint(bottle(), template({ env: [b, a] }))).specHash).toBe(
      agentBlueprint(blueprint(bottle(), template({ env: [a, b] }))).specHash,
    );
  });
});

describe("the agent's environment", () => {
  it("leads every program to the guard with the bottle's token, and none of them for loopback", () => {
    const proxy = "http://bottle:open-sesame@127.0.0.1:7001";
    const { env } = blueprint();

    for (const name of ["HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"]) expect(env[name]).toBe(proxy);
    for (const name of ["NO_PROXY", "no_proxy"])
      expect(env[name]?.split(",")).toEqual(["127.0.0.1", "localhost", "::1"]);
    expect(env["NODE_USE_ENV_PROXY"]).toBe("1");
  });

  it("lets every program trust the guard: Node adds the authority, others take one file for all", () => {
    const { NODE_EXTRA_CA_CERTS, SSL_CERT_FILE, GIT_SSL_CAINFO, npm_config_cafile } = blueprint().env;

    expect(NODE_EXTRA_CA_CERTS).toBe(CA_FILE);
    expect([SSL_CERT_FILE, GIT_SSL_CAINFO, npm_config_cafile]).toEqual([
      CA_BUNDLE_FILE,
      CA_BUNDLE_FILE,
      CA_BUNDLE_FILE,
    ]);
  });

  it("sets no name that a template may set: admission knows them all", () => {
    const set = Object.keys(guardEnv("t")).map((name) => name.toUpperCase());

    expect(GUARD_ENV_NAMES).toEqual(expect.arrayContaining(set));
  });

  it("holds placeholders under the names that rules give them, above what a template says", () => {
    const { env } = placing({ COLOR: "api/key" });

    expect(env["COLOR"]).toMatch(/^bbp_[0-9a-z]{40}$/);
  });

  it("is the controller's where a template stored by an earlier release sets its names", () => {
    const { env } = placing({}, template({ env: [{ name: "HTTPS_PROXY", value: "http://elsewhere" }] }));

    expect(env["HTTPS_PROXY"]).toContain("127.0.0.1:7001");
  });

  it("is sorted by name", () => {
    const names = Object.keys(placing({ ZEBRA: "a/b", ANT: "a/b" }).env);

    expect(names).toEqual(names.toSorted((a, b) => (a < b ? -1 : 1)));
  });
});

describe("unservedReasons", () => {
  const none: BackendFeatures = { images: true, limits: { cpu: false, memory: false, pids: false } };

  it("a backend that enforces all limits serves them all", () => {
    const resources = { cpu: "2", memory: "4Gi", pids: 64 };

    expect(unservedReasons(template({ resources }), { name: "docker", features: FEATURES })).toEqual([]);
  });

  it.each([
    ["cpu", { cpu: "2" }],
    ["memory", { memory: "4Gi" }],
    ["pids", { pids: 64 }],
  ])("a limit of %s that would not hold is refused by name", (field, resources) => {
    const reasons = unservedReasons(template({ resources }), { name: "docker", features: none });

    expect(reasons).toHaveLength(1);
    expect(reasons[0]).toContain(`resources.${field}`);
  });

  it("limits that nobody wrote are not missed", () => {
    expect(unservedReasons(template(), { name: "docker", features: none })).toEqual([]);
  });

  it("a backend is allowed by the name that the API gives it", () => {
    const docker = { name: "docker", features: FEATURES };

    expect(unservedReasons(template({ allowedBackends: ["Bubblewrap", "Docker"] }), docker)).toEqual([]);
    expect(unservedReasons(template({ allowedBackends: ["Bubblewrap"] }), docker)).toHaveLength(1);
  });

  it("templates that exclude one another allow no backend at all", () => {
    expect(unservedReasons(template({ allowedBackends: [] }), { name: "docker", features: FEATURES })).toHaveLength(1);
  });
});
