import { ControllerCrash, type World } from "../../backends/fake/index.ts";
import type { AuditCollector, FollowedGuard } from "../../controller/loop/audit-collector.ts";
import type { AuditLog } from "../../controller/ports/audit.ts";
import { BackendError } from "../../controller/ports/backend.ts";

const TRIES_MAX = 5;

/**
 * Stands for the collector of a controller: it knows at every moment what a guard would say of itself, without asking, because a simulation has no
 * time to wait for polls. What it reads it reads as the real one does, by calls that fail.
 */
export function simCollector(world: World, auditLog: AuditLog): Pick<AuditCollector, "drain" | "heard" | "counters"> {
  return {
    async drain(guard, signal) {
      for (let tries = 0; tries < TRIES_MAX; tries += 1) {
        try {
          while (await readPage(guard, auditLog, signal));
          return;
        } catch (error) {
          if (error instanceof ControllerCrash || !(error instanceof BackendError)) throw error;
          if (error.kind === "NotFound") return;
        }
      }
    },
    heard(uid) {
      const unit = world.unitsOf(uid).find((one) => one.role === "guard" && one.state === "running");
      if (unit?.guard === undefined) return undefined;
      const { health, settings } = unit.guard;
      return { guardId: unit.id, health, ...(settings === undefined ? {} : { digest: settings.digest }) };
    },
    counters: () => undefined,
  };
}

/** False once there is nothing left to read. */
async function readPage(
  { uid, guardId, backend }: FollowedGuard,
  log: AuditLog,
  signal: AbortSignal,
): Promise<boolean> {
  const from = await log.cursor(uid, guardId);
  const page = await backend.readAudit({ uid, guardId }, { cursor: from, waitMs: 0, linesMax: 100 }, signal);
  await log.append(uid, { guardId, from, cursor: page.cursor, lines: page.lines });
  return page.lines.length > 0;
}
