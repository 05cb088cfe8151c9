import type { Bottle } from "../api/bottle.ts";
import { isStatus } from "../api/errors.ts";
import type { ObjectKey } from "../api/meta.ts";
import type { Backend, Blueprint } from "../ports/backend.ts";
import { guardToken } from "../loop/guard-token.ts";
import { blueprintOf } from "../plan/blueprint.ts";
import { resolveBottle } from "../plan/resolve.ts";
import type { CommandContext } from "./context.ts";
import { CommandError, EXIT, notFound } from "./exit.ts";
import { lookupIn } from "./lookup.ts";

const ATTEMPTS_MAX = 5;

export function bottleKey(context: Pick<CommandContext, "namespace">, name: string): ObjectKey {
  return { namespace: context.namespace, name: name.replace(/^(bottles?|bt)\//, "") };
}

export async function getBottle(context: CommandContext, name: string): Promise<Bottle> {
  const key = bottleKey(context, name);
  const bottle = await context.store.get("Bottle", key);
  if (bottle === undefined) throw notFound("bottle", key.name, key.namespace);
  return bottle;
}

/** Reads, changes and writes a bottle's spec, again if somebody else was faster. */
export async function changeBottle(
  context: CommandContext,
  name: string,
  change: (bottle: Bottle) => Bottle["spec"],
): Promise<Bottle> {
  for (let attempt = 1; ; attempt += 1) {
    const bottle = await getBottle(context, name);
    if (bottle.metadata.deletionTimestamp !== undefined) {
      throw new CommandError(EXIT.refused, `bottle "${bottle.metadata.name}" is being deleted`);
    }
    try {
      return await context.store.update<"Bottle">({ ...bottle, spec: change(bottle) });
    } catch (error) {
      if (!isStatus(error, "Conflict") || attempt >= ATTEMPTS_MAX) throw error;
    }
  }
}

/** The backend that a bottle lives on, once it was launched. */
export async function backendOf(context: CommandContext, bottle: Bottle): Promise<Backend | undefined> {
  const entries = await context.journal.read(bottle.metadata.uid);
  const launch = entries.findLast(({ entry }) => entry.type === "LaunchIntended")?.entry;
  const name = launch?.type === "LaunchIntended" ? launch.backend : bottle.status?.backend?.type.toLowerCase();
  if (name === undefined) return undefined;
  return context.backend(name);
}

export async function requireBackend(context: CommandContext, bottle: Bottle): Promise<Backend> {
  const backend = await backendOf(context, bottle);
  if (backend !== undefined) return backend;
  throw new CommandError(EXIT.refused, `bottle "${bottle.metadata.name}" was never launched: it has no disk yet`);
}

/** What the controller made this bottle from, for commands that run beside its agent. */
export async function blueprintFor(context: CommandContext, bottle: Bottle, backend: Backend): Promise<Blueprint> {
  const { namespace, uid } = bottle.metadata;
  const resolution = resolveBottle(bottle, await lookupIn(context, namespace));
  if (!resolution.ok) throw new CommandError(EXIT.refused, resolution.message);
  // The image that runs now, should the templates name none.
  const defaultImage = bottle.status?.resolved?.image ?? "";
  const token = guardToken(context.guardKey, uid);
  return blueprintOf(bottle, resolution, { features: backend.features, defaultImage, token });
}
