import { execFile } from "node:child_process";
import { join } from "node:path";
import { promisify } from "node:util";
import { expect, it } from "vitest";
import { BUILD_DIR } from "../helpers/build.ts";
import { ensureBusyboxImage } from "../helpers/busybox-image.ts";
import { describeWith } from "../helpers/needs.ts";
import { BACKENDS, bottleYaml, restsAfter, runsTurn, untilFile } from "./bottles.ts";
import { createInstallation, DEADLINE_MS, type Installation } from "./installation.ts";

const execute = promisify(execFile);

describeWith(["tmux", "docker", "busybox", "bubblewrap"], "in a terminal", () => {
  ensureBusyboxImage();

  it.each(BACKENDS)("exec -it is a terminal with the right size and Ctrl-C for what runs in it: %s", async (type) => {
    await using here = createInstallation();
    await startWorking(here, type);
    await using terminal = await openTerminal(here);

    await terminal.type("bb exec b -it -- sh; echo code-$?");
    // A terminal that is not there yet echoes what is typed, but computes nothing.
    await terminal.type("echo is-up-$((40 + 2))");
    await terminal.shows(/\bis-up-42\b/);
    await terminal.type("stty size");
    await terminal.shows(/\b24 80\b/);

    await terminal.resize({ columns: 100, rows: 30 });
    await terminal.typeUntil("stty size", /\b30 100\b/);

    await terminal.type("echo start-$((1 + 1)); sleep 1000");
    await terminal.shows(/\bstart-2\b/);
    await terminal.press("C-c");
    await terminal.type("echo still-$((3 + 4))");
    await terminal.shows(/\bstill-7\b/);
    await terminal.type("exit 5");
    await terminal.shows(/\bcode-5\b/);

    expect((await here.bottle("b"))?.status?.turns).toMatchObject([{ id: "1", state: "Running", attempts: 1 }]);
  });

  it.each(BACKENDS)("attach shows the running turn, and Ctrl-C leaves it running: %s", async (type) => {
    await using here = createInstallation();
    await startWorking(here, type);
    await using terminal = await openTerminal(here);

    await terminal.type("bb attach b; echo code-$?");
    await terminal.shows(/^working$/m);
    await terminal.press("C-c");
    await terminal.shows(/^code-130$/m);
    expect(await terminal.screen()).toContain("detached: turn 1 goes on");

    here.write("go", "");
    expect((await here.cli(["cp", join(here.bottles, "go"), "b:/workspace/go"])).code).toBe(0);
    const ended = await here.until("b", "frozen after turn 1", restsAfter("1"));
    expect(ended.status?.turns).toMatchObject([{ id: "1", outcome: "Done", attempts: 1 }]);
  });
});

/** A bottle whose agent works until a file appears. */
async function startWorking(here: Installation, type: (typeof BACKENDS)[number]): Promise<void> {
  await here.serve();
  await here.cli(["apply", "-f", "-"], {
    stdin: bottleYaml("b", [`echo working; ${untilFile("go")}`], { backend: { type } }),
  });
  await here.until("b", "running turn 1", runsTurn("1"));
}

interface Terminal {
  /** A line and Enter. */
  type(line: string): Promise<void>;
  press(key: string): Promise<void>;
  resize(size: { columns: number; rows: number }): Promise<void>;
  screen(): Promise<string>;
  /** Waits until the screen matches. */
  shows(pattern: RegExp): Promise<void>;
  /** Types the line again until the screen matches: a resize arrives when it arrives. */
  typeUntil(line: string, pattern: RegExp): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

async function openTerminal(here: Installation): Promise<Terminal> {
  const socket = join(here.dir, "tmux.sock");
  const env = { ...process.env, BOT_BOTTLE_STATE_DIR: here.stateDir, ENV: "", TMUX: "" };
  const tmux = async (...args: string[]) =>
    (await execute("tmux", ["-S", socket, "-f", "/dev/null", ...args], { env })).stdout;
  await tmux("new-session", "-d", "-x", "80", "-y", "24", "sh");
  // The status line takes a row.
  await tmux("set-option", "-g", "status", "off");
  await tmux("resize-window", "-x", "80", "-y", "24");
  const type = async (line: string) => {
    await tmux("send-keys", "-l", line);
    await tmux("send-keys", "Enter");
  };
  const screen = () => tmux("capture-pane", "-p", "-S", "-");
  const shows = (pattern: RegExp) => expect.poll(screen, { timeout: DEADLINE_MS }).toMatch(pattern);
  await type(`bb() { '${process.execPath}' '${join(BUILD_DIR, "controller/main.js")}' "$@"; }`);
  return {
    type,
    screen,
    shows,
    press: async (key) => void (await tmux("send-keys", key)),
    resize: async ({ columns, rows }) => void (await tmux("resize-window", "-x", String(columns), "-y", String(rows))),
    async typeUntil(line, pattern) {
      await expect
        .poll(
          async () => {
            await type(line);
            return screen();
          },
          { timeout: DEADLINE_MS, interval: 500 },
        )
        .toMatch(pattern);
    },
    async [Symbol.asyncDispose]() {
      await tmux("kill-server").catch(() => undefined);
    },
  };
}
