import { expect, it } from "vitest";
import { forecast } from "../../controller/plan/forecast.ts";
import { resolveEgress } from "../../controller/plan/resolve-egress.ts";
import type { Desired } from "../../controller/plan/situation.ts";
import { NOW, readCase } from "./case-reader.ts";

function foretold(lines: string, change: (desired: Desired) => Desired = (desired) => desired): string[] {
  const { desired, observed } = readCase(`# A forecast.\n${lines}plan: { ready: [Ready, Any] }\n`);
  return forecast(change(desired), observed, NOW);
}

function anySecret() {
  return { keys: new Set(["token"]), version: "1" };
}

/** With one rule that injects one secret. */
function injecting(desired: Desired): Desired {
  const { resolution } = desired;
  const inject = [{ header: "Authorization", secretRef: { name: "api", key: "token" } }];
  const rules = [{ name: "api", host: "api.example.com", action: "Allow" as const, inject }];
  const found = resolveEgress({ rules }, { namespace: "default", secret: anySecret });
  if (!resolution.ok || !found.ok) throw new Error("the case does not resolve");
  return { ...desired, resolution: { ...resolution, egress: found.egress } };
}

it("a launch is told in the order in which it is made, with what the guard is given", () => {
  expect(foretold("bottle: { turns: [first] }\n", injecting)).toEqual([
    "make disk, holder and guard on docker (image image)",
    "probe that nothing but the guard is in reach",
    "give the guard 1 egress rule(s) and 1 secret(s)",
    'run turn "first"',
    'keep the transcript of turn "first"',
    "remove 3 unit(s); the disk stays",
  ]);
});

it("a guard that is to be closed is told with the reason", () => {
  const lines = `
bottle: { turns: [first] }
unresolved: SecretNotFound
journal: [launch, probe, configured old, starting first 1]
units: [holder running, guard running, agent first 1 running]
`;

  expect(foretold(lines)).toEqual(["close the guard: what the bottle refers to does not exist"]);
});
