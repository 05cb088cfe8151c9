import { describe, expect, it } from "vitest";
import { agentRun } from "../../controller/agents/agent-run.ts";
import type { AgentSpec } from "../../controller/api/agent.ts";

const AGENT: AgentSpec = { provider: { type: "Custom", custom: { command: ["sh", "-c", 'echo "$1"', "--"] } } };

describe("the run of a Custom agent", () => {
  it("is its command with the prompt as one more argument, whatever stands in it", () => {
    const prompt = 'say "hi"; $(reboot)\n--help';

    const run = agentRun({ agent: AGENT, turn: { id: "first", prompt }, attempt: 1 });

    expect(run.argv).toEqual(["sh", "-c", 'echo "$1"', "--", prompt]);
  });

  it("is named for turn and attempt, in the run and in its environment", () => {
    const run = agentRun({ agent: AGENT, turn: { id: "first", prompt: "work" }, attempt: 2 });

    expect(run).toMatchObject({ turn: "first", attempt: 2 });
    expect(run.env).toEqual({ BOT_BOTTLE_PROMPT: "work", BOT_BOTTLE_TURN: "first", BOT_BOTTLE_ATTEMPT: "2" });
  });

  it("gets the same prompt again when it goes on, because a command has no conversation to continue", () => {
    const turn = { id: "first", prompt: "work" };

    const [first, second] = [1, 2].map((attempt) => agentRun({ agent: AGENT, turn, attempt }));

    expect(second?.argv).toEqual(first?.argv);
  });
});
