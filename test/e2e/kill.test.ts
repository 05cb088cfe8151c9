import { inspect } from "node:util";
import { expect, it } from "vitest";
import { ensureBusyboxImage } from "../helpers/busybox-image.ts";
import { describeWith } from "../helpers/needs.ts";
import { followEngine } from "./engine-events.ts";
import { live } from "./life.ts";

/** Lives at a time: a controller that starts up leaves the engine idle, and the other way round. */
const LIVES_AT_ONCE = 3;
/** Some 130 lives of several seconds each; a busy machine took more than ten minutes. */
const TIMEOUT_MS = 20 * 60_000;

/**
 * A call that only looks changes nothing, so a death after it is the same as one before it; and of looks that begin in the same tick one
 * stands for all, because nothing is written between them. Everything else is tried before and after.
 */
const LOOK = /^(engine|event|archive|network|image)\.|\.(list|inspect|logs|attach|audit)(:|#)/;
const BESIDE_ANOTHER = /^(volume\.list|network\.inspect|container\.inspect:guard|volume\.inspect)/;

function worthTrying(point: string): boolean {
  if (BESIDE_ANOTHER.test(point)) return false;
  return point.endsWith(":before") || !LOOK.test(point);
}

describeWith(["docker", "busybox"], "a controller on docker that is killed", () => {
  ensureBusyboxImage();

  it(
    "before and after each change, and before each look: the bottle lives the same life, each turn runs once, guarded, and nothing is left",
    { timeout: TIMEOUT_MS },
    async () => {
      await using engine = await followEngine();
      const counted = await live("Docker", "count");
      const points = counted.points.filter(worthTrying);
      expect(points.length).toBeGreaterThan(60);

      const lives = await forEach(points, async (point) => {
        const life = await live("Docker", point);
        expect(engine.agentStarts(life.owner)).toEqual({ "turn 1 attempt 1": 1, "turn 2 attempt 1": 1 });
        expect(engine.unguarded(life.owner)).toEqual([]);
        return life;
      });

      report("docker", counted.points, lives);
    },
  );
});

describeWith(["bubblewrap", "busybox"], "a controller on bubblewrap that is killed", () => {
  it(
    "before and after each change: the bottle lives the same life, each turn runs once, guarded, and nothing is left",
    { timeout: TIMEOUT_MS },
    async () => {
      const counted = await live("Bubblewrap", "count");
      const points = counted.points.filter(worthTrying);
      expect(points.length).toBeGreaterThan(40);

      const lives = await forEach(points, (point) => live("Bubblewrap", point));

      report("bubblewrap", counted.points, lives);
    },
  );
});

/** Says how much was tried. Looks come in varying numbers, so a few of the last points may not be reached in another life. */
function report(backend: string, counted: readonly string[], lives: readonly { deaths: number }[]): void {
  const killed = lives.filter(({ deaths }) => deaths > 0).length;
  process.stdout.write(`${backend}: ${counted.length} points, ${lives.length} tried, ${killed} times killed\n`);
  expect(killed).toBeGreaterThan(lives.length * 0.9);
}

async function forEach<T>(points: readonly string[], body: (point: string) => Promise<T>): Promise<T[]> {
  const left = points.entries();
  const results: T[] = [];
  const failures: string[] = [];
  const worker = async () => {
    for (const [, point] of left) {
      try {
        results.push(await body(point));
      } catch (error) {
        failures.push(`killed at ${point}: ${inspect(error)}`);
      }
    }
  };
  await Promise.all(Array.from({ length: LIVES_AT_ONCE }, worker));
  expect(failures.join("\n\n")).toBe("");
  return results;
}
