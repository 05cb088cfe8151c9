import { describe, expect, it } from "vitest";
import { createFakeBackend, InvariantViolation, World } from "../../backends/fake/index.ts";
import { trustArchive } from "../../controller/loop/trust-files.ts";
import { HOME, type AgentRun, type Blueprint } from "../../controller/ports/backend.ts";
import type { GuardConfig } from "../../controller/ports/guard.ts";
import { failure, FIRST } from "./bottles.ts";

const UID = "uid-1";
const BLUEPRINT: Blueprint = {
  uid: UID,
  namespace: "default",
  name: "fix-login",
  generation: 1,
  specHash: "spec-1",
  image: "agent:1",
  env: {},
  limits: {},
};
const RUN: AgentRun = { ...FIRST, argv: ["agent"], env: {} };
const UNIT = { uid: UID, ...FIRST };

async function prepared() {
  const world = new World({ nowMs: 1_800_000_000_000 });
  const backend = createFakeBackend({ world, owner: "us" });
  await backend.prepare(BLUEPRINT);
  const guardId = world.unitsOf(UID).find((unit) => unit.role === "guard")?.id ?? "";
  return { world, backend, guard: { uid: UID, guardId } };
}

describe("the guard of a fake bottle", () => {
  const TOKEN = "token-1";
  const ENV = { HTTPS_PROXY: `http://bottle:${TOKEN}@127.0.0.1:7001` };
  const rule = {
    name: "api",
    host: "api.example.com",
    ports: [443],
    protocol: "HTTPS",
    action: "Allow",
    cidrs: [],
    webSocket: false,
    uninspected: "Refuse",
    inject: [],
  } as const;
  const CONFIG: GuardConfig = {
    digest: "sha256:1",
    token: TOKEN,
    policy: { rules: [rule], dlp: "Block", audit: "Full", budget: {} },
    placeholders: {},
    secretRefs: [],
    secrets: {},
  };

  /** Everything that an agent needs, but for what the test leaves out. */
  async function start(given: { config?: GuardConfig; trust?: "all" | "old" | "none"; env?: Record<string, string> }) {
    const { world, backend, guard } = await prepared();
    const { config = CONFIG, trust = "all", env = ENV } = given;
    const made = await backend.configureGuard(guard, config);
    if (trust !== "none") await backend.copyIn(UID, HOME, trustArchive(made.caCertificate));
    if (trust === "old") world.restartGuard(UID);
    if (trust === "old") await backend.configureGuard(guard, config);
    await backend.createAgent({ ...BLUEPRINT, env }, RUN);
    await backend.startAgent(UNIT);
    return world;
  }

  it("lets its agent start once it has settings, a token that the agent knows, and an authority that its home holds", async () => {
    expect((await start({})).startedRuns).toHaveLength(1);
  });

  it("without settings no agent starts behind it", async () => {
    const { backend } = await prepared();
    await backend.createAgent({ ...BLUEPRINT, env: ENV }, RUN);

    await expect(backend.startAgent(UNIT)).rejects.toThrow(InvariantViolation);
  });

  it.each([
    ["is closed", { config: { ...CONFIG, closed: { reason: "SecretNotFound", message: "create it" } } }, /closed/],
    ["has the token of another bottle", { env: { HTTPS_PROXY: "http://bottle:token-2@127.0.0.1:7001" } }, /token/],
    ["the agent does not know", { env: {} }, /token/],
    ["the home does not trust", { trust: "none" }, /authority/],
    ["began anew after the home learned to trust it", { trust: "old" }, /authority/],
  ] as const)("that %s is none for an agent to start behind", async (_what, given, words) => {
    await expect(start(given)).rejects.toThrow(words);
  });

  it.each([
    ["without a token", { ...CONFIG, token: "" }],
    ["without the value of a secret that it injects", { ...CONFIG, secretRefs: ["api/token"] }],
  ])("refuses settings %s", async (_what, config) => {
    const { backend, guard } = await prepared();

    expect(await failure(backend.configureGuard(guard, config))).toMatchObject({ kind: "Invalid" });
  });

  it("notes every request with what became of it, in order, each once", async () => {
    const { world, backend, guard } = await prepared();
    world.request(UID, "early.example");
    await backend.configureGuard(guard, CONFIG);
    world.request(UID, "api.example.com");
    world.request(UID, "evil.example");

    const first = await backend.readAudit(guard, { cursor: "", waitMs: 0, linesMax: 2 });
    const rest = await backend.readAudit(guard, { cursor: first.cursor, waitMs: 0, linesMax: 2 });

    expect([...first.lines, ...rest.lines].map(({ host, verdict, rule: which }) => [host, verdict, which])).toEqual([
      ["early.example", "Denied", "not-configured"],
      ["api.example.com", "Allowed", "api"],
      ["evil.example", "Denied", "default-deny"],
    ]);
    expect(rest).toMatchObject({ health: { ok: true }, digest: "sha256:1" });
  });

  it("a reader waits for the first line", async () => {
    const { world, backend, guard } = await prepared();

    const page = backend.readAudit(guard, { cursor: "", waitMs: 20_000, linesMax: 2 });
    await Promise.resolve();
    world.request(UID, "api.example.com");

    expect((await page).lines).toHaveLength(1);
  });
});
