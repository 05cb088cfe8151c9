import { GROUP } from "../../controller/api/meta.ts";
import type { BottleIdentity, DiskPart, Role } from "../../controller/ports/backend.ts";
import type { TurnKey } from "../../controller/ports/journal.ts";

const LABEL = {
  managedBy: `${GROUP}/managed-by`,
  owner: `${GROUP}/owner`,
  uid: `${GROUP}/uid`,
  namespace: `${GROUP}/namespace`,
  name: `${GROUP}/name`,
  generation: `${GROUP}/generation`,
  role: `${GROUP}/role`,
  specHash: `${GROUP}/spec-hash`,
  turn: `${GROUP}/turn`,
  attempt: `${GROUP}/attempt`,
  created: `${GROUP}/created`,
} as const;

export type Labels = Record<string, string>;
export type Part = DiskPart["part"];

export const MANAGED_LABELS: Labels = { [LABEL.managedBy]: "bot-bottle" };

/** Labels of everything that belongs to one bottle. Nothing secret and no prompt: whoever may list containers reads them. */
export function bottleLabels(owner: string, identity: BottleIdentity, role: Role | Part, createdMs: number): Labels {
  return {
    ...MANAGED_LABELS,
    [LABEL.owner]: owner,
    [LABEL.uid]: identity.uid,
    [LABEL.namespace]: identity.namespace,
    [LABEL.name]: identity.name,
    [LABEL.role]: role,
    [LABEL.created]: String(createdMs),
  };
}

export function specLabels(spec: { generation: number; specHash: string }): Labels {
  return { [LABEL.generation]: String(spec.generation), [LABEL.specHash]: spec.specHash };
}

export function turnLabels(key: TurnKey): Labels {
  return { [LABEL.turn]: key.turn, [LABEL.attempt]: String(key.attempt) };
}

/** What our labels say of an object. */
export interface LabelFacts extends BottleIdentity {
  owner: string;
  role: string;
  specHash: string;
  turn?: TurnKey;
  createdMs: number;
}

/** `undefined` if the object has no label of ours that names its bottle. */
export function readLabels(labels: Labels | null | undefined): LabelFacts | undefined {
  const owner = labels?.[LABEL.owner];
  const uid = labels?.[LABEL.uid];
  if (labels === null || labels === undefined || owner === undefined || uid === undefined) return undefined;
  const turn = labels[LABEL.turn];
  const attempt = Number(labels[LABEL.attempt]);
  return {
    owner,
    uid,
    namespace: labels[LABEL.namespace] ?? "",
    name: labels[LABEL.name] ?? "",
    role: labels[LABEL.role] ?? "",
    specHash: labels[LABEL.specHash] ?? "",
    createdMs: Number(labels[LABEL.created] ?? 0),
    ...(turn === undefined ? {} : { turn: { turn, attempt } }),
  };
}

export function ownerFilter(owner: string): string {
  return `${LABEL.owner}=${owner}`;
}

export function uidFilter(uid: string): string {
  return `${LABEL.uid}=${uid}`;
}

/** Names derive from the uid alone, so that a retry collides with what a crashed try left. */
export function unitName(uid: string, role: "holder" | "guard"): string {
  return `bb-${uid}-${role}`;
}

export function agentName(uid: string, key: TurnKey): string {
  return `bb-${uid}-agent-${key.turn}-${key.attempt}`;
}

export function seedName(uid: string): string {
  return `bb-${uid}-seed`;
}

/** Sessions are many at a time and never retried by name, so they carry a random part. */
export function sessionName(uid: string, suffix: string): string {
  return `bb-${uid}-session-${suffix}`;
}

export function volumeName(uid: string, part: Part): string {
  return `bb-${uid}-${part}`;
}
