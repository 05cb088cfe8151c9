import { beforeAll, expect, it } from "vitest";
import { ensureToolsImage, TOOLS_IMAGE } from "../helpers/tools-image.ts";
import { describeWith } from "../helpers/needs.ts";
import { docker, DockerBed } from "./docker-bed.ts";

/** Asks the kernel by number, as no library would let one. Prints `name=errno`, 0 for what was answered. */
const ASK = `
import ctypes, errno, os, platform
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
arm = platform.machine() == "aarch64"
def ask(name, x64, arm64, *args):
    ctypes.set_errno(0)
    found = libc.syscall(ctypes.c_long(arm64 if arm else x64), *[ctypes.c_long(arg) for arg in args])
    print(f"{name}={errno.errorcode.get(ctypes.get_errno(), 0) if found < 0 else 0}")
HIGH = 1 << 32
ask("io_uring_setup", 425, 425, 1, 0)
ask("io_uring_enter", 426, 426, 0, 0, 0, 0, 0, 0)
ask("io_uring_register", 427, 427, 0, 0, 0, 0)
ask("clone3", 435, 435, 0, 0)
for family, name in ((40, "vsock"), (17, "packet"), (38, "alg"), (30, "tipc"), (31, "bluetooth"), (15, "key"), (44, "xdp")):
    ask(name, 41, 198, family, 1, 0)
    ask(name + " with a high bit", 41, 198, HIGH | family, 1, 0)
ask("tipc pair", 53, 199, 30, 1, 0, 0)
for name, flag in (("user", 0x10000000), ("mount", 0x20000), ("net", 0x40000000), ("pid", 0x20000000), ("time", 0x80)):
    ask("unshare " + name, 272, 97, flag)
    ask("unshare " + name + " with a high bit", 272, 97, HIGH | flag)
ask("clone of a user namespace", 56, 220, 0x10000000 | 17, 0, 0, 0, 0)
ask("setns", 308, 268, 0, 0)
ask("mount", 165, 40, 0, 0, 0, 0, 0)
ask("fsopen", 430, 430, 0, 0)
ask("open_tree", 428, 428, 0, 0, 0)
ask("keyctl", 250, 219, 0, -3, 1)
ask("add_key", 248, 217, 0, 0, 0, 0, 0)
ask("bpf", 321, 280, 0, 0, 0)
ask("perf_event_open", 298, 241, 0, 0, -1, -1, 0)
ask("userfaultfd", 323, 282, 1)
ask("process_vm_readv", 310, 270, os.getpid(), 0, 0, 0, 0, 0)
ask("open_by_handle_at", 304, 265, 0, 0, 0)
ask("personality", 135, 92, 0x0400000)
for name, request in (("TIOCSTI", 0x5412), ("TIOCLINUX", 0x541c)):
    ask(name, 16, 29, 1, request, 0)
    ask(name + " with a high bit", 16, 29, 1, HIGH | request, 0)
`;

/** What honest programs do, one word a line. */
const PYTHON = `
import asyncio, concurrent.futures, fcntl, mmap, multiprocessing, os, pty, select, signal, socket, struct, subprocess, tempfile, termios, threading
thread = threading.Thread(target=lambda: print("thread"))
thread.start(); thread.join()
print(subprocess.run(["echo", "subprocess"], capture_output=True, text=True).stdout.strip())
async def main():
    child = await asyncio.create_subprocess_exec("echo", "asyncio", stdout=asyncio.subprocess.PIPE)
    print((await child.communicate())[0].decode().strip())
    server = await asyncio.start_server(lambda reader, writer: (writer.write(b"tcp"), writer.close()), "127.0.0.1", 0)
    reader, _ = await asyncio.open_connection(*server.sockets[0].getsockname())
    print((await reader.read()).decode())
asyncio.run(main())
with concurrent.futures.ProcessPoolExecutor(1) as pool:
    print(pool.submit(str, "processes").result())
one, two = socket.socketpair(); one.send(b"pair"); print(two.recv(9).decode())
print("netlink" if socket.if_nameindex() else "none")
child, terminal = pty.fork()
if child == 0: os.execvp("tty", ["tty"])
print("terminal" if os.read(terminal, 99).startswith(b"/dev/pts") else "none"); os.waitpid(child, 0)
outer, inner = pty.openpty()
fcntl.ioctl(outer, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 91, 0, 0))
print(struct.unpack("HHHH", fcntl.ioctl(inner, termios.TIOCGWINSZ, b"\\0" * 8))[:2])
memory = mmap.mmap(-1, 4096); memory.write(b"x"); print("mmap")
with tempfile.TemporaryDirectory() as dir:
    open(dir + "/a", "w").write("x"); os.link(dir + "/a", dir + "/b")
    fcntl.flock(open(dir + "/a"), fcntl.LOCK_EX); os.mkfifo(dir + "/p"); os.sync(); print("files")
os.sched_setaffinity(0, os.sched_getaffinity(0)); os.nice(1); print("scheduling")
`;

const NODE = `
import { execFileSync, fork } from "node:child_process";
import { watch, writeFileSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { createServer, get } from "node:http";
import { Worker } from "node:worker_threads";
const say = (word) => console.log(word);
say(execFileSync("echo", ["child"]).toString().trim());
await new Promise((resolve) => new Worker("1", { eval: true }).on("exit", resolve)).then(() => say("worker"));
await readFile("/etc/passwd").then(() => say("pool"));
const server = createServer((_, response) => response.end("http")).listen(0, "127.0.0.1");
await new Promise((resolve) => server.on("listening", resolve));
await new Promise((resolve) => get({ port: server.address().port, host: "127.0.0.1" }, (answer) => answer.on("data", (chunk) => say(String(chunk))).on("end", resolve)));
server.close();
await new Promise((resolve) => {
  const watcher = watch("/tmp", () => (watcher.close(), resolve(say("watch"))));
  writeFileSync("/tmp/seen", "");
});
`;

const GIT = `
set -e
cd /workspace && git init -q repo && cd repo
git config user.email a@b && git config user.name a
echo text > file && git add file && git commit -qm first && git gc -q && git clone -q . ../copy && git -C ../copy log --format=%s
`;

/** Asks for a vsock in the numbers of 32-bit calls: socket is 359 there. Machine code, because no compiler need be here. */
const IN_32_BITS = `
import ctypes, mmap
# push rbx; mov eax, 359; mov ebx, 40; mov ecx, 1; xor edx, edx; int 0x80; pop rbx; ret
memory = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
memory.write(bytes.fromhex("53b867010000bb28000000b90100000031d2cd805bc3"))
print("asked", flush=True)
print("got", ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(memory)))())
`;
const IN_X32 = `
import ctypes
print("asked", flush=True)
print("got", ctypes.CDLL(None).syscall(ctypes.c_long(0x40000000 + 41), 40, 1, 0))
`;

/** As the agent of a fresh bottle, to its end. */
async function ran(argv: string[]) {
  await using bed = new DockerBed();
  const blueprint = await bed.prepared({ image: TOOLS_IMAGE });
  return await bed.run(blueprint, argv);
}

describeWith(["docker", "busybox", "root", "python3", "git", "npm"], "docker backend: system calls", () => {
  beforeAll(() => void ensureToolsImage());

  it("what leads out of a container or deep into the kernel is refused, in each form that the kernel takes", async () => {
    const { text } = await ran(["python3", "-c", ASK]);

    const answers = text.trim().split("\n");
    expect(answers.length, text).toBe(46);
    expect(answers.filter((line) => !/=(EPERM|ENOSYS)$/.test(line))).toEqual([]);
    expect(answers.slice(0, 4).map((line) => line.split("=")[1])).toEqual(Array(4).fill("ENOSYS"));
  });

  it("calls in another architecture's numbers reach nothing", { skip: process.arch !== "x64" }, async () => {
    for (const script of [IN_32_BITS, IN_X32]) {
      const { text, unit } = await ran(["python3", "-c", script]);

      // The process ends, or the kernel does not know such calls.
      expect(text).toMatch(/^asked\n(got -1\n)?$/);
      expect(unit.exit?.code === 0).toBe(text.includes("got"));
    }
  });

  it("a namespace of one's own cannot be had with the usual tools", async () => {
    const script = "unshare -Ur true; echo $?; unshare -n true; echo $?; mount -t tmpfs none /tmp; echo $?";

    const { text } = await ran(["bash", "-c", `(${script}) 2>/dev/null`]);

    expect(
      text
        .trim()
        .split("\n")
        .filter((code) => code === "0"),
    ).toEqual([]);
  });

  it.each([
    [
      "python3",
      ["python3", "-c", PYTHON],
      "thread subprocess asyncio tcp processes pair netlink terminal (33, 91) mmap files scheduling",
    ],
    ["node", ["node", "--input-type=module", "-e", NODE], "child worker pool http watch"],
    ["git", ["bash", "-c", GIT], "first"],
    ["npm", ["npm", "--version", "--cache", "/tmp/npm"], undefined],
    ["perl", ["perl", "-e", 'print "perl ", `echo child`'], "perl child"],
    ["bash", ["bash", "-c", "cat <(echo a | tr a b) & wait; [[ $(printf %s {1..3}) = 123 ]] && echo bash"], "b bash"],
  ])("%s works", async (_name, argv, words) => {
    const { text, unit } = await ran(argv);

    expect(unit.exit?.code, text).toBe(0);
    if (words !== undefined) expect(text.trim().replaceAll("\n", " ")).toBe(words);
  });

  it("holder and guard have the same filter, and what runs beside an agent too", async () => {
    await using bed = new DockerBed();
    const blueprint = await bed.prepared({ image: TOOLS_IMAGE });
    const options = ["holder", "guard"].map((role) =>
      docker("inspect", "-f", "{{json .HostConfig.SecurityOpt}}", `bb-${blueprint.uid}-${role}`),
    );
    const session = await bed.backend.exec(blueprint, { argv: ["python3", "-c", ASK], tty: false });
    const output: Uint8Array[] = [];
    for await (const chunk of session.stdout) if (chunk instanceof Uint8Array) output.push(chunk);

    expect(new Set(options).size).toBe(1);
    expect(options[0]).toContain('"seccomp={');
    expect(Buffer.concat(output).toString()).toContain("io_uring_setup=ENOSYS\n");
  });
});
