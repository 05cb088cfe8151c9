import { ANNOTATIONS } from "../api/meta.ts";
import { historyOf } from "./journal-state.ts";
import type { Rule } from "./rule.ts";
import { removal } from "./rules-guard.ts";
import type { Situation } from "./situation.ts";
import type { EventNote } from "./steps.ts";

/** What is left of a bottle whose time is over: the resource alone. */
const expired: Rule = (situation) => {
  const { journal, units, disk, next } = situation;
  if (journal.expiredMs === undefined) return undefined;
  const note = {
    state: "Reconciling",
    reason: "Expiring",
    message: "the bottle's time is over: its disk is being removed",
  } as const;
  if (units.length > 0) return { steps: removal(situation, units), note };
  if (disk.length > 0) return { steps: [{ kind: "removeDisk" }], note };
  const message = "the bottle's time is over and its disk is gone";
  if (next === undefined) return { note: { state: "Ready", reason: "Expired", message } };
  return {
    note: {
      state: "Stalled",
      reason: "Expired",
      message: `${message}, so turn "${next.id}" cannot run: create another bottle`,
    },
  };
};

/**
 * A bottle goes when its last turn ended (afterTurn: Delete) or when it was frozen long enough. One that a folder or a repository still
 * declares would be created anew by its source and run all its turns again, so there only its disk goes.
 */
const expire: Rule = (situation) => {
  const { bottle, now } = situation;
  const message = expiry(situation);
  if (message === undefined) return undefined;
  const event: EventNote = { type: "Normal", reason: "Expired", message };
  const note = { state: "Reconciling", reason: "Expiring", message } as const;
  if (bottle.metadata.annotations?.[ANNOTATIONS.source] === undefined)
    return { steps: [{ kind: "deleteResource", event }], note };
  return { steps: [{ kind: "record", entries: [{ type: "Expired", timeMs: now }], event }], note };
};

function expiry({ bottle, journal, wanted, next, now }: Situation): string | undefined {
  if (wanted && next !== undefined) return undefined;
  const lifecycle = bottle.spec.lifecycle;
  const declared = bottle.spec.turns ?? [];
  const over = next === undefined && declared.length > 0;
  if (lifecycle?.afterTurn === "Delete" && over) return "all turns have ended and afterTurn is Delete";
  const ttl = lifecycle?.ttlSecondsAfterFrozen;
  if (ttl === undefined || journal.frozenMs === undefined) return undefined;
  return journal.frozenMs + ttl * 1000 <= now ? `it was frozen for ${ttl} seconds` : undefined;
}

/** Nothing is to run: all units go, the disk stays. */
const rest: Rule = (situation) => {
  const { wanted, standing, disk, journal, now } = situation;
  if (wanted) return undefined;
  if (standing.length > 0 || disk.some((part) => part.part === "sockets")) {
    return {
      steps: removal(situation, standing),
      note: { state: "Reconciling", reason: "Freezing", message: "holder and guard are being removed; the disk stays" },
    };
  }
  if (journal.launch === undefined) {
    return {
      note: { state: "Ready", reason: "NeverLaunched", message: "there is no turn to run: append one to spec.turns" },
    };
  }
  if (journal.frozenMs === undefined) {
    const event: EventNote = { type: "Normal", reason: "Frozen", message: "only the disk is left" };
    return {
      steps: [{ kind: "record", entries: [{ type: "Frozen", timeMs: now }], event }],
      note: { state: "Reconciling", reason: "Freezing", message: "only the disk is left" },
    };
  }
  return {
    requeueAfterMs: untilExpiry(situation),
    note: { state: "Ready", reason: "Frozen", message: restMessage(situation) },
  };
};

function untilExpiry({ bottle, journal, now }: Situation): number | undefined {
  const ttl = bottle.spec.lifecycle?.ttlSecondsAfterFrozen;
  if (ttl === undefined || journal.frozenMs === undefined) return undefined;
  return Math.max(0, journal.frozenMs + ttl * 1000 - now);
}

function restMessage({ next, journal, bottle }: Situation): string {
  if (next === undefined) return "only the disk is left; a new turn wakes the bottle";
  const interrupted = historyOf(journal, next.id).last !== undefined;
  const left = interrupted ? `turn "${next.id}" was interrupted and goes on` : `turn "${next.id}" runs`;
  return bottle.spec.operatingMode === "Frozen"
    ? `only the disk is left; ${left} when operatingMode is Running`
    : "only the disk is left";
}

/**
 * A bottle that has worked has a disk. Without it the agent would start over as if nothing had been, so nothing starts, and people are told at once.
 */
const diskLost: Rule = ({ disk, journal, bottle, unseen, units }) => {
  if (unseen !== undefined || units.length > 0) return undefined;
  const worked = (bottle.spec.turns ?? []).some((turn) => journal.turns.has(turn.id));
  const parts = disk.map((part) => part.part);
  if (!worked || (parts.includes("home") && parts.includes("workspace"))) return undefined;
  const message = "the bottle's disk is gone from the backend: delete the bottle, or import an export of it";
  return { note: { state: "Stalled", reason: "DiskLost", message } };
};

/** What is at rest or goes to rest. No agent runs when these are asked. */
export const restRules: readonly Rule[] = [expired, expire, diskLost, rest];
