import type { AgentSpec } from "../api/agent.ts";
import type { Turn } from "../api/bottle.ts";
import { unreachable } from "../api/errors.ts";
import type { AgentRun } from "../ports/backend.ts";
import { customRun } from "./custom.ts";

/** What a provider turns into one run of its program. */
export interface RunRequest {
  agent: AgentSpec;
  turn: Turn;
  /** From 1. Above 1 the turn was interrupted and goes on. */
  attempt: number;
}

/** The exact command and environment of one attempt at a turn. Adding a provider is one file and one line here. */
export function agentRun(request: RunRequest): AgentRun {
  const { provider } = request.agent;
  const spoken = { turn: request.turn.id, attempt: request.attempt };
  switch (provider.type) {
    case "Custom":
      return { ...spoken, ...customRun(request) };
    default:
      return unreachable(provider.type);
  }
}
