import { X509Certificate } from "node:crypto";
import { setTimeout as delay } from "node:timers/promises";
import { expect, it } from "vitest";
import { CA_FILE, TRUST_DIR, type Backend, type Blueprint } from "../../controller/ports/backend.ts";
import type { AuditLine, AuditRequest, GuardConfig, GuardRule } from "../../controller/ports/guard.ts";
import { archive, failure, states, unitOf, type Suite } from "./bottles.ts";

const TOKEN = "token-of-a-bottle-under-test";
const NOW: AuditRequest = { cursor: "", waitMs: 0, linesMax: 100 };
const LATER_MS = 10_000;

/** Settings under which nothing leaves. */
export function settings(
  digest: string,
  part: Partial<GuardConfig> & { rules?: readonly GuardRule[] } = {},
): GuardConfig {
  const { rules = [], ...rest } = part;
  const policy = { rules, dlp: "Block", audit: "Full", budget: {} } as const;
  return { digest, token: TOKEN, policy, placeholders: {}, secretRefs: [], secrets: {}, ...rest };
}

function rule(part: Partial<GuardRule>): GuardRule {
  const fixed = { name: "rule", host: "refused.example", ports: [443], protocol: "HTTPS", action: "Deny" } as const;
  return { ...fixed, cidrs: [], webSocket: false, uninspected: "Refuse", inject: [], ...part };
}

async function guarded(suite: Suite): Promise<{ blueprint: Blueprint; guard: { uid: string; guardId: string } }> {
  const blueprint = await suite.bottles.prepared();
  const { uid } = blueprint;
  return { blueprint, guard: { uid, guardId: unitOf(await suite.bottles.view(uid), "guard").id } };
}

/** Reads as a collector does, one wait after another, until a read fails. */
async function untilItFails(backend: Backend, guard: { uid: string; guardId: string }, signal?: AbortSignal) {
  let { cursor } = NOW;
  return failure(
    (async () => {
      for (;;) ({ cursor } = await backend.readAudit(guard, { ...NOW, cursor, waitMs: LATER_MS }, signal));
    })(),
  );
}

/** Rules of the two verbs that talk to a guard. */
export function guardRules(suite: Suite): void {
  it("a guard that was given settings answers their digest and its own certificate authority, the same each time", async () => {
    const { backend } = suite.bottles.bed;
    const [{ guard }, other] = await Promise.all([guarded(suite), guarded(suite)]);

    const first = await backend.configureGuard(guard, settings("one"));
    const second = await backend.configureGuard(guard, settings("two"));
    const page = await backend.readAudit(guard, NOW);
    const theirs = await backend.configureGuard(other.guard, settings("one"));

    expect([first.digest, second.digest, page.digest]).toEqual(["one", "two", "two"]);
    expect(first.caCertificate).toContain("-----BEGIN CERTIFICATE-----");
    expect(first.caCertificate).not.toContain("PRIVATE");
    expect(second.caCertificate).toBe(first.caCertificate);
    expect(theirs.caCertificate).not.toBe(first.caCertificate);
  });

  it("settings that a guard cannot use are Invalid, name no secret, and the ones in force stay", async () => {
    const { backend } = suite.bottles.bed;
    const { guard } = await guarded(suite);
    await backend.configureGuard(guard, settings("good"));
    const bad = settings("bad", {
      rules: [rule({ name: "broken", host: "no host at all" })],
      secrets: { "a/b": "canary-1" },
    });

    const refused = await failure(backend.configureGuard(guard, bad));

    expect(refused?.kind).toBe("Invalid");
    expect(refused?.message).toContain("broken");
    expect(refused?.message).not.toMatch(/canary|\n/);
    expect((await backend.readAudit(guard, NOW)).digest).toBe("good");
  });

  it("a guard without settings reports none", async () => {
    const { guard } = await guarded(suite);
    const page = await suite.bottles.bed.backend.readAudit(guard, NOW);

    expect([page.lines, page.digest]).toEqual([[], undefined]);
  });

  it("a guard that is gone, that never was, or that is another bottle's is NotFound", async () => {
    const { backend, stranger } = suite.bottles.bed;
    const [{ guard }, other] = await Promise.all([guarded(suite), guarded(suite)]);
    await backend.configureGuard(guard, settings("one"));
    await backend.removeUnits(guard.uid, [guard.guardId]);
    const mixed = { uid: guard.uid, guardId: other.guard.guardId };
    const { uid } = guard;

    for (const [from, gone] of [
      [backend, guard],
      [backend, { uid, guardId: "nowhere" }],
      [backend, { uid: "nobody", guardId: "nowhere" }],
      [backend, mixed],
      [stranger, other.guard],
    ] as const) {
      expect((await failure(from.configureGuard(gone, settings("two"))))?.kind, JSON.stringify(gone)).toBe("NotFound");
      expect((await failure(from.readAudit(gone, NOW)))?.kind, JSON.stringify(gone)).toBe("NotFound");
    }
    expect((await backend.readAudit(other.guard, NOW)).digest).toBeUndefined();
  });

  it("a request under way when its guard is removed fails soon", async () => {
    const { backend } = suite.bottles.bed;
    const { guard } = await guarded(suite);
    const waiting = untilItFails(backend, guard);
    await backend.readAudit(guard, NOW);
    const begun = performance.now();

    await suite.bottles.removeUnits(guard.uid);

    expect((await waiting)?.kind).toBe("NotFound");
    expect(performance.now() - begun).toBeLessThan(LATER_MS);
  });

  it("a reader that waits holds up neither settings nor another reader, and ends when its caller gives up", async () => {
    const { backend } = suite.bottles.bed;
    const { guard } = await guarded(suite);
    const caller = new AbortController();
    const waiting = untilItFails(backend, guard, caller.signal);

    const configured = await backend.configureGuard(guard, settings("one"));
    const page = await backend.readAudit(guard, { ...NOW, waitMs: 1 });
    caller.abort();

    expect([configured.digest, page.digest]).toEqual(["one", "one"]);
    expect((await waiting)?.kind).toBe("Transient");
    expect(await failure(backend.readAudit(guard, NOW, AbortSignal.abort()))).toMatchObject({ kind: "Transient" });
    expect((await backend.readAudit(guard, NOW)).digest).toBe("one");
  });

  it("another controller of the same installation talks to the guard as well, at the same time", async () => {
    const { backend } = suite.bottles.bed;
    const another = suite.bottles.bed.another?.() ?? backend;
    const { guard } = await guarded(suite);
    const first = await backend.configureGuard(guard, settings("one"));

    const [mine, theirs] = await Promise.all([
      backend.configureGuard(guard, settings("two")),
      another.configureGuard(guard, settings("two")),
    ]);
    const pages = await Promise.all([backend.readAudit(guard, NOW), another.readAudit(guard, NOW)]);

    expect([mine, theirs]).toEqual([
      { ...first, digest: "two" },
      { ...first, digest: "two" },
    ]);
    expect(pages.map((page) => page.digest)).toEqual(["two", "two"]);
  });

  it("what is copied in between an agent's creation and its start is there when it starts, and its own", async () => {
    const { backend } = suite.bottles.bed;
    const { blueprint, guard } = await guarded(suite);
    const { caCertificate } = await backend.configureGuard(guard, settings("one"));
    const run = suite.bottles.run({ type: "cat", path: CA_FILE });
    await backend.createAgent(blueprint, run);

    await backend.copyIn(blueprint.uid, TRUST_DIR, archive({ name: "ca.pem", bytes: "of a guard before" }));
    await backend.copyIn(blueprint.uid, TRUST_DIR, archive({ name: "ca.pem", bytes: caCertificate }));
    const ran = await suite.bottles.ran(blueprint, { type: "cat", path: CA_FILE });
    await suite.bottles.ran(blueprint, { type: "append", path: CA_FILE, text: "owned" }, { turn: "2" });
    const owned = await suite.bottles.ran(blueprint, { type: "cat", path: CA_FILE }, { turn: "3" });

    expect(ran).toEqual({ code: 0, text: caCertificate });
    expect(owned.text.endsWith("owned")).toBe(true);
  });
}

/** Rules of what passes a real guard: an agent with curl, in the image for tools or among the host's programs. */
export function trafficRules(suite: Suite): void {
  const proxied = async (blueprint: Blueprint, url: string, options: { turn?: string; token?: string } = {}) => {
    const { turn = "1", token = TOKEN } = options;
    const proxy = `http://${token === "" ? "" : `bottle:${token}@`}127.0.0.1:7001`;
    const env = { http_proxy: proxy, https_proxy: proxy, CURL_CA_BUNDLE: CA_FILE };
    const argv = ["curl", "--silent", "--show-error", "--max-time", "20", "--write-out", "\\n%{http_code}", url];
    const { text } = await suite.bottles.ran(blueprint, { type: "missing" }, { turn, env, argv });
    const end = text.lastIndexOf("\n");
    return { body: text.slice(0, end), status: text.slice(end + 1) };
  };
  const prepared = async () => {
    const { toolsImage } = suite.bottles.bed;
    const blueprint = await suite.bottles.prepared(toolsImage === undefined ? {} : { image: toolsImage });
    const { uid } = blueprint;
    const view = await suite.bottles.view(uid);
    // Proves that the guard listens: until then an agent's connections are closed.
    await suite.bottles.bed.backend.probe({ uid, holderId: unitOf(view, "holder").id });
    return { blueprint, guard: { uid, guardId: unitOf(view, "guard").id } };
  };
  /** Until a line is there: the guard writes a tunnel's when it has ended. */
  const auditOf = async (guard: { uid: string; guardId: string }, wanted: (line: AuditLine) => boolean) => {
    const deadline = performance.now() + LATER_MS;
    for (;;) {
      const { lines } = await suite.bottles.bed.backend.readAudit(guard, NOW);
      const found = lines.find(wanted);
      if (found !== undefined) return found;
      if (performance.now() > deadline) throw new Error(`not in the audit: ${JSON.stringify(lines)}`);
      await delay(50);
    }
  };
  const trusted = async (blueprint: Blueprint, caCertificate: string) => {
    const { backend } = suite.bottles.bed;
    await backend.copyIn(blueprint.uid, TRUST_DIR, archive({ name: "ca.pem", bytes: caCertificate }));
  };

  it("a guard without settings refuses every request and says why", async () => {
    const { blueprint } = await prepared();

    const answer = await proxied(blueprint, "http://refused.example/");

    expect(answer.status).toBe("503");
    expect(answer.body).toMatch(/not.configured/);
  });

  it("egress without the bottle's token, or with another one, is 407", async () => {
    const { blueprint, guard } = await prepared();
    await suite.bottles.bed.backend.configureGuard(guard, settings("one"));

    const without = await proxied(blueprint, "http://refused.example/", { token: "" });
    const wrong = await proxied(blueprint, "http://refused.example/", { token: "token-of-another-bottle", turn: "2" });

    expect([without.status, wrong.status]).toEqual(["407", "407"]);
  });

  it("a request to a host that no rule names is refused as JSON inside TLS, and the refusal is in the audit", async () => {
    const { blueprint, guard } = await prepared();
    const { caCertificate } = await suite.bottles.bed.backend.configureGuard(guard, settings("one"));
    await trusted(blueprint, caCertificate);

    const answer = await proxied(blueprint, "https://refused.example/some/path?key=canary");
    const line = await auditOf(guard, ({ host, kind }) => host === "refused.example" && kind === "request");

    expect(new X509Certificate(caCertificate).ca).toBe(true);
    expect(answer.status, answer.body).toBe("403");
    expect(JSON.parse(answer.body)).toMatchObject({
      rule: "default-deny",
      host: "refused.example",
      port: 443,
      method: "GET",
      howToAsk: expect.stringMatching(/./),
    });
    expect(line).toMatchObject({
      v: 1,
      verdict: "Denied",
      rule: "default-deny",
      port: 443,
      method: "GET",
      status: 403,
    });
    expect(line.path).toBe("/some/path");
    expect(JSON.stringify(line)).not.toContain("canary");
  });

  it("settings that replace others hold for the next request of a bottle that runs, under the same authority", async () => {
    const { blueprint, guard } = await prepared();
    const { backend } = suite.bottles.bed;
    const { caCertificate } = await backend.configureGuard(guard, settings("one"));
    await trusted(blueprint, caCertificate);
    await suite.bottles.started(blueprint, { type: "sleep", text: "at work" }, { turn: "meanwhile" });
    const before = await proxied(blueprint, "https://refused.example/");

    await backend.configureGuard(
      guard,
      settings("two", { rules: [rule({ name: "by-name", reason: "ask the team" })] }),
    );
    const after = await proxied(blueprint, "https://refused.example/", { turn: "2" });
    const line = await auditOf(guard, (each) => each.rule === "by-name");

    expect(JSON.parse(before.body)).toMatchObject({ rule: "default-deny" });
    expect(JSON.parse(after.body)).toMatchObject({ rule: "by-name", reason: expect.stringContaining("ask the team") });
    expect(line.verdict).toBe("Denied");
    expect(states(await suite.bottles.view(guard.uid))).toContain("agent running");
  });
}
