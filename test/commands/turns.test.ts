import { describe, expect, it } from "vitest";
import { runAttach } from "../../controller/commands/attach.ts";
import { EXIT } from "../../controller/commands/exit.ts";
import { runFreeze } from "../../controller/commands/freeze.ts";
import { runLogs } from "../../controller/commands/logs.ts";
import { runResume } from "../../controller/commands/resume.ts";
import { nextTurnId, runTurn } from "../../controller/commands/turn.ts";
import { cliRig, isFrozen, refusal, runs } from "./rig.ts";

function turn(id: string): { id: string; prompt: string } {
  return { id, prompt: "x" };
}

describe("turn", () => {
  it("appends a turn with the next free number and says that no controller runs", async () => {
    await using rig = cliRig();
    await rig.create();

    expect(await runTurn(rig.context, "b", { prompt: "more" })).toBe(EXIT.ok);

    expect((await rig.bottle()).spec.turns).toEqual([
      { id: "1", prompt: "hello" },
      { id: "2", prompt: "more" },
    ]);
    expect(rig.out()).toBe("bottle/b turn 2 added\n");
    expect(rig.err()).toContain("no controller is running");
  });

  it("numbers never collide with ids that people chose", () => {
    expect(nextTurnId([])).toBe("1");
    expect(nextTurnId([turn("1"), turn("7")])).toBe("8");
    expect(nextTurnId([turn("a"), turn("b")])).toBe("3");
    expect(nextTurnId([turn("2")])).toBe("3");
  });

  it("is tried again if somebody else changed the bottle meanwhile", async () => {
    await using rig = cliRig();
    await rig.create();

    await Promise.all([
      runTurn(rig.context, "b", { prompt: "x" }),
      runTurn(rig.context, "b", { prompt: "y" }),
      runTurn(rig.context, "b", { prompt: "z" }),
    ]);

    expect((await rig.bottle()).spec.turns?.map(({ id }) => id)).toEqual(["1", "2", "3", "4"]);
  });

  it("with --wait shows the agent's output and exits with its code", async () => {
    await using rig = cliRig({
      serve: true,
      program: (run) => ({ output: `turn ${run.turn}\n`, code: run.turn === "2" ? 7 : 0 }),
    });
    await rig.create();
    await rig.until(isFrozen);

    expect(await runTurn(rig.context, "b", { prompt: "fail", wait: true, timeout: 20_000 })).toBe(7);

    expect(rig.out()).toBe("bottle/b turn 2 added\nturn 2\n");
    expect(rig.err()).toContain("turn 2: Failed (exit code 7)");
  });

  it("with --wait shows output while the turn runs, and a timeout leaves the turn running", async () => {
    await using rig = cliRig({ serve: true, program: () => ({ output: "working\n" }) });
    await rig.create({ turns: [] });

    const ended = await refusal(runTurn(rig.context, "b", { prompt: "go", wait: true, timeout: 1500 }));

    expect(ended.exitCode).toBe(EXIT.timedOut);
    expect(rig.out()).toContain("working\n");
    expect(runs(await rig.bottle())).toBe(true);
  });

  it("takes its prompt from a file or stdin, and refuses none, two and one that is taken", async () => {
    await using rig = cliRig();
    await rig.create();
    rig.stdin("from stdin");

    await runTurn(rig.context, "b", { promptFile: "-" });
    await runTurn(rig.context, "b", { promptFile: rig.file("p.txt", "from file"), id: "named" });

    expect((await rig.bottle()).spec.turns?.slice(1)).toEqual([
      { id: "2", prompt: "from stdin" },
      { id: "named", prompt: "from file" },
    ]);
    expect((await refusal(runTurn(rig.context, "b", {}))).exitCode).toBe(EXIT.usage);
    expect((await refusal(runTurn(rig.context, "b", { prompt: "a", promptFile: "b" }))).exitCode).toBe(EXIT.usage);
    expect((await refusal(runTurn(rig.context, "b", { prompt: "a", id: "named" }))).exitCode).toBe(EXIT.refused);
    expect((await refusal(runTurn(rig.context, "none", { prompt: "a" }))).exitCode).toBe(EXIT.notFound);
  });
});

describe("freeze and resume", () => {
  it("freeze --wait ends when only the disk is left; the interrupted turn goes on after resume", async () => {
    const attempts: string[] = [];
    await using rig = cliRig({
      serve: true,
      program: (run) => {
        attempts.push(`${run.turn}/${run.attempt}`);
        return run.attempt === 1 ? { output: "first\n" } : { output: "second\n", code: 0 };
      },
    });
    await rig.create();
    await rig.until(runs);

    expect(await runFreeze(rig.context, "b", { wait: true, timeout: 20_000 })).toBe(EXIT.ok);
    expect(isFrozen(await rig.bottle())).toBe(true);

    await runResume(rig.context, "b", {});
    await rig.until((bottle) => bottle.status?.turns?.[0]?.outcome === "Done");
    expect(attempts).toEqual(["1/1", "1/2"]);
  });

  it("resume --prompt --wait runs one more turn of a frozen bottle and exits with its code", async () => {
    await using rig = cliRig({
      serve: true,
      program: (run) => ({ output: `${run.turn}!\n`, code: Number(run.turn) - 1 }),
    });
    await rig.create({ operatingMode: "Frozen", turns: [] });

    expect(await runResume(rig.context, "b", { prompt: "x", wait: true, timeout: 20_000 })).toBe(0);
    rig.clear();
    expect(await runResume(rig.context, "b", { prompt: "y", wait: true, timeout: 20_000 })).toBe(1);

    expect(rig.out()).toContain("2!\n");
    expect((await rig.bottle()).spec.operatingMode).toBe("Running");
  });

  it("turn --wait on a bottle that stays frozen is refused instead of waiting for nothing", async () => {
    await using rig = cliRig();
    await rig.create({ operatingMode: "Frozen" });

    const refused = await refusal(runTurn(rig.context, "b", { prompt: "x", wait: true }));

    expect(refused.exitCode).toBe(EXIT.refused);
    expect(refused.message).toContain("resume");
  });
});

describe("attach", () => {
  it("shows the running turn from its beginning and exits with its code", async () => {
    await using rig = cliRig({ serve: true, program: () => ({ output: "so far\n" }) });
    const { metadata } = await rig.create();
    await rig.until(runs);

    const attached = runAttach(rig.context, "b", { timeout: 20_000 });
    rig.world.exitAgent(metadata.uid, { output: "the end\n", code: 3 });

    expect(await attached).toBe(3);
    expect(rig.out()).toBe("so far\nthe end\n");
  });

  it("is ended by Ctrl-C and leaves the turn running", async () => {
    await using rig = cliRig({ serve: true, program: () => ({ output: "so far\n" }) });
    await rig.create();
    await rig.until(runs);

    const attached = refusal(runAttach(rig.context, "b", { timeout: 20_000 }));
    rig.interrupt();

    expect((await attached).exitCode).toBe(EXIT.interrupted);
    expect(rig.err()).toContain("detached");
    expect(runs(await rig.bottle())).toBe(true);
  });

  it("of a turn that is interrupted by a freeze exits with 75", async () => {
    await using rig = cliRig({ serve: true });
    await rig.create();
    await rig.until(runs);

    const attached = runAttach(rig.context, "b", { timeout: 20_000 });
    await runFreeze(rig.context, "b", {});

    expect(await attached).toBe(EXIT.turnInterrupted);
  });

  it("says what to do if nothing runs", async () => {
    await using rig = cliRig();
    await rig.create({ turns: [] });

    expect((await refusal(runAttach(rig.context, "b", {}))).message).toContain("bot-bottle logs b");
  });
});

describe("logs", () => {
  it("shows the newest run, one by turn and attempt, or all", async () => {
    await using rig = cliRig({ serve: true, program: (run) => ({ output: `out ${run.turn}\n`, code: 0 }) });
    await rig.create({
      turns: [
        { id: "1", prompt: "a" },
        { id: "2", prompt: "b" },
      ],
    });
    await rig.until(isFrozen);

    await runLogs(rig.context, "b", {});
    expect(rig.out()).toBe("out 2\n");
    rig.clear();
    await runLogs(rig.context, "b", { turn: "1", attempt: 1 });
    expect(rig.out()).toBe("out 1\n");
    rig.clear();
    await runLogs(rig.context, "b", { all: true });
    expect(rig.out()).toBe("out 1\nout 2\n");
    expect(rig.err()).toBe("==> turn 1, attempt 1 <==\n==> turn 2, attempt 1 <==\n");
    expect((await refusal(runLogs(rig.context, "b", { turn: "3" }))).exitCode).toBe(EXIT.notFound);
  });

  it("with -f waits for a turn that is about to start and follows it to its end", async () => {
    await using rig = cliRig({ serve: true, program: () => ({ output: "one\n" }) });
    const { metadata } = await rig.create();

    const followed = runLogs(rig.context, "b", { follow: true, timeout: 20_000 });
    await rig.until(runs);
    rig.world.exitAgent(metadata.uid, { output: "two\n", code: 0 });

    expect(await followed).toBe(EXIT.ok);
    expect(rig.out()).toBe("one\ntwo\n");
  });

  it("without -f shows what a running turn wrote so far", async () => {
    await using rig = cliRig({ serve: true, program: () => ({ output: "so far\n" }) });
    await rig.create();
    await rig.until(runs);

    expect(await runLogs(rig.context, "b", {})).toBe(EXIT.ok);

    expect(rig.out()).toBe("so far\n");
  });
});
