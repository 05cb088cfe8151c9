import { detectBackend } from "../../backends/index.ts";
import type { Bottle } from "../api/bottle.ts";
import { guardToken } from "../loop/guard-token.ts";
import { foldJournal, EMPTY_JOURNAL } from "../plan/journal-state.ts";
import { forecast } from "../plan/forecast.ts";
import { resolveBottle } from "../plan/resolve.ts";
import type { BackendChoice } from "../plan/situation.ts";
import type { Declared } from "../sources/apply.ts";
import type { CommandContext } from "./context.ts";
import { lookupIn } from "./lookup.ts";
import { defaultImage } from "./run-controller.ts";

/** The steps that the control loop would take for a bottle, or why it would take none, in words. `others` are declared along with it and not stored yet. */
export async function forecastBottle(
  context: CommandContext,
  bottle: Bottle,
  others: readonly Declared[],
): Promise<readonly string[]> {
  const resolution = resolveBottle(bottle, await lookupIn(context, bottle.metadata.namespace, others));
  if (!resolution.ok) return [`nothing: ${resolution.message}`];
  const journal = foldJournal(
    EMPTY_JOURNAL,
    (await context.journal.read(bottle.metadata.uid)).map(({ entry }) => entry),
  );
  const backend = await chooseBackend(context, bottle, journal.launch?.backend);
  if (!backend.ok) return [`nothing: ${backend.message}`];
  const seen = (await context.backend(backend.name).observe(context.signal)).bottles.get(bottle.metadata.uid);
  const token = guardToken(context.guardKey, bottle.metadata.uid);
  const desired = { bottle, resolution, backend, defaultImage: defaultImage(), token };
  const steps = forecast(desired, { journal, view: { state: "seen", bottle: seen } }, context.now());
  return steps.length === 0 ? ["nothing to do"] : steps;
}

async function chooseBackend(
  context: CommandContext,
  bottle: Bottle,
  pinned: string | undefined,
): Promise<BackendChoice> {
  if (pinned !== undefined) return { ok: true, name: pinned, features: context.backend(pinned).features };
  const backends = context.backendNames.map((name) => context.backend(name));
  const asked = { explicit: bottle.spec.backend?.type.toLowerCase(), env: context.env["BOT_BOTTLE_BACKEND"] };
  const found = await detectBackend(backends, asked);
  if (!found.ok) return { ok: false, reason: "NoBackend", message: found.message };
  return { ok: true, name: found.name, features: context.backend(found.name).features };
}
