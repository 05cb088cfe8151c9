import { networkInterfaces } from "node:os";
import { afterAll, beforeAll, expect } from "vitest";
import type { EgressRule } from "../../controller/api/egress.ts";
import type { BackendType } from "../../controller/api/template.ts";
import { bottleManifest, outcomeOf } from "../e2e/bottles.ts";
import { traces } from "../e2e/traces.ts";
import type { AuditLine } from "../../controller/ports/guard.ts";
import { CANARY } from "./attempts.ts";
import type { Attack, Finding } from "./bottle-attacks.ts";
import { secretManifest, startRig, templateManifest, type BottleRig } from "./bottle-rig.ts";
import type { BottleWorld } from "./bottle-world.ts";

/** Two bottles of one installation, kept up after their turns: `a` is attacked from, `b` is what else there is. */
export interface Scene {
  rig(): BottleRig;
  /** Makes the attacks in bottle `a`: nothing reaches the sink or the name server, and no answer shows the canary. */
  contained(attacks: readonly Attack[]): Promise<Finding[]>;
  /** The same, with the lines that they left in the audit: as many as there were attacks. */
  audited(attacks: readonly Attack[]): Promise<{ findings: Finding[]; lines: AuditLine[] }>;
}

/** Names whose addresses no rule may lead to. */
export const REBINDING: Readonly<Record<string, readonly string[]>> = {
  "metadata.test": ["169.254.169.254"],
  "alibaba.test": ["100.100.100.200"],
  "azure.test": ["168.63.129.16"],
  "aws6.test": ["fd00:ec2::254"],
  "private.test": ["10.0.0.5"],
  "zero.test": ["0.0.0.0"],
  "loopback.test": ["127.0.0.1"],
  "loopback6.test": ["::1"],
};
export const HOSTS: readonly string[] = ["allowed.test", "other.test", "bound.test", "api.allowed.test", "evil.test"];

/** What a turn of the two bottles leaves behind: the state of the agent's own process, as it sees it. */
const TURN = "cat /proc/self/status > status; env > environment; tr '\\0' '\\n' < /proc/1/cmdline > first; echo worked";

/** Addresses by which this machine can be reached, and those that must not be. */
export function hostAddresses(): string[] {
  return Object.values(networkInterfaces())
    .flatMap((found) => found ?? [])
    .filter(({ internal, family }) => !internal && family === "IPv4")
    .map(({ address }) => address);
}

export function sceneRules(world: BottleWorld): EgressRule[] {
  const secretRef = { name: "canary", key: "key" };
  const inject = [
    { header: "Authorization", valueTemplate: "Bearer {value}", secretRef, placeholderEnv: "CANARY_API" },
    { header: "x-api-key", secretRef },
  ];
  const { port } = world;
  const open = (name: string, host: string): EgressRule => ({ name, host, ports: [port], action: "Allow" });
  return [
    world.rule({ name: "allowed", host: "allowed.test" }),
    world.rule({ name: "other", host: "other.test" }),
    world.rule({ name: "bound", host: "bound.test", inject }),
    world.rule({ name: "api", host: "api.allowed.test", paths: [{ type: "Prefix", value: "/repos/x" }] }),
    ...Object.keys(REBINDING).map((host, n) => open(`rebinding-${n}`, host)),
    ...hostAddresses().map((host, n) => open(`machine-${n}`, host)),
  ];
}

/** The scene of one test file, with nothing left of it at the end. */
export function useScene(type: BackendType): Scene {
  const state: { rig?: BottleRig } = {};
  const rig = (): BottleRig => {
    if (state.rig === undefined) throw new Error("the scene was not set");
    return state.rig;
  };
  beforeAll(async () => {
    state.rig = await startRig(type, { hosts: HOSTS, records: REBINDING });
    const { world } = rig();
    const spec = { templateRefs: [{ name: "sealed" }], lifecycle: KEEP };
    await rig().apply(
      secretManifest("canary", { key: CANARY }),
      templateManifest("sealed", { rules: sceneRules(world) }),
      bottleManifest("a", [TURN], spec),
      bottleManifest("b", [TURN], spec),
    );
    for (const name of ["a", "b"]) {
      const bottle = await rig().here.until(name, "after turn 1", (seen) => outcomeOf(seen, "1") !== undefined);
      expect(outcomeOf(bottle, "1")).toBe("Done");
      await rig().untilReady(name);
    }
  });
  afterAll(async () => {
    if (state.rig === undefined) return;
    try {
      await rig().verb("delete", "bottle", "a", "b");
      await rig().serve().end();
      expect(await traces(rig().here)).toEqual([]);
    } finally {
      await rig()[Symbol.asyncDispose]();
    }
  });
  const contained: Scene["contained"] = async (attacks) => {
    const { upstream, dns } = rig().world;
    const before = { connections: upstream.connections(), questions: dns.queries.length };
    const findings = await rig().attack("a", attacks);
    expect({ connections: upstream.connections(), questions: dns.queries.length }).toEqual(before);
    expect(JSON.stringify(findings)).not.toContain(CANARY);
    return findings;
  };
  return {
    rig,
    contained,
    async audited(attacks) {
      const since = (await rig().lines("a")).length;
      const findings = await contained(attacks);
      return { findings, lines: await rig().newLines("a", since, attacks.length) };
    },
  };
}

const KEEP = { afterTurn: "Keep", turnDeadlineSeconds: 600 } as const;
