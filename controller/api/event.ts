import type { ObjectMeta } from "./meta.ts";

/** A core/v1 Event as far as it is used: something that happened, counted when it happens again. */
export interface EventResource {
  apiVersion: "v1";
  kind: "Event";
  metadata: ObjectMeta;
  involvedObject: { apiVersion: string; kind: string; namespace: string; name: string; uid?: string };
  type: "Normal" | "Warning";
  reason: string;
  message: string;
  count: number;
  firstTimestamp: string;
  lastTimestamp: string;
  source: { component: string };
}
