import { expect } from "vitest";
import { HOST, simSpec, turnsOf, type Rig } from "./rig.ts";
import { expectFrozen, outcomes, type Scenario } from "./scenario.ts";

/** The rules and the secret that the guard of the bottle has. */
async function guarded(rig: Rig): Promise<unknown> {
  const settings = (await rig.guard())?.settings;
  if (settings?.closed !== undefined) return settings.closed.reason;
  return settings && { hosts: settings.policy.rules.map((rule) => rule.host), secrets: settings.secrets };
}

async function expectWorking(rig: Rig): Promise<void> {
  const uid = (await rig.bottle())?.metadata.uid ?? "";
  expect(rig.world.running(uid, "agent")).toBe(true);
  expect(rig.world.startedRuns).toHaveLength(1);
}

async function working(rig: Rig): Promise<void> {
  await rig.create(simSpec({ turns: turnsOf("forever") }));
  await rig.settle();
}

const audited: Scenario = {
  name: "what went through the guard is on record when the bottle is frozen",
  async play(rig) {
    await rig.create(simSpec({ turns: turnsOf(`ask ${HOST}`) }));
    await rig.settle();
    await rig.edit((spec) => ({ ...spec, turns: turnsOf(`ask ${HOST}`, "ask evil.example") }));
    await rig.settle();
  },
  async verify(rig) {
    await expectFrozen(rig, ["Done", "Done"]);
    expect(rig.world.audited.map(({ host }) => host)).toEqual([HOST, "evil.example"]);
    expect(await rig.auditedHosts()).toEqual([HOST, "evil.example"]);
  },
};

const changedRules: Scenario = {
  name: "rules that change reach the guard of a running agent",
  async play(rig) {
    await working(rig);
    await rig.allow("other.example.com");
    await rig.settle();
  },
  async verify(rig) {
    await expectWorking(rig);
    expect(await guarded(rig)).toEqual({ hosts: ["other.example.com"], secrets: { "api/token": "one" } });
  },
};

const rotatedSecret: Scenario = {
  name: "a secret that changes reaches the guard of a running agent",
  async play(rig) {
    await working(rig);
    await rig.putSecret("two");
    await rig.settle();
  },
  async verify(rig) {
    await expectWorking(rig);
    expect(await guarded(rig)).toEqual({ hosts: [HOST], secrets: { "api/token": "two" } });
  },
};

const lostSecret: Scenario = {
  name: "a secret that is gone closes the guard, and the agent goes on",
  async play(rig) {
    await working(rig);
    await rig.removeSecret();
    await rig.settle();
  },
  async verify(rig) {
    await expectWorking(rig);
    expect(await guarded(rig)).toBe("SecretNotFound");
    expect((await rig.guard())?.settings?.secrets).toEqual({});
  },
};

const foundSecret: Scenario = {
  name: "a closed guard is opened again when its secret is back",
  async play(rig) {
    await lostSecret.play(rig);
    await rig.putSecret("two");
    await rig.settle();
  },
  verify: rotatedSecret.verify,
};

const closedBetweenTurns: Scenario = {
  name: "the guard of a kept bottle is closed too, and its next turn waits for the secret",
  async play(rig) {
    await rig.create(
      simSpec({ turns: turnsOf("exit 0"), lifecycle: { afterTurn: "Keep", turnDeadlineSeconds: 3600 } }),
    );
    await rig.settle();
    await rig.removeSecret();
    await rig.settle();
    await rig.edit((spec) => ({ ...spec, turns: turnsOf("exit 0", "exit 0") }));
    await rig.settle();
  },
  async verify(rig) {
    expect(await guarded(rig)).toBe("SecretNotFound");
    expect(await outcomes(rig)).toEqual(["Done", undefined]);
  },
};

const forgetfulGuard: Scenario = {
  name: "a guard that began anew is told its rules again, and its agent's home gets the new authority",
  async play(rig) {
    await working(rig);
    rig.world.restartGuard((await rig.bottle())?.metadata.uid ?? "");
    rig.world.advance(60_000);
    await rig.settle();
  },
  async verify(rig) {
    await expectWorking(rig);
    expect(await guarded(rig)).toEqual({ hosts: [HOST], secrets: { "api/token": "one" } });
    const home = [...rig.world.volumes.values()].find((volume) => volume.part === "home");
    const trusted = home?.files.get(".bot-bottle/ca.pem");
    expect(trusted?.type === "file" && new TextDecoder().decode(trusted.bytes)).toBe(
      (await rig.guard())?.caCertificate,
    );
  },
};

const wakeUnderNewRules: Scenario = {
  name: "a frozen bottle wakes under the rules of that time",
  async play(rig) {
    await rig.create(simSpec({ turns: turnsOf("exit 0") }));
    await rig.settle();
    await rig.allow("other.example.com");
    await rig.edit((spec) => ({ ...spec, turns: turnsOf("exit 0", "ask other.example.com") }));
    await rig.settle();
  },
  async verify(rig) {
    await expectFrozen(rig, ["Done", "Done"]);
    expect(await rig.auditedHosts()).toEqual(["other.example.com"]);
  },
};

const changedVariable: Scenario = {
  name: "a variable of the agent that changes leaves a kept bottle's guard up, and the next turn has it",
  async play(rig) {
    await rig.create(
      simSpec({ turns: turnsOf("exit 0"), lifecycle: { afterTurn: "Keep", turnDeadlineSeconds: 3600 } }),
    );
    await rig.settle();
    await rig.allow(HOST, [{ name: "COLOR", value: "green" }]);
    rig.world.program = ({ env }) => ({ code: env["COLOR"] === "green" ? 0 : 1 });
    await rig.edit((spec) => ({ ...spec, turns: turnsOf("exit 0", "exit 0") }));
    await rig.settle();
  },
  async verify(rig) {
    expect(await outcomes(rig)).toEqual(["Done", "Done"]);
    const told = (await rig.entries()).flatMap((entry) => (entry.type === "GuardConfigured" ? [entry.guardId] : []));
    expect(new Set(told).size).toBe(1);
  },
};

/** Stories of what a bottle may reach, and of the guard that sees to it. */
export const GUARD_SCENARIOS: readonly Scenario[] = [
  audited,
  changedRules,
  rotatedSecret,
  lostSecret,
  foundSecret,
  closedBetweenTurns,
  forgetfulGuard,
  wakeUnderNewRules,
  changedVariable,
];
