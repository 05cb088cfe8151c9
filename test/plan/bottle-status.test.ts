import { describe, expect, it } from "vitest";
import type { BottleStatus } from "../../controller/api/bottle.ts";
import { conditionOf, type Condition, type ConditionType } from "../../controller/api/conditions.ts";
import { ANNOTATIONS } from "../../controller/api/meta.ts";
import { planBottle } from "../../controller/plan/plan-bottle.ts";
import type { EgressCounters } from "../../controller/ports/audit.ts";
import type { Desired } from "../../controller/plan/situation.ts";
import { NO_EGRESS, NOW, readCase } from "./case-reader.ts";

const AT_NOW = new Date(NOW).toISOString();
const RUNNING = `
bottle: { turns: [first, second] }
journal: [launch, probe, configured, starting first 1, finished first 1 Done 0 30s ago, starting second 1]
units: [holder running, guard running, agent second 1 running 20s ago]
`;
const HOST = { allowed: 7, denied: 2, bytesUp: 1, bytesDown: 2 };
const FROZEN = `
bottle: { turns: [first, second] }
journal: [launch, probe, configured, starting first 1, finished first 1 Failed 3 30s ago, frozen 20s ago]
`;

function inputOf(lines: string) {
  const { desired, observed } = readCase(`# A status.\n${lines}plan: { ready: [Ready, Any] }\n`);
  return { desired, observed };
}

function statusOf(lines: string, change: (desired: Desired) => Desired = (desired) => desired): BottleStatus {
  const { desired, observed } = inputOf(lines);
  return planBottle(change(desired), observed, NOW).status;
}

function saying(status: BottleStatus, type: ConditionType): string {
  const condition = conditionOf(status.conditions, type);
  return condition === undefined ? "absent" : `${condition.status} ${condition.reason}: ${condition.message}`;
}

describe("the status of a bottle", () => {
  it("tells of a running bottle what it is made from, what is up, and how far its turns are", () => {
    const { conditions, ...status } = statusOf(RUNNING);

    expect(status).toEqual({
      observedGeneration: 1,
      bottleID: "uid-1",
      backend: { type: "Docker" },
      resolved: { templateDigest: "sha256:1", policyDigest: NO_EGRESS.digest, image: "image" },
      guard: [
        { name: "guard", ready: true },
        { name: "holder", ready: true },
      ],
      turns: [
        {
          id: "first",
          state: "Ended",
          outcome: "Done",
          exitCode: 0,
          attempts: 1,
          completionTime: "2026-11-20T11:59:30.000Z",
        },
        { id: "second", state: "Running", attempts: 1, startTime: "2026-11-20T11:59:40.000Z" },
      ],
      lastTurn: { id: "second", outcome: "Running" },
      disk: { kind: "Volume", id: "disk-workspace" },
    });
    expect(conditions?.map((condition) => `${condition.type} ${condition.status}`)).toEqual([
      "Accepted True",
      "ResolvedRefs True",
      "GuardReady True",
      "EgressEnforced True",
      "Ready True",
      "Frozen False",
      "AgentRunning True",
      "Finished False",
      "Reconciling False",
      "Stalled False",
    ]);
  });

  it("tells of a frozen bottle since when its disk is all that is left", () => {
    const status = statusOf(FROZEN);

    expect(status.disk?.frozenTime).toBe("2026-11-20T11:59:40.000Z");
    expect(status.guard?.map((unit) => unit.ready)).toEqual([false, false]);
    expect(status.lastTurn).toEqual({ id: "first", outcome: "Failed", exitCode: 3 });
    expect(status.turns?.at(1)).toEqual({ id: "second", state: "Pending", attempts: 0 });
  });

  it("tells of a fresh bottle nothing that is not known yet", () => {
    const status = statusOf("bottle: { turns: [] }\n");

    expect(Object.keys(status).sort()).toEqual([
      "backend",
      "bottleID",
      "conditions",
      "guard",
      "observedGeneration",
      "resolved",
      "turns",
    ]);
    expect(saying(status, "EgressEnforced")).toBe("absent");
    expect(saying(status, "DeletionBlocked")).toBe("absent");
  });

  it("counts the attempts of a turn that goes on, and tells how the last one ended", () => {
    const status = statusOf(`
bottle: { turns: [first] }
journal: [launch, probe, configured, starting first 1, finished first 1 Interrupted, starting first 2]
units: [holder running, guard running, agent first 2 created]
`);

    expect(status.turns).toMatchObject([{ state: "Pending", outcome: "Interrupted", attempts: 2 }]);
  });

  it("of a turn that runs again does not tell how the attempt before ended", () => {
    const [turn] =
      statusOf(`
bottle: { turns: [first] }
journal: [launch, probe, configured, starting first 1, finished first 1 Interrupted 137, starting first 2]
units: [holder running, guard running, agent first 2 running]
`).turns ?? [];

    expect(turn).toEqual({ id: "first", state: "Running", attempts: 2, startTime: "2026-11-20T11:59:50.000Z" });
  });

  it("names no image where the backend runs programs of the host", () => {
    const status = statusOf(RUNNING, (desired) => ({
      ...desired,
      backend: { ok: true, name: "bubblewrap", features: { images: false, limits: ALL } },
    }));

    expect(status.resolved).toEqual({ templateDigest: "sha256:1", policyDigest: NO_EGRESS.digest });
  });

  it("names the backend of the first launch, whatever would be chosen now", () => {
    const other = { ok: true, name: "bubblewrap", features: { images: false, limits: ALL } } as const;

    const launched = statusOf(RUNNING, (desired) => ({ ...desired, backend: other }));
    const fresh = statusOf("bottle: { turns: [first] }\n", (desired) => ({ ...desired, backend: other }));

    expect([launched.backend, fresh.backend]).toEqual([{ type: "Docker" }, { type: "Bubblewrap" }]);
  });
});

const ALL = { cpu: true, memory: true, pids: true };

function counted(counters: EgressCounters | undefined, before?: BottleStatus) {
  const { desired, observed } = inputOf(RUNNING);
  const bottle = { ...desired.bottle, status: before };
  return planBottle({ ...desired, bottle }, { ...observed, egress: counters }, NOW).status.egress;
}

describe("egress in the status", () => {
  const COUNTERS: EgressCounters = { allowed: 7, denied: 2, dlpBlocked: 1, hosts: { "api.example.com": HOST } };

  it("counts what went through the guard and what did not, and tells of the last refusal", () => {
    const lastDenied = { time: "2026-11-20T12:59:00.5+01:00", host: "evil.example", port: 443, rule: "default-deny" };

    expect(counted({ ...COUNTERS, lastDenied })).toEqual({
      allowed: 7,
      denied: 2,
      dlpBlocked: 1,
      lastDenied: { ...lastDenied, time: "2026-11-20T11:59:00.500Z" },
    });
  });

  it("has no port where the agent named none", () => {
    const lastDenied = { time: "2026-11-20T11:59:00Z", host: "evil.example", port: null, rule: "bad-request" };

    expect(counted({ ...COUNTERS, lastDenied })?.lastDenied).not.toHaveProperty("port");
  });

  it("shows of a host, which the agent wrote, what fits into a status and forges no terminal", () => {
    const lastDenied = { time: "2026-11-20T11:59:00Z", host: `\u001b[2J${"x".repeat(400)}`, port: 443, rule: "r" };

    expect(counted({ ...COUNTERS, lastDenied })?.lastDenied?.host).toBe(`?[2J${"x".repeat(249)}`);
  });

  it("stays as it was while nothing is known, as after a restart of the controller", () => {
    const known = { allowed: 3, denied: 0, dlpBlocked: 0 };

    expect(counted(undefined, { egress: known })).toEqual(known);
    expect(counted(undefined)).toBeUndefined();
  });
});

describe("conditions", () => {
  it.each([
    ["[]", "False NotRunning: there is neither holder nor guard"],
    ["[holder running]", "False Incomplete: holder and guard do not both run"],
    ["[guard running]", "False Incomplete: holder and guard do not both run"],
    ["[holder running, guard exited 1]", "False Incomplete: holder and guard do not both run"],
    ["[holder running, guard running]", "True Running: holder and guard run"],
  ])("GuardReady with %s is %s", (units, said) => {
    const status = statusOf(`bottle: { turns: [first] }\njournal: [launch, configured]\nunits: ${units}\n`);

    expect(saying(status, "GuardReady")).toBe(said);
    expect(status.guard?.every((unit) => unit.ready)).toBe(said.startsWith("True"));
  });

  it.each([
    ["[]", "[]", "False NoTurns: no turn is declared"],
    ["[first]", "[launch]", 'False TurnsLeft: turn "first" has not ended'],
    ["[first]", "[launch, finished first 1 Done 0]", "True AllDone: all turns are done"],
    [
      "[first, second, third]",
      "[launch, finished first 1 Failed 1, finished second 1 Done 0, finished third 1 OOMKilled 137]",
      "True TurnsFailed: ended otherwise than Done: first, third",
    ],
  ])("Finished with turns %s and journal %s is %s", (turns, journal, said) => {
    expect(saying(statusOf(`bottle: { turns: ${turns} }\njournal: ${journal}\n`), "Finished")).toBe(said);
  });

  it("a refused update is told in its own words", () => {
    const status = statusOf("bottle: { turns: [first], annotations: [rejectedUpdate] }\n");

    expect(saying(status, "Accepted")).toBe("False UpdateRejected: value of rejectedUpdate");
  });

  it("a message that is too long for a cluster is cut", () => {
    const status = statusOf("bottle: { turns: [first] }\n", (desired) => {
      const annotations = { [ANNOTATIONS.rejectedUpdate]: "x".repeat(5000) };
      const metadata = { ...desired.bottle.metadata, annotations };
      return { ...desired, bottle: { ...desired.bottle, metadata } };
    });

    expect(conditionOf(status.conditions, "Accepted")?.message).toHaveLength(4096);
  });

  it("are of the generation that was looked at", () => {
    const status = statusOf(FROZEN, (desired) => {
      const metadata = { ...desired.bottle.metadata, generation: 7 };
      return { ...desired, bottle: { ...desired.bottle, metadata } };
    });

    expect(status.observedGeneration).toBe(7);
    expect(status.conditions?.map((condition) => condition.observedGeneration)).toEqual(
      status.conditions?.map(() => 7),
    );
  });
});

describe("the transition time of a condition", () => {
  const EARLIER = "2026-11-20T08:00:00.000Z";

  function after(before: Pick<Condition, "type" | "status">): Condition | undefined {
    const old: Condition = {
      ...before,
      reason: "Old",
      message: "old",
      observedGeneration: 1,
      lastTransitionTime: EARLIER,
    };
    const status = statusOf(RUNNING, (desired) => ({
      ...desired,
      bottle: { ...desired.bottle, status: { conditions: [old] } },
    }));
    return conditionOf(status.conditions, before.type);
  }

  it("is now when the status turned", () => {
    expect(after({ type: "Ready", status: "False" })).toMatchObject({ status: "True", lastTransitionTime: AT_NOW });
  });

  it("stays when only the reason changed", () => {
    const ready = after({ type: "Ready", status: "True" });

    expect(ready).toMatchObject({ status: "True", reason: "AgentRunning", lastTransitionTime: EARLIER });
  });

  it("stays with a condition that can no longer be told and is therefore kept as it was", () => {
    const kept = after({ type: "DeletionBlocked", status: "True" });

    expect(kept).toMatchObject({ status: "True", reason: "Old", message: "old", lastTransitionTime: EARLIER });
  });
});
