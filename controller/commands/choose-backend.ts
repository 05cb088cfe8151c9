import { detectBackend } from "../../backends/index.ts";
import type { Backend } from "../ports/backend.ts";
import type { CommandContext } from "./context.ts";
import { CommandError, EXIT } from "./exit.ts";

/** The backend for a bottle that has none yet: the one that was asked for, else the usual one if it works, else the first that does. */
export async function chooseBackend(
  context: CommandContext,
  wish: { asked?: string; usual?: string },
): Promise<Backend> {
  const usual = context.backendNames.find((name) => name === wish.usual);
  if (wish.asked === undefined && usual !== undefined) {
    const backend = context.backend(usual);
    if ((await backend.available(context.signal)).ok) return backend;
  }
  if (wish.asked !== undefined && !context.backendNames.includes(wish.asked)) {
    const known = context.backendNames.join(", ");
    throw new CommandError(EXIT.usage, `backend "${wish.asked}" is unknown: choose one of ${known}`);
  }
  const candidates = context.backendNames.map((name) => context.backend(name));
  const found = await detectBackend(candidates, { explicit: wish.asked, env: context.env["BOT_BOTTLE_BACKEND"] });
  if (found.ok) return context.backend(found.name);
  throw new CommandError(EXIT.unavailable, found.message);
}
