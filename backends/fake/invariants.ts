import type { TurnKey } from "../../controller/ports/journal.ts";
import type { Container, Volume, World } from "./world.ts";

/** One start of a process, with the state of the two units that make it safe. */
export interface StartedRun extends Partial<TurnKey> {
  uid: string;
  role: "agent" | "session";
  atMs: number;
  holder: Container["state"] | "absent";
  guard: Container["state"] | "absent";
}

/** Something happened that must never happen, whatever fails. */
export class InvariantViolation extends Error {
  constructor(violations: readonly string[]) {
    super(violations.join("; "));
    this.name = "InvariantViolation";
  }
}

/** No process of an agent starts before its namespace, its only way out and its disk are there. */
export function startViolations(run: StartedRun, disk: readonly Volume[]): string[] {
  const what = `${run.role} of bottle "${run.uid}" started`;
  const found: string[] = [];
  if (run.holder !== "running") found.push(`${what} while its holder was ${run.holder}`);
  if (run.guard !== "running") found.push(`${what} while its guard was ${run.guard}`);
  for (const volume of disk) {
    if (!volume.seeded) found.push(`${what} on volume "${volume.id}", which its user does not own`);
  }
  return found;
}

/** A disk outlives every unit of its bottle. */
export function volumeRemovalViolations(world: World, volume: Volume): string[] {
  if (volume.part === "sockets") return [];
  const units = world.unitsOf(volume.uid);
  if (units.length === 0) return [];
  return [
    `volume "${volume.id}" was removed while bottle "${volume.uid}" had ${units.map((unit) => unit.engineName).join(", ")}`,
  ];
}

/** Teardown runs agent first: the way out is not taken from under an agent that works. */
export function stopViolations(world: World, unit: Container): string[] {
  if (unit.state !== "running" || (unit.role !== "holder" && unit.role !== "guard")) return [];
  if (!world.running(unit.uid, "agent")) return [];
  return [`the ${unit.role} of bottle "${unit.uid}" was stopped under its running agent`];
}

/** Throws if a start, a removal or a stop broke a rule, or if the world as it is now breaks one. */
export function assertHeld(world: World): void {
  const agents = [...world.containers.values()].filter((unit) => unit.role === "agent");
  const runningIn = new Set<string>();
  for (const agent of agents) {
    if (agent.starts > 1) note(world, `agent "${agent.engineName}" was started ${agent.starts} times`);
    if (agent.state !== "running") continue;
    if (runningIn.has(agent.uid)) note(world, `two agents of bottle "${agent.uid}" run at the same time`);
    runningIn.add(agent.uid);
  }
  if (world.violations.length > 0) throw new InvariantViolation(world.violations);
}

function note(world: World, violation: string): void {
  if (!world.violations.includes(violation)) world.violations.push(violation);
}
