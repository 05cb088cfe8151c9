import { once } from "node:events";
import { describe, expect, it } from "vitest";
import { guardConfig } from "../helpers/guard-program.ts";
import { exchange, rawConnection, statusOf } from "../helpers/raw-http.ts";
import { openTunnel, type Tunnel } from "../helpers/tunnel-client.ts";
import { startWorld } from "../helpers/world.ts";
import { attempt, escapeSettings, get, useEscapeWorld } from "./attempts.ts";

const { world, expectNothingLeft, at } = useEscapeWorld();

function tunnel(host: string): Promise<Tunnel> {
  const { guard } = world();
  return openTunnel({ proxy: { port: guard.port }, credentials: `bottle:${guard.token}`, authority: at(host) });
}

describe("a guard that is not configured", () => {
  it("refuses everything and says that it is not configured", async () => {
    await using bare = await startWorld({ hosts: ["allowed.test"] });

    const text = await exchange(await rawConnection(bare.guard.port), get("allowed.test", "http://allowed.test/"));

    expect(statusOf(text)).toBe(503);
    expect(text).toContain('"rule":"not-configured"');
    expect(bare.upstream.connections()).toBe(0);
  });
});

describe("settings that change", () => {
  it("end a running answer that they no longer allow, and leave another one alone", async () => {
    const [closed, kept] = [await tunnel("other.test"), await tunnel("allowed.test")];
    const [ended, lasting] = [
      await closed.send({ path: "/events?n=2000&ms=20" }),
      await kept.send({ path: "/events?n=2000&ms=20" }),
    ];
    const settings = escapeSettings(world());
    const rules = settings.policy.rules?.filter((one) => one.name !== "other");

    const over = new Promise<void>((resolve) =>
      ended
        .on("error", () => {})
        .once("close", resolve)
        .resume(),
    );
    lasting.on("error", () => {});
    await world().configure({ ...settings, policy: { ...settings.policy, rules } });

    await over;
    expect(ended.complete).toBe(false);
    await expect(once(lasting, "data")).resolves.toBeDefined();
    expect(await attempt(world(), { authority: at("other.test") })).toMatchObject({
      status: 403,
      rule: "default-deny",
    });
    const line = await world().guard.auditLine((one) => one.host === "other.test" && one.path === "/events");
    expect(line).toMatchObject({ rule: "narrowed" });
    kept.close();
  });

  it("that are closed refuse everything with their reason", async () => {
    const closed = { reason: "SecretMissing", message: 'secret "keys" is not there' };
    await world().configure({ ...escapeSettings(world()), closed });

    const outcome = await attempt(world(), { authority: at("allowed.test") });

    expect(outcome).toMatchObject({ rule: "closed" });
    expect(outcome.text).toContain(JSON.stringify(closed.message).slice(1, -1));
    expect(world().upstream.seen).toEqual([]);
  });

  it("that the guard cannot use are refused, and those in force stay", async () => {
    const paths = [{ type: "Regex" as const, value: "(unclosed" }];
    const bad = guardConfig({ policy: { rules: [world().rule({ name: "bad", host: "evil.test", paths })] } });

    await expect(world().guard.configure(bad)).rejects.toMatchObject({ kind: "Invalid" });

    expect(await attempt(world(), { authority: at("allowed.test") })).toMatchObject({ status: 200 });
    expect(await attempt(world(), { authority: at("evil.test") })).toMatchObject({ status: 403 });
  });

  it("change the token: the old one opens nothing", async () => {
    const { token } = world().guard;
    await world().configure({ ...escapeSettings(world()), token: "another-token-of-the-bottle" });

    const outcome = await attempt(world(), { authority: at("allowed.test"), credentials: `bottle:${token}` });

    expect(outcome.connect).toBe(407);
    expectNothingLeft();
  });
});

describe("the authority of a bottle", () => {
  it("is made anew for each guard, so that one means nothing to another", async () => {
    await using other = await startWorld({ hosts: ["allowed.test"] });
    const [mine, theirs] = [await world().guard.configure(guardConfig()), await other.guard.configure(guardConfig())];

    expect(mine.caCertificate).not.toBe(theirs.caCertificate);
    await world().configure(escapeSettings(world()));
    const authority = at("allowed.test");
    const wrong = openTunnel({
      proxy: { port: world().guard.port },
      credentials: `bottle:${world().guard.token}`,
      authority,
      ca: theirs.caCertificate,
    });
    await expect(wrong).rejects.toThrow();
  });
});

describe("the audit", () => {
  it("has one line for each request, allowed or refused", async () => {
    await using fresh = await startWorld({ hosts: ["allowed.test", "evil.test"] });
    await fresh.configure({ policy: { rules: [fresh.rule({ name: "allowed", host: "allowed.test" })] } });
    const port = fresh.upstream.port;
    for (let n = 0; n < 20; n += 1) {
      const host = n % 3 === 0 ? "evil.test" : "allowed.test";
      await attempt(fresh, { authority: `${host}:${port}`, request: get(`${host}:${port}`, `/n/${n}`) });
    }

    await fresh.guard.auditLine((line) => line.path === "/n/19");
    const lines = (await fresh.guard.auditLines()).filter((line) => line.kind === "request");

    const paths = lines.map((line) => line.path).toSorted();
    expect(paths).toEqual(Array.from({ length: 20 }, (_, n) => `/n/${n}`).toSorted());
    expect(lines.filter((line) => line.verdict === "Denied")).toHaveLength(7);
  });
});
