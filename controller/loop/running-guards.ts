import type { Backend, Observation } from "../ports/backend.ts";
import type { FollowedGuard } from "./audit-collector.ts";

/** The guards that run on all backends, from the newest look at each. */
export interface RunningGuards {
  /** Takes in a look and returns all guards that run, of bottles that somebody declares: nobody would forget the audit of another one. */
  seen(backend: Backend, observation: Observation): FollowedGuard[];
}

export function createRunningGuards(isDeclared: (uid: string) => boolean): RunningGuards {
  const byBackend = new Map<string, FollowedGuard[]>();
  return {
    seen(backend, observation) {
      byBackend.set(backend.name, guardsOf(backend, observation));
      return [...byBackend.values()].flat().filter(({ uid }) => isDeclared(uid));
    },
  };
}

function guardsOf(backend: Backend, { bottles }: Observation): FollowedGuard[] {
  const found: FollowedGuard[] = [];
  for (const { uid, units } of bottles.values()) {
    for (const unit of units) {
      if (unit.role === "guard" && unit.state === "running") found.push({ uid, guardId: unit.id, backend });
    }
  }
  return found;
}
