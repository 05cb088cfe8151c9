import { BackendError } from "../../controller/ports/backend.ts";
import type { AuditPage, AuditRequest } from "../../controller/ports/guard.ts";
import type { FakeContext } from "./context.ts";

/** One page; without news it waits for a change of the bottle, as long as it was asked to. */
export async function readAudit(
  context: FakeContext,
  unit: { uid: string; guardId: string },
  options: { request: AuditRequest; signal?: AbortSignal },
): Promise<AuditPage> {
  const { request, signal } = options;
  const engine = context.engine(signal);
  const endMs = performance.now() + request.waitMs;
  let first: AuditPage | undefined;
  for (;;) {
    const before = context.world.version;
    const page = await engine.readAudit({ ...unit, owner: context.owner }, request);
    first ??= page;
    const isNews = page.lines.length > 0 || page.digest !== first.digest || page.health !== first.health;
    const leftMs = endMs - performance.now();
    if (isNews || leftMs <= 0) return page;
    await changed(context, { before, uid: unit.uid, waitMs: leftMs, signal });
    if (signal?.aborted === true) {
      throw new BackendError(
        "Transient",
        "Aborted",
        `the audit of guard "${unit.guardId}" was not read: the caller gave up`,
      );
    }
  }
}

/** Ends with the next change of that bottle, after the time, or with the caller's patience. */
function changed(
  { world }: FakeContext,
  options: { before: number; uid: string; waitMs: number; signal?: AbortSignal | undefined },
): Promise<void> {
  const { before, uid, waitMs, signal } = options;
  if (world.version !== before || signal?.aborted === true) return Promise.resolve();
  return new Promise((done) => {
    const finish = (): void => {
      stop();
      clearTimeout(timer);
      signal?.removeEventListener("abort", finish);
      done();
    };
    const stop = world.listen((which) => {
      if (which === uid) finish();
    });
    const timer = setTimeout(finish, waitMs);
    signal?.addEventListener("abort", finish, { once: true });
  });
}
