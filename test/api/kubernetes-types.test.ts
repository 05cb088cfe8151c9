import type { CoreV1Event, V1Condition, V1ObjectMeta } from "@kubernetes/client-node";
import { expectTypeOf, it } from "vitest";
import type { Condition } from "../../controller/api/conditions.ts";
import type { EventResource } from "../../controller/api/event.ts";
import type { ObjectMeta } from "../../controller/api/meta.ts";

/** The client's types hold a Date where JSON has text. */
type Timed<T> = {
  [K in keyof T]: T[K] extends Date | undefined ? string | undefined : T[K] extends Date ? string : T[K];
};

it("metadata, conditions and events have the fields and types of Kubernetes' own", () => {
  expectTypeOf<keyof ObjectMeta>().toExtend<keyof V1ObjectMeta>();
  expectTypeOf<Condition>().toExtend<Timed<V1Condition>>();
  expectTypeOf<keyof EventResource>().toExtend<keyof CoreV1Event>();
  expectTypeOf<EventResource["involvedObject"]>().toExtend<CoreV1Event["involvedObject"]>();
});
