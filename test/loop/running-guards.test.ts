import { expect, it } from "vitest";
import { createRunningGuards } from "../../controller/loop/running-guards.ts";
import type { Observation, Role, Unit } from "../../controller/ports/backend.ts";
import { recordingBackend } from "./tools.ts";

const docker = { ...recordingBackend().backend, name: "docker" };
const bubblewrap = { ...recordingBackend().backend, name: "bubblewrap" };

function unit(id: string, role: Role, state: Unit["state"]): Unit {
  return { id, role, state, specHash: "s", createdMs: 0 };
}

function look(units: Record<string, Unit[]>): Observation {
  const views = Object.entries(units).map(
    ([uid, its]) => [uid, { uid, namespace: "default", name: uid, units: its, disk: [] }] as const,
  );
  return { atMs: 0, bottles: new Map(views) };
}

it("only a guard that runs is followed, because no other one answers", () => {
  const guards = createRunningGuards(() => true);

  const seen = guards.seen(
    docker,
    look({
      a: [unit("h", "holder", "running"), unit("g", "guard", "running"), unit("x", "agent", "running")],
      b: [unit("made", "guard", "created")],
      c: [unit("dead", "guard", "exited")],
    }),
  );

  expect(seen).toEqual([{ uid: "a", guardId: "g", backend: docker }]);
});

it("a look at one backend says nothing of the guards on another", () => {
  const guards = createRunningGuards(() => true);
  guards.seen(docker, look({ a: [unit("g", "guard", "running")] }));

  const both = guards.seen(bubblewrap, look({ b: [unit("g", "guard", "running")] }));
  const gone = guards.seen(docker, look({}));

  expect(both.map(({ uid, backend }) => [uid, backend.name])).toEqual([
    ["a", "docker"],
    ["b", "bubblewrap"],
  ]);
  expect(gone.map(({ uid }) => uid)).toEqual(["b"]);
});

it("a bottle that nobody declares is not followed: its audit would be kept for ever", () => {
  const guards = createRunningGuards((uid) => uid !== "orphan");

  const seen = guards.seen(
    docker,
    look({ a: [unit("g", "guard", "running")], orphan: [unit("o", "guard", "running")] }),
  );

  expect(seen.map(({ uid }) => uid)).toEqual(["a"]);
});
