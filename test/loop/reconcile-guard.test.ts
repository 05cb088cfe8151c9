import { describe, expect, it } from "vitest";
import { API_VERSION } from "../../controller/api/meta.ts";
import { guardToken } from "../../controller/loop/guard-token.ts";
import { BackendError } from "../../controller/ports/backend.ts";
import { reconcileBench } from "./reconcile-bench.ts";
import { GUARD_KEY, secretDraft } from "./tools.ts";

describe("a pass over a bottle with a guard", () => {
  it("gives the planner what was heard of the guard and what went through it", async () => {
    const heard = { guardId: "g", health: { ok: true }, digest: "sha256:1" } as const;
    const counters = { allowed: 1, denied: 0, dlpBlocked: 0, hosts: {} };
    const { inputs, pass } = await reconcileBench({ said: { heard, counters } });

    await pass();

    expect(inputs[0]?.observed).toMatchObject({ guard: heard, egress: counters });
  });

  it("gives every bottle a token of its own, the same after a restart and not to be guessed from its uid", async () => {
    const [a, b] = [await reconcileBench(), await reconcileBench()];
    await a.pass();
    await b.pass();
    const uid = (await a.stored()).metadata.uid;

    const tokens = [a, b].map(({ inputs }) => inputs[0]?.desired.token);

    expect(tokens[0]).toMatch(/^[A-Za-z0-9_-]{43}$/);
    expect(new Set(tokens).size).toBe(2);
    expect(tokens[0]).toBe(guardToken(GUARD_KEY, uid));
    expect(tokens[0]).not.toBe(guardToken(new Uint8Array(32), uid));
  });

  it("forgets a failed step when a secret that the bottle's rules inject changes: it may be mended", async () => {
    const { store, cache, inputs, pass } = await reconcileBench({
      plan: () => ({ steps: [{ kind: "removeUnits", unitIds: ["x"] }] }),
      answers: { removeUnits: () => Promise.reject(new BackendError("Conflict", "EngineError", "look again")) },
      spec: { templateRefs: [{ name: "t" }] },
    });
    const inject = [{ header: "Authorization", secretRef: { name: "api", key: "token" } }];
    const spec = { egress: { rules: [{ name: "api", host: "api.example.com", action: "Allow" as const, inject }] } };
    const metadata = { name: "t", namespace: "default" };
    await store.create<"BottleTemplate">({ apiVersion: API_VERSION, kind: "BottleTemplate", metadata, spec });
    const secret = await store.create<"Secret">(secretDraft("api", { token: "one" }));
    await cache.load();
    await pass();
    await store.update<"Secret">({ ...secret, data: { token: "dHdv" } });
    await cache.load();

    await pass();

    expect(inputs[1]?.observed.failure).toBeUndefined();
  });
});
