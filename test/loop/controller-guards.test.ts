import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { conditionOf } from "../../controller/api/conditions.ts";
import { API_VERSION } from "../../controller/api/meta.ts";
import { controllerBench, NOW } from "./controller-bench.ts";

beforeEach(() => void vi.useFakeTimers({ now: NOW }));
afterEach(() => void vi.useRealTimers());

const rule = (host: string) => ({ egress: { rules: [{ name: "api", host, action: "Allow" as const }] } });
const template = (host: string) => ({
  apiVersion: API_VERSION,
  kind: "BottleTemplate" as const,
  metadata: { name: "net", namespace: "default" },
  spec: rule(host),
});
const statusOf = async ({ store }: ReturnType<typeof controllerBench>) =>
  (await store.get("Bottle", { namespace: "default", name: "a" }))?.status;

async function working(rig: ReturnType<typeof controllerBench>): Promise<string> {
  rig.world.program = () => ({});
  await rig.store.create<"BottleTemplate">(template("one.example"));
  const { metadata } = await rig.create("a", { templateRefs: [{ name: "net" }] });
  rig.start();
  await rig.advance(5000);
  return metadata.uid;
}

describe("a controller and its guards", () => {
  it("shows in the status what goes through a guard while its agent works", async () => {
    await using rig = controllerBench();
    const uid = await working(rig);

    for (const host of ["one.example", "evil.example"]) rig.world.request(uid, host);
    await rig.advance(10_000);

    expect((await statusOf(rig))?.egress).toMatchObject({
      allowed: 1,
      denied: 1,
      lastDenied: { host: "evil.example", port: 443, rule: "default-deny" },
    });
  });

  it("keeps what a guard noted last when the bottle is frozen, and the counts with it", async () => {
    await using rig = controllerBench();
    const uid = await working(rig);
    rig.world.exitAgent(uid, { code: 0, egress: ["one.example", "late.example"] });
    await rig.advance(5000);

    expect(await rig.ready("a")).toBe("Frozen");
    const kept = await rig.auditLog.read(uid, { afterSeq: 0, limit: 10 });
    expect(kept.map(({ line }) => line.host)).toEqual(["one.example", "late.example"]);
    expect((await statusOf(rig))?.egress).toMatchObject({ allowed: 1, denied: 1 });
  });

  it("tells a guard the rules of a template that changed, and leaves its agent alone", async () => {
    await using rig = controllerBench();
    const uid = await working(rig);
    const known = await rig.store.get("BottleTemplate", { namespace: "default", name: "net" });
    if (known === undefined) throw new Error("there is no template");

    await rig.store.update<"BottleTemplate">({ ...known, spec: rule("two.example") });
    await rig.advance(2000);

    expect(rig.world.guardOf(uid)?.settings?.policy.rules.map(({ host }) => host)).toEqual(["two.example"]);
    expect(rig.world.startedRuns).toHaveLength(1);
    expect(await rig.ready("a")).toBe("AgentRunning");
  });

  it("says why a guard refuses everything as soon as it does, and that it works again", async () => {
    await using rig = controllerBench();
    const uid = await working(rig);
    const guard = rig.world.guardOf(uid);
    if (guard === undefined) throw new Error("no guard runs");
    const ready = async () => conditionOf((await statusOf(rig))?.conditions, "GuardReady");

    guard.health = { ok: false, reason: "AuditUnwritable", message: "the disk is full" };
    rig.world.changed(uid);
    await rig.advance(3000);
    expect(await ready()).toMatchObject({ status: "False", reason: "AuditUnwritable" });
    guard.health = { ok: true };
    rig.world.changed(uid);
    await rig.advance(5000);

    expect(await ready()).toMatchObject({ status: "True", reason: "Running" });
  });
});
