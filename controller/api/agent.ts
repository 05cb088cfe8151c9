import { z } from "zod";
import type { Resource } from "./meta.ts";
import { atomicList, nameRef, privateText, withRules } from "./schema.ts";

/** One word of a command line. Linux ends one argument at 128 KiB; a page is ample for a program and its flags. */
const commandWord = privateText(4096);

const customProvider = z.strictObject({
  command: atomicList(commandWord, 64)
    .min(1)
    .describe(
      "The program and its arguments; the turn's prompt is appended as the last argument and is also in BOT_BOTTLE_PROMPT.",
    ),
});

const provider = withRules(
  z.strictObject({
    type: z.enum(["Custom"]).describe("Which program works in the bottle. Custom is any command."),
    custom: customProvider.optional().describe("The command of a Custom agent."),
  }),
  {
    rule: "self.type != 'Custom' || has(self.custom)",
    message: "custom is missing: write custom.command, the program to run, because type is Custom",
    reason: "FieldValueRequired",
    fieldPath: ".custom",
  },
);

/** Who works in a bottle. It holds no credentials: those belong to egress rules. */
export const agentSpec = z.strictObject({
  provider: provider.describe("The agent program."),
  templateRefs: atomicList(nameRef, 16).optional().describe("Templates merged in order below those of the bottle."),
});
export type AgentSpec = z.infer<typeof agentSpec>;

export type Agent = Resource<"Agent", AgentSpec, never>;
