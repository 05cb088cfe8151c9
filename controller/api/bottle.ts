import { z } from "zod";
import { agentSpec } from "./agent.ts";
import type { Condition } from "./conditions.ts";
import type { Resource } from "./meta.ts";
import { atomicList, boundedString, dnsLabel, mapList, nameRef, privateText, withRules, withWords } from "./schema.ts";
import { backendType, resourceLimits } from "./template.ts";

/** Characters of one prompt. As UTF-8 it stays below Linux's limit of 128 KiB for one argument or variable. */
export const PROMPT_LENGTH_MAX = 32_000;
/** Turns of one bottle. */
export const TURNS_MAX = 256;

/** The sixteen ANSI colour names, for labels in terminals. */
export const COLORS = [
  "black",
  "red",
  "green",
  "yellow",
  "blue",
  "magenta",
  "cyan",
  "white",
  "brightBlack",
  "brightRed",
  "brightGreen",
  "brightYellow",
  "brightBlue",
  "brightMagenta",
  "brightCyan",
  "brightWhite",
] as const;

const PROMPT_TOO_LONG = "put the text in a file in the workspace and name that file in the prompt";

const turn = z.strictObject({
  id: dnsLabel.describe("Names the turn; each id is delivered once."),
  prompt: withRules(withWords(privateText(PROMPT_LENGTH_MAX).min(1), { tooLong: PROMPT_TOO_LONG }), {
    rule: "self == oldSelf",
    message: "is part of a turn that was already declared: turns are append-only, so add a turn with a new id instead",
    reason: "FieldValueForbidden",
  }).describe("What the agent is asked to do."),
});

const turns = withRules(mapList(turn, ["id"], TURNS_MAX), {
  rule: "oldSelf.all(o, self.exists(t, t.id == o.id))",
  message: "a turn was removed: turns are append-only, so keep every declared turn and delete the bottle to start over",
  reason: "FieldValueForbidden",
});

const runtimeName = withWords(
  boundedString(64)
    .min(1)
    .regex(/^[A-Za-z0-9][A-Za-z0-9_.-]*$/),
  { form: "letters, digits, '_', '.' and '-', starting with a letter or digit" },
);

const backend = withRules(
  z.strictObject({
    type: backendType.describe("Where the bottle runs."),
    docker: z
      .strictObject({
        runtime: runtimeName.optional().describe("An OCI runtime that the engine knows, e.g. runsc."),
      })
      .optional()
      .describe("Settings of the Docker backend."),
  }),
  {
    rule: "!has(self.docker) || self.type == 'Docker'",
    message: "docker is not allowed when type is not Docker: remove it or write type: Docker",
    reason: "FieldValueForbidden",
    fieldPath: ".docker",
  },
);

const lifecycle = z.strictObject({
  afterTurn: z
    .enum(["Freeze", "Keep", "Delete"])
    .default("Freeze")
    .describe("When no turn is left: Freeze keeps the disk only, Keep leaves the guard up, Delete removes the bottle."),
  turnDeadlineSeconds: z
    .int()
    .min(1)
    .max(604_800)
    .default(3600)
    .describe("A turn that runs longer is ended as DeadlineExceeded."),
  ttlSecondsAfterFrozen: z
    .int()
    .min(0)
    .max(31_536_000)
    .optional()
    .describe("The bottle and its disk are deleted this long after it froze. Absent: never."),
});

/** No control, formatting or line-breaking characters: a label is printed in terminals, where they would forge output. */
const label = withWords(
  boundedString(63)
    .min(1)
    .regex(/^[^\p{Cc}\p{Cf}\p{Co}\p{Cs}\p{Zl}\p{Zp}]+$/u),
  { form: "one line of printable characters" },
);

/** The desired state of one bottle. */
export const bottleSpec = withRules(
  z.strictObject({
    agentRef: nameRef.optional().describe("The Agent that works here."),
    agent: agentSpec.optional().describe("The agent written inline instead of agentRef."),
    templateRefs: atomicList(nameRef, 16).optional().describe("Templates merged in order over those of the agent."),
    backend: backend
      .optional()
      .describe(
        "Where to run. Absent: --backend, BOT_BOTTLE_BACKEND, then auto-detection; pinned at the first launch.",
      ),
    operatingMode: z
      .enum(["Running", "Frozen"])
      .default("Running")
      .describe("Frozen keeps the disk only and runs no turn. Deleting the resource destroys the bottle."),
    turns: turns.optional().describe("Append-only; each id is delivered exactly once, in order."),
    workspace: z
      .strictObject({ type: z.enum(["Empty"]).default("Empty").describe("What /workspace holds at the first launch.") })
      .optional()
      .describe("The working directory of the agent."),
    lifecycle: lifecycle.optional().describe("What happens between and after turns."),
    resources: resourceLimits.optional().describe("Limits that override those of the templates."),
    label: label.optional().describe("A short name for people."),
    color: z.enum(COLORS).optional().describe("The label's colour in terminals."),
  }),
  {
    rule: "has(self.agent) != has(self.agentRef)",
    message: "agent and agentRef: write exactly one of them",
    reason: "FieldValueInvalid",
  },
  {
    rule: "has(self.agentRef) == has(oldSelf.agentRef) && (!has(self.agentRef) || self.agentRef == oldSelf.agentRef)",
    message: "agentRef is immutable: create another bottle for another agent",
    reason: "FieldValueForbidden",
    fieldPath: ".agentRef",
  },
  {
    rule: "has(self.agent) == has(oldSelf.agent) && (!has(self.agent) || self.agent == oldSelf.agent)",
    message: "agent is immutable: create another bottle for another agent",
    reason: "FieldValueForbidden",
    fieldPath: ".agent",
  },
  {
    rule: "has(self.templateRefs) == has(oldSelf.templateRefs) && (!has(self.templateRefs) || self.templateRefs == oldSelf.templateRefs)",
    message: "templateRefs is immutable: create another bottle for other templates",
    reason: "FieldValueForbidden",
    fieldPath: ".templateRefs",
  },
  {
    rule: "has(self.backend) == has(oldSelf.backend) && (!has(self.backend) || self.backend == oldSelf.backend)",
    message: "backend is immutable: export the bottle and import it on another backend",
    reason: "FieldValueForbidden",
    fieldPath: ".backend",
  },
  {
    rule: "!has(oldSelf.turns) || has(self.turns)",
    message:
      "turns were removed: turns are append-only, so keep every declared turn and delete the bottle to start over",
    reason: "FieldValueForbidden",
    fieldPath: ".turns",
  },
);
export type BottleSpec = z.infer<typeof bottleSpec>;
export type Turn = z.infer<typeof turn>;

/** How a turn ended. Interrupted is not final: the same id runs on when the bottle may run again. */
export const TURN_OUTCOMES = ["Done", "Failed", "Interrupted", "DeadlineExceeded", "OOMKilled"] as const;
export type TurnOutcome = (typeof TURN_OUTCOMES)[number];

const turnStatus = z.strictObject({
  id: z.string().max(63),
  state: z.enum(["Pending", "Running", "Ended"]),
  outcome: z.enum(TURN_OUTCOMES).optional(),
  exitCode: z.int().optional(),
  attempts: z.int().min(0),
  startTime: z.iso.datetime().optional(),
  completionTime: z.iso.datetime().optional(),
});
export type TurnStatus = z.infer<typeof turnStatus>;

const condition = z.strictObject({
  type: z.string().max(64),
  status: z.enum(["True", "False", "Unknown"]),
  reason: z.string().max(256),
  message: z.string().max(4096),
  observedGeneration: z.int().min(0),
  lastTransitionTime: z.iso.datetime(),
});

/** What the controller saw, written by it alone. */
export const bottleStatus = z.strictObject({
  observedGeneration: z.int().min(0).optional(),
  conditions: mapList(condition, ["type"], 32).optional(),
  bottleID: z.string().max(64).optional(),
  backend: z.strictObject({ type: z.string().max(32) }).optional(),
  resolved: z
    .strictObject({
      templateDigest: z.string().max(128).optional(),
      policyDigest: z.string().max(128).optional(),
      image: z.string().max(512).optional(),
    })
    .optional(),
  guard: mapList(z.strictObject({ name: z.string().max(63), ready: z.boolean() }), ["name"], 8).optional(),
  turns: mapList(turnStatus, ["id"], TURNS_MAX).optional(),
  lastTurn: z
    .strictObject({ id: z.string().max(63), outcome: z.string().max(32), exitCode: z.int().optional() })
    .optional(),
  disk: z
    .strictObject({ kind: z.string().max(32), id: z.string().max(256), frozenTime: z.iso.datetime().optional() })
    .optional(),
  egress: z
    .strictObject({
      allowed: z.int().min(0),
      denied: z.int().min(0),
      dlpBlocked: z.int().min(0),
      lastDenied: z
        .strictObject({
          time: z.iso.datetime(),
          host: z.string().max(253),
          port: z.int().min(0).max(65_535).optional(),
          rule: z.string().max(63),
        })
        .optional(),
    })
    .optional(),
});
/** As `bottleStatus`, with condition types narrowed to those of this project. */
export type BottleStatus = Omit<z.infer<typeof bottleStatus>, "conditions"> & { conditions?: Condition[] };

export type Bottle = Resource<"Bottle", BottleSpec, BottleStatus>;
