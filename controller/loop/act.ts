import type { Bottle } from "../api/bottle.ts";
import { unreachable } from "../api/errors.ts";
import { FINALIZER, keyOf } from "../api/meta.ts";
import type { Step } from "../plan/steps.ts";
import { BackendError, type Backend } from "../ports/backend.ts";
import { TRANSCRIPT_BYTES_MAX, type TurnKey, type Transcripts } from "../ports/journal.ts";
import type { Store } from "../ports/store.ts";
import type { AuditCollector } from "./audit-collector.ts";
import { configureGuard } from "./configure-guard.ts";
import type { Journals } from "./journals.ts";

export interface ActTools {
  store: Store;
  journals: Journals;
  transcripts: Transcripts;
  collector: Pick<AuditCollector, "drain">;
  now: () => number;
  signal: AbortSignal;
}

/** Translates one step into one call and decides nothing. Returns the bottle as the store has it afterwards. */
export async function act(step: Step, bottle: Bottle, backend: Backend | undefined, tools: ActTools): Promise<Bottle> {
  const { store, journals, signal } = tools;
  const { uid } = bottle.metadata;
  switch (step.kind) {
    case "addFinalizer":
      return store.update<"Bottle">({
        ...bottle,
        metadata: { ...bottle.metadata, finalizers: [...(bottle.metadata.finalizers ?? []), FINALIZER] },
      });
    case "removeFinalizer":
      return store.update<"Bottle">({
        ...bottle,
        metadata: {
          ...bottle.metadata,
          finalizers: bottle.metadata.finalizers?.filter((finalizer) => finalizer !== FINALIZER),
        },
      });
    case "deleteResource":
      await store.delete("Bottle", keyOf(bottle), { uid });
      return bottle;
    case "forget":
      await journals.forget(uid);
      return bottle;
    case "record":
      await journals.append(uid, step.entries);
      return bottle;
    case "prepare":
      await present(backend).prepare(step.blueprint, signal);
      return bottle;
    case "probe": {
      const report = await present(backend).probe({ uid, holderId: step.holderId }, signal);
      await journals.append(uid, [{ type: "Probed", timeMs: tools.now(), holderId: step.holderId, ...report }]);
      return bottle;
    }
    case "configureGuard":
      await configureGuard(step, bottle, { ...tools, backend: present(backend) });
      return bottle;
    case "drainAudit":
      await tools.collector.drain({ uid, guardId: step.guardId, backend: present(backend) }, signal);
      return bottle;
    case "createAgent":
      await present(backend).createAgent(step.blueprint, step.run, signal);
      return bottle;
    case "startAgent":
      await present(backend).startAgent({ uid, turn: step.turn, attempt: step.attempt }, signal);
      return bottle;
    case "stopAgent":
      await present(backend).stopAgent(
        { uid, turn: step.turn, attempt: step.attempt },
        { graceMs: step.graceMs, signal },
      );
      return bottle;
    case "collectTurn":
      await tools.transcripts.save(uid, {
        ...turnKey(step.entry),
        ...(await transcriptOf(present(backend), { uid, ...turnKey(step.entry) }, signal)),
      });
      await journals.append(uid, [step.entry]);
      return bottle;
    case "removeUnits":
      await present(backend).removeUnits(uid, step.unitIds, signal);
      return bottle;
    case "removeDisk":
      await present(backend).removeDisk(uid, signal);
      return bottle;
    default:
      return unreachable(step);
  }
}

function present(backend: Backend | undefined): Backend {
  if (backend === undefined)
    throw new BackendError("Unavailable", "BackendUnknown", "the bottle's backend is not served by this controller");
  return backend;
}

function turnKey({ turn, attempt }: TurnKey): TurnKey {
  return { turn, attempt };
}

/** The end of what a run wrote. A unit that is gone left nothing to keep. */
async function transcriptOf(
  backend: Backend,
  unit: { uid: string } & TurnKey,
  signal: AbortSignal,
): Promise<{ bytes: Uint8Array; truncated: boolean }> {
  const chunks: Uint8Array[] = [];
  let size = 0;
  let truncated = false;
  try {
    for await (const chunk of backend.logs(unit, { follow: false, signal })) {
      chunks.push(chunk);
      size += chunk.byteLength;
      for (
        let first = chunks[0];
        first !== undefined && size - first.byteLength >= TRANSCRIPT_BYTES_MAX;
        first = chunks[0]
      ) {
        size -= first.byteLength;
        chunks.shift();
        truncated = true;
      }
    }
  } catch (error) {
    if (!(error instanceof BackendError) || error.kind !== "NotFound") throw error;
  }
  const bytes = Buffer.concat(chunks);
  const surplus = bytes.byteLength - TRANSCRIPT_BYTES_MAX;
  return surplus > 0 ? { bytes: bytes.subarray(surplus), truncated: true } : { bytes, truncated };
}
