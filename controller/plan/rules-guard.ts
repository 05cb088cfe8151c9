import type { Unit } from "../ports/backend.ts";
import { HEARD_LAG_MS, INVALID_RETRY_MS } from "./limits.ts";
import { progress, type Rule } from "./rule.ts";
import type { Situation } from "./situation.ts";
import type { EventNote, Step } from "./steps.ts";

/** Digest of no settings: a guard is on record as having lost what it had. */
const NO_SETTINGS = "";

/** The digest that the running guard is on record with; undefined for a guard that was never told anything. */
export function recordedDigest({ guard, journal: { configured } }: Situation): string | undefined {
  if (guard?.state !== "running" || configured?.guardId !== guard.id) return undefined;
  return configured.digest;
}

/** Whether the guard says that it has other settings than those on record, in words that cannot be older than the record. */
function hasLost(situation: Situation): boolean {
  const { heard, journal, now } = situation;
  const recorded = recordedDigest(situation);
  if (heard === undefined || recorded === undefined || recorded === NO_SETTINGS) return false;
  return heard.digest !== recorded && (journal.configured?.timeMs ?? now) + HEARD_LAG_MS < now;
}

/** Whether the guard that runs has exactly the settings it must have. */
export function isConfigured(situation: Situation): boolean {
  const { settings } = situation;
  return settings !== undefined && recordedDigest(situation) === settings.digest && !hasLost(situation);
}

/**
 * What the running guard must be told now; empty if it knows. The agent's home gets the certificate authority of a guard that was never told
 * anything. Later the files stay as they are: programs of the agent may be reading them, and what the agent does to them must not hold up a change.
 */
export function guardSteps(situation: Situation): Step[] {
  const { guard, settings, now } = situation;
  if (guard === undefined || settings === undefined || isConfigured(situation)) return [];
  const { id: guardId } = guard;
  const lost = hasLost(situation);
  const forgotten = { type: "GuardConfigured", timeMs: now, guardId, digest: NO_SETTINGS } as const;
  // On record first: after a crash in between, the authority of a guard that began anew would not be written any more.
  const record: Step[] = lost ? [{ kind: "record", entries: [forgotten] }] : [];
  const trust = lost || (recordedDigest(situation) ?? NO_SETTINGS) === NO_SETTINGS;
  return [...record, { kind: "configureGuard", guardId, settings, trust, event: changeEvent(situation, trust) }];
}

/** The first settings are part of a launch, and no news. */
function changeEvent({ settings }: Situation, trust: boolean): EventNote | undefined {
  const closed = settings?.closed;
  if (closed !== undefined) {
    const message = `all egress is refused: ${closed.message}`;
    return { type: "Warning", reason: "EgressClosed", message };
  }
  if (trust) return undefined;
  return { type: "Normal", reason: "EgressChanged", message: "the guard has the current egress rules and secrets" };
}

/** How long a refusal of settings that only a person can mend is still to be left alone; undefined: it may be tried. */
export function configureHoldMs({ failure, now }: Situation): number | undefined {
  if (failure?.step !== "configureGuard" || failure.kind !== "Invalid") return undefined;
  const waitMs = failure.atMs + INVALID_RETRY_MS - now;
  return waitMs > 0 ? waitMs : undefined;
}

/** A guard that may let something through is closed while nobody can say what: an agent that runs keeps running. One that was told nothing is closed as it is. */
export const closeGuard: Rule = (situation) => {
  const { resolution } = situation.desired;
  if (resolution.ok || recordedDigest(situation) === undefined) return undefined;
  const steps = guardSteps(situation);
  if (steps.length === 0) return undefined;
  const note = { state: "Stalled", reason: resolution.reason, message: resolution.message } as const;
  const holdMs = configureHoldMs(situation);
  return holdMs === undefined ? { steps, note } : { requeueAfterMs: holdMs, note };
};

/** No agent starts behind a guard that does not have the current rules of its bottle. A bottle that is kept up gets them as they change. */
export const configure: Rule = (situation) => {
  const steps = guardSteps(situation);
  if (steps.length === 0) return undefined;
  return { steps, note: progress(situation, "Configuring", "the guard is being told the egress rules") };
};

/** Removes units. If the guard is among them, what it noted last is read first: it goes with it. */
export function removal(situation: Situation, units: readonly Unit[], event?: EventNote): Step[] {
  const { guard } = situation;
  const remove: Step = { kind: "removeUnits", unitIds: units.map((unit) => unit.id), event };
  const hasNotes = guard !== undefined && units.includes(guard) && recordedDigest(situation) !== undefined;
  return hasNotes ? [{ kind: "drainAudit", guardId: guard.id }, remove] : [remove];
}
