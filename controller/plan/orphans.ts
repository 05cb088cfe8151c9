import type { BottleView, Observation } from "../ports/backend.ts";
import { ORPHAN_GRACE_MS } from "./limits.ts";

/** What a backend holds for a uid that no Bottle has. */
export interface OrphanedBottle {
  view: BottleView;
  /** Of its youngest part. */
  createdMs: number;
}

/**
 * Bottles that nobody declares and whose youngest part is older than the grace period. `declared` must be complete, and an observation is complete
 * by contract: on half a view of either, something that is wanted would look like an orphan.
 */
export function orphansOf(
  observation: Observation,
  declared: ReadonlySet<string>,
  options: { now: number; graceMs?: number },
): OrphanedBottle[] {
  const graceMs = options.graceMs ?? ORPHAN_GRACE_MS;
  const orphans: OrphanedBottle[] = [];
  for (const view of observation.bottles.values()) {
    if (declared.has(view.uid)) continue;
    const createdMs = Math.max(
      0,
      ...view.units.map((unit) => unit.createdMs),
      ...view.disk.map((part) => part.createdMs),
    );
    if (createdMs + graceMs <= options.now) orphans.push({ view, createdMs });
  }
  return orphans;
}
