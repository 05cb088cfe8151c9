import type { Backend, BottleView } from "../ports/backend.ts";

/** Removes everything of a bottle that nobody declares, in the order of any teardown. */
export async function removeOrphan(backend: Backend, view: BottleView, signal?: AbortSignal): Promise<void> {
  await backend.removeUnits(
    view.uid,
    view.units.map((unit) => unit.id),
    signal,
  );
  await backend.removeDisk(view.uid, signal);
}
