import type { Bottle } from "../../controller/api/bottle.ts";
import { API_VERSION, FINALIZER } from "../../controller/api/meta.ts";
import type { Draft } from "../../controller/ports/store.ts";

/** A bottle as people write them: two turns, templates, limits, labels of their own. */
export function realisticBottle(name: string): Draft<Bottle> {
  return {
    apiVersion: API_VERSION,
    kind: "Bottle",
    metadata: {
      name,
      labels: { team: "web", "app.kubernetes.io/part-of": "nightly" },
      annotations: { "bot-bottle.dev/source": "folder:/srv/bottles", "bot-bottle.dev/source-path": "web/nightly.yaml" },
      finalizers: [FINALIZER],
    },
    spec: {
      agentRef: { name: "implementer" },
      templateRefs: [{ name: "claude" }, { name: "dev" }],
      operatingMode: "Running",
      turns: [
        { id: "one", prompt: "Fix issue 42: the login page forgets where the user came from. ".repeat(3) },
        { id: "two", prompt: "Address the review: keep the parameter, add a test. ".repeat(2) },
      ],
      lifecycle: { afterTurn: "Freeze", turnDeadlineSeconds: 3600 },
      resources: { cpu: "2", memory: "4Gi", pids: 512 },
      label: "nightly",
    },
  };
}

export function realisticStatus(): Bottle["status"] {
  const lastTransitionTime = "2026-01-01T00:00:00Z";
  const known = { observedGeneration: 1, lastTransitionTime, message: "all is well" };
  return {
    observedGeneration: 1,
    bottleID: "bb-3f0c9a526a1e",
    conditions: (["Accepted", "ResolvedRefs", "GuardReady", "Ready", "Frozen"] as const).map((type) => {
      return { type, status: "True" as const, reason: "Succeeded", ...known };
    }),
    turns: [{ id: "one", state: "Ended", outcome: "Done", exitCode: 0, attempts: 1, startTime: lastTransitionTime }],
  };
}
