import type { AgentRun } from "../ports/backend.ts";
import type { RunRequest } from "./agent-run.ts";

/**
 * Any command: the prompt is its last argument and BOT_BOTTLE_PROMPT. A command has no conversation that could be continued, so an
 * interrupted turn gets the same prompt again, with BOT_BOTTLE_ATTEMPT to tell; what it wrote before is still on the disk.
 */
export function customRun(request: RunRequest): Pick<AgentRun, "argv" | "env"> {
  const command = request.agent.provider.custom?.command ?? [];
  return {
    argv: [...command, request.turn.prompt],
    env: {
      BOT_BOTTLE_PROMPT: request.turn.prompt,
      BOT_BOTTLE_TURN: request.turn.id,
      BOT_BOTTLE_ATTEMPT: String(request.attempt),
    },
  };
}
