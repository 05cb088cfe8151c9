import * as fc from "fast-check";
import { unreachable } from "../../controller/api/errors.ts";
import { Model, type PassFault } from "./model.ts";

/** What happens to a bottle: a pass of the loop, an act of a person, or something that befalls its backend. */
export type Happening =
  | { type: "pass"; fault?: PassFault }
  | { type: "appendTurn" }
  | { type: "operatingMode"; mode: "Running" | "Frozen" }
  | { type: "afterTurn"; afterTurn: "Freeze" | "Keep" | "Delete" }
  | { type: "ttl"; seconds?: number }
  | { type: "image"; name: string }
  | { type: "egress"; host: string }
  | { type: "delete" }
  | { type: "references"; resolve: boolean }
  | { type: "agentEnds"; code?: number; oom: boolean }
  | { type: "dies"; role: "holder" | "guard" }
  | { type: "engineRestarts" }
  | { type: "unitVanishes"; index: number }
  | { type: "diskVanishes" }
  | { type: "backend"; seen: boolean }
  | { type: "probes"; sealed: boolean }
  | { type: "time"; seconds: number };

const fault: fc.Arbitrary<PassFault> = fc.record({
  index: fc.nat({ max: 3 }),
  when: fc.constantFrom("before", "after"),
  kind: fc.constantFrom("Transient", "Invalid", "Conflict", "Unavailable"),
});

// Passes outweigh everything else: without them a bottle never gets far enough for the rest to matter.
const happening: fc.Arbitrary<Happening> = fc.oneof(
  { weight: 40, arbitrary: fc.constant<Happening>({ type: "pass" }) },
  { weight: 8, arbitrary: fault.map((one): Happening => ({ type: "pass", fault: one })) },
  { weight: 4, arbitrary: fc.constant<Happening>({ type: "appendTurn" }) },
  {
    weight: 4,
    arbitrary: fc.constantFrom("Running", "Frozen").map((mode): Happening => ({ type: "operatingMode", mode })),
  },
  {
    weight: 2,
    arbitrary: fc
      .constantFrom("Freeze", "Keep", "Delete")
      .map((afterTurn): Happening => ({ type: "afterTurn", afterTurn })),
  },
  { weight: 1, arbitrary: fc.constantFrom(60, undefined).map((seconds): Happening => ({ type: "ttl", seconds })) },
  { weight: 2, arbitrary: fc.constantFrom("image-1", "image-2").map((name): Happening => ({ type: "image", name })) },
  {
    weight: 4,
    arbitrary: fc.constantFrom("one.example", "two.example").map((host): Happening => ({ type: "egress", host })),
  },
  { weight: 1, arbitrary: fc.constant<Happening>({ type: "delete" }) },
  { weight: 2, arbitrary: fc.boolean().map((resolve): Happening => ({ type: "references", resolve })) },
  {
    weight: 8,
    arbitrary: fc
      .record({ code: fc.constantFrom(0, 1, 137, undefined), oom: fc.boolean() })
      .map((exit): Happening => ({ type: "agentEnds", ...exit })),
  },
  { weight: 2, arbitrary: fc.constantFrom("holder", "guard").map((role): Happening => ({ type: "dies", role })) },
  { weight: 2, arbitrary: fc.constant<Happening>({ type: "engineRestarts" }) },
  { weight: 3, arbitrary: fc.nat({ max: 3 }).map((index): Happening => ({ type: "unitVanishes", index })) },
  { weight: 1, arbitrary: fc.constant<Happening>({ type: "diskVanishes" }) },
  { weight: 3, arbitrary: fc.boolean().map((seen): Happening => ({ type: "backend", seen })) },
  { weight: 2, arbitrary: fc.boolean().map((sealed): Happening => ({ type: "probes", sealed })) },
  { weight: 4, arbitrary: fc.constantFrom(1, 30, 61, 3601).map((seconds): Happening => ({ type: "time", seconds })) },
);

export const histories = fc.array(happening, { maxLength: 60, size: "max" });

export function freshModel(): Model {
  return new Model({ turns: [{ id: "1", prompt: "do 1" }] });
}

/** Lets one thing happen. */
export function happen(model: Model, what: Happening): void {
  switch (what.type) {
    case "pass":
      model.pass(what.fault);
      return;
    case "appendTurn":
      model.edit((spec) => {
        const turns = spec.turns ?? [];
        const id = String(turns.length + 1);
        return turns.length >= 4 ? spec : { ...spec, turns: [...turns, { id, prompt: `do ${id}` }] };
      });
      return;
    case "operatingMode":
      model.edit((spec) => ({ ...spec, operatingMode: what.mode }));
      return;
    case "afterTurn":
      model.edit((spec) => ({ ...spec, lifecycle: { ...lifecycleOf(spec), afterTurn: what.afterTurn } }));
      return;
    case "ttl":
      model.edit((spec) => ({ ...spec, lifecycle: { ...lifecycleOf(spec), ttlSecondsAfterFrozen: what.seconds } }));
      return;
    case "image":
      model.image = what.name;
      return;
    case "egress":
      model.host = what.host;
      return;
    case "delete":
      model.delete();
      return;
    case "references":
      model.resolves = what.resolve;
      return;
    default:
      befall(model, what);
  }
}

type Mishap = Extract<
  Happening,
  {
    type: "agentEnds" | "dies" | "engineRestarts" | "unitVanishes" | "diskVanishes" | "backend" | "probes" | "time";
  }
>;

function befall(model: Model, what: Mishap): void {
  switch (what.type) {
    case "agentEnds":
      for (const id of model.ids("agent")) model.end(id, what.code, what.oom);
      return;
    case "dies":
      for (const id of model.ids(what.role)) model.end(id, 137);
      return;
    case "engineRestarts":
      for (const unit of model.units) model.end(unit.id, 137);
      return;
    case "unitVanishes":
      model.units = model.units.filter((_unit, index) => index !== what.index);
      return;
    case "diskVanishes":
      if (model.units.length === 0) model.disk = [];
      return;
    case "backend":
      model.seen = what.seen;
      return;
    case "probes":
      model.sealed = what.sealed;
      return;
    case "time":
      model.now += what.seconds * 1000;
      return;
    default:
      unreachable(what);
  }
}

function lifecycleOf(spec: NonNullable<Model["bottle"]>["spec"]) {
  return spec.lifecycle ?? { afterTurn: "Freeze" as const, turnDeadlineSeconds: 3600 };
}
