/**
 * Bugs planted in the planner, each a change of its text: the exhaustive simulation must catch every one. A simulation that misses a bug here
 * would miss it in a real change too. `find` must stand exactly once in the file, so that a mutant cannot go stale unnoticed.
 */
export interface Mutant {
  name: string;
  file: string;
  find: string;
  replace: string;
  /** Of a bug that shows only under faults: the scenario to try first, because all of them take a minute. */
  shownBy?: string;
}

export const MUTANTS: readonly Mutant[] = [
  {
    name: "the start of a turn is not put on record",
    file: "rules-launch.ts",
    find: "history.starting >= attempt",
    replace: "history.starting >= 0",
  },
  {
    name: "a run that vanished is not noticed",
    file: "rules-end.ts",
    find: "  recordVanished,\n",
    replace: "",
  },
  {
    name: "a run is removed before its end is on record",
    file: "rules-end.ts",
    find: "  collectEnded,\n",
    replace: "",
  },
  {
    name: "an agent is started without a probe",
    file: "rules-launch.ts",
    find: "  probe,\n  configure,",
    replace: "  configure,",
  },
  {
    name: "an agent whose guard died is left running",
    file: "rules-end.ts",
    find: 'if (!live) return "GuardLost";',
    replace: "",
  },
  {
    name: "a failed turn is tried again",
    file: "situation.ts",
    find: 'history.last.outcome !== "Interrupted"',
    replace: 'history.last.outcome === "Done"',
  },
  {
    name: "an interrupted turn is given up",
    file: "situation.ts",
    find: 'history.last !== undefined && history.last.outcome !== "Interrupted"',
    replace: "history.last !== undefined",
  },
  {
    name: "the deadline is not kept",
    file: "rules-end.ts",
    find: '+ deadlineMs <= now ? "Deadline"',
    replace: '+ deadlineMs * 1e6 <= now ? "Deadline"',
  },
  {
    name: "why a run was ended is not put on record",
    file: "rules-end.ts",
    find: "recorded ? [] : [announce]",
    replace: "recorded ? [announce] : []",
  },
  {
    name: "the finalizer is removed before the backend is empty",
    file: "rules-end.ts",
    find: "if (disk.length > 0) return",
    replace: "if (disk.length > 9) return",
  },
  {
    name: "the finalizer is not set before the first call",
    file: "rules-launch.ts",
    find: 'finalizers?.includes(FINALIZER) !== true) steps.push({ kind: "addFinalizer" })',
    replace: 'finalizers?.includes(FINALIZER) === true) steps.push({ kind: "addFinalizer" })',
  },
  {
    name: "the disk goes when the bottle freezes",
    file: "rules-rest.ts",
    find: "if (journal.frozenMs === undefined) {",
    replace:
      'if (disk.length > 0) return { steps: [{ kind: "removeDisk" }], note: { state: "Reconciling", reason: "x", message: "x" } };\n  if (journal.frozenMs === undefined) {',
  },
  {
    name: "a freeze leaves the guard up",
    file: "rules-rest.ts",
    find: "removal(situation, standing)",
    replace: 'removal(situation, standing.filter((unit) => unit.role !== "guard"))',
  },
  {
    name: "a backend that cannot be observed is taken for an empty one",
    file: "rules-end.ts",
    find: "if (why === undefined) return undefined;",
    replace: "if (why !== null) return undefined;",
    shownBy: "a turn whose unit somebody removed goes on as another attempt",
  },
  {
    name: "an unrecorded exit code is taken for success",
    file: "outcome.ts",
    find: "if (exit?.code === 0) return",
    replace: "if (exit?.code !== undefined) return",
  },
  {
    name: "memory exhaustion is taken for failure",
    file: "outcome.ts",
    find: "if (exit?.oom === true) return",
    replace: "if (exit?.oom === undefined) return",
  },
  {
    name: "an exited holder is not replaced",
    file: "rules-launch.ts",
    find: 'unit?.state === "exited" || (unit',
    replace: "(unit",
  },
  {
    name: "Keep freezes",
    file: "situation.ts",
    find: "(next !== undefined || keep)",
    replace: "next !== undefined",
  },
  {
    name: "the time of a frozen bottle never ends",
    file: "rules-rest.ts",
    find: "[expired, expire, diskLost, rest]",
    replace: "[expired, diskLost, rest]",
  },
  {
    name: "a deleted bottle is frozen instead",
    file: "rules-end.ts",
    find: "  destroy,\n",
    replace: "",
  },
  {
    name: "an agent is started before its guard was told its rules",
    file: "rules-launch.ts",
    find: "  configure,\n  start,",
    replace: "  start,",
  },
  {
    name: "rules that change do not reach a guard that has some",
    file: "rules-guard.ts",
    find: "recordedDigest(situation) === settings.digest",
    replace: "recordedDigest(situation) !== undefined",
  },
  {
    name: "rules that change do not reach the guard of a running agent",
    file: "rules-end.ts",
    find: "holdMs === undefined ? guardSteps(situation) : []",
    replace: "holdMs !== undefined ? guardSteps(situation) : []",
  },
  {
    name: "a guard stays open under a running agent when its secret vanishes",
    file: "rules-end.ts",
    find: "holdMs === undefined ? guardSteps(situation) : []",
    replace: "holdMs === undefined && situation.desired.resolution.ok ? guardSteps(situation) : []",
  },
  {
    name: "a guard without an agent stays open when its secret vanishes",
    file: "rules-launch.ts",
    find: "  closeGuard,\n  unresolved,",
    replace: "  unresolved,",
  },
  {
    name: "settings are on record before the guard has them",
    file: "rules-guard.ts",
    find: "return [...record, ",
    replace:
      'return [...record, { kind: "record", entries: [{ type: "GuardConfigured", timeMs: now, guardId, digest: settings.digest }] }, ',
    shownBy: "what went through the guard is on record when the bottle is frozen",
  },
  {
    name: "the agent's home does not get the authority of its guard",
    file: "rules-guard.ts",
    find: "const trust = lost || (recordedDigest(situation) ?? NO_SETTINGS) === NO_SETTINGS;",
    replace: "const trust = lost;",
  },
  {
    name: "a guard that lost its settings is not noticed",
    file: "rules-guard.ts",
    find: "return heard.digest !== recorded &&",
    replace: "return heard.digest === null &&",
  },
  {
    name: "that a guard lost its settings is not put on record",
    file: "rules-guard.ts",
    find: "const record: Step[] = lost ?",
    replace: "const record: Step[] = lost === null ?",
    shownBy: "a guard that began anew is told its rules again, and its agent's home gets the new authority",
  },
  {
    name: "the audit is not read before the guard goes",
    file: "rules-guard.ts",
    find: "return hasNotes ?",
    replace: "return !guard ?",
  },
  {
    name: "holder and guard are made anew for a variable of the agent",
    file: "blueprint.ts",
    find: "specHash: hashOf(made), ...made, env",
    replace: "specHash: hashOf({ made, env }), ...made, env",
  },
];
