import { describe, expect, it } from "vitest";
import { ORPHAN_GRACE_MS } from "../../controller/plan/limits.ts";
import { orphansOf } from "../../controller/plan/orphans.ts";
import type { BottleView, DiskPart, Observation, Unit } from "../../controller/ports/backend.ts";

const NOW = 1_800_000_000_000;
const OLD = NOW - ORPHAN_GRACE_MS;

function unit(createdMs: number): Unit {
  return { id: "holder-1", role: "holder", state: "running", specHash: "spec-1", createdMs };
}

function part(createdMs: number): DiskPart {
  return { id: "home-1", part: "home", kind: "Volume", createdMs };
}

function bottle(uid: string, units: Unit[], disk: DiskPart[] = []): BottleView {
  return { uid, namespace: "default", name: `bottle-${uid}`, units, disk };
}

function seen(...bottles: BottleView[]): Observation {
  return { atMs: NOW, bottles: new Map(bottles.map((view) => [view.uid, view])) };
}

describe("orphansOf", () => {
  it("a bottle that nobody declares and that is old enough is an orphan", () => {
    const view = bottle("a", [unit(OLD)]);

    expect(orphansOf(seen(view), new Set(), { now: NOW })).toEqual([{ view, createdMs: OLD }]);
  });

  it("what is declared is never an orphan, however old", () => {
    const look = seen(bottle("a", [unit(0)]), bottle("b", [unit(0)]));

    expect(orphansOf(look, new Set(["a"]), { now: NOW }).map(({ view }) => view.uid)).toEqual(["b"]);
  });

  it("a bottle is as young as its youngest part, because a launch or an import may be under way", () => {
    const youngUnit = bottle("a", [unit(0), unit(OLD + 1)], [part(0)]);
    const youngDisk = bottle("b", [unit(0)], [part(0), part(OLD + 1)]);

    expect(orphansOf(seen(youngUnit, youngDisk), new Set(), { now: NOW })).toEqual([]);
  });

  it("a disk without units is an orphan too", () => {
    const view = bottle("a", [], [part(OLD)]);

    expect(orphansOf(seen(view), new Set(), { now: NOW })).toEqual([{ view, createdMs: OLD }]);
  });

  it("the grace period can be shortened", () => {
    const look = seen(bottle("a", [unit(NOW - 5)]));

    expect(orphansOf(look, new Set(), { now: NOW, graceMs: 6 })).toEqual([]);
    expect(orphansOf(look, new Set(), { now: NOW, graceMs: 5 })).toHaveLength(1);
  });
});
