import { existsSync, readdirSync, readFileSync, readlinkSync } from "node:fs";
import { expect, it } from "vitest";
import { docker } from "../e2e/traces.ts";
import type { Attack } from "./bottle-attacks.ts";
import { hostAddresses, type Scene } from "./bottle-scene.ts";

/** What the kernel says of an address that no interface leads to. */
const NO_WAY = new Set(["ENETUNREACH", "EHOSTUNREACH", "EADDRNOTAVAIL", "EINVAL"]);
const PORTS = [22, 53, 80, 443, 2375, 2376, 6443];
const OUTSIDE = ["1.1.1.1", "8.8.8.8", "169.254.169.254", "10.0.0.1", "255.255.255.255", "224.0.0.1"];
const OUTSIDE_6 = ["2606:4700:4700::1111", "2001:db8::5", "fe80::1", "ff02::1", "fd00:ec2::254"];
/** Prints the name of each call of the kernel that went through. */
const CALLS = String.raw`
import ctypes, errno, fcntl, os, socket, struct
def attempt(name, call):
    try:
        call()
        print(name, "went through")
    except OSError as error:
        print(name, errno.errorcode.get(error.errno, error.errno))
libc = ctypes.CDLL(None, use_errno=True)
def kernel(*args):
    if libc.syscall(*args) < 0:
        raise OSError(ctypes.get_errno(), "")
inet = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
def interface(request, name):
    fcntl.ioctl(inet, request, struct.pack("16sH14s", name, socket.AF_INET, bytes([0, 0, 10, 9, 9, 9]) + bytes(8)))
def netlink(kind, body):
    link = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
    link.sendto(struct.pack("IHHII", 16 + len(body), kind, 0x605, 1, 0) + body, (0, 0))
    code = struct.unpack("i", link.recv(4096)[16:20])[0]
    if code != 0:
        raise OSError(-code, "")
attempt("add an address", lambda: interface(0x8916, b"lo"))
attempt("take loopback down", lambda: interface(0x8914, b"lo"))
attempt("add a route", lambda: netlink(24, struct.pack("BBBBBBBBI", 2, 0, 0, 0, 254, 3, 0, 1, 0)))
attempt("add a link", lambda: netlink(16, struct.pack("BxHiII", 0, 0, 0, 0, 0)))
attempt("flush the firewall", lambda: inet.setsockopt(socket.IPPROTO_IP, 64, bytes(96)))
attempt("packet socket", lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)))
attempt("raw socket", lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP))
attempt("vsock", lambda: socket.socket(40, socket.SOCK_STREAM))
attempt("io_uring", lambda: kernel(425, 8, ctypes.create_string_buffer(120)))
attempt("user namespace", lambda: kernel(272, 0x10000000))
attempt("network namespace", lambda: kernel(272, 0x40000000))
attempt("mount", lambda: kernel(165, b"none", b"/tmp", b"tmpfs", 0, None))
attempt("become root", lambda: os.setuid(0))
attempt("reboot", lambda: kernel(169, 0xfee1dead, 672274793, 0, None))
attempt("kernel log", lambda: kernel(103, 3, ctypes.create_string_buffer(64), 64))
attempt("bpf", lambda: kernel(321, 0, ctypes.create_string_buffer(120), 120))
attempt("set the clock", lambda: kernel(227, 0, ctypes.create_string_buffer(16)))
`;
const KERNEL_FILES = [
  "/proc/sysrq-trigger",
  "/proc/sys/kernel/core_pattern",
  "/proc/sys/kernel/hostname",
  "/proc/sys/net/ipv4/ip_forward",
  "/sys/kernel/uevent_helper",
  "/sys/fs/cgroup/release_agent",
  "/sys/fs/cgroup/cgroup.procs",
  "/proc/1/mem",
];

/** Cases 1 to 10 of the threat model: what a program of the agent reaches if it does not care about proxies. */
export function topologyRules({ rig, contained, audited }: Scene): void {
  it("1, 3, 8: no address of this machine or beyond is in reach, by TCP or UDP, IPv4 or IPv6", async () => {
    const { address, port } = rig().world;
    const machine = hostAddresses();
    expect(machine.length).toBeGreaterThan(0);
    const world = rig().type === "Docker" ? [address] : [];
    const attacks = [...machine, ...world, ...OUTSIDE, ...OUTSIDE_6].flatMap((host): Attack[] => [
      ...[...PORTS, port].map((one) => ({ kind: "tcp", host, port: one }) as const),
      { kind: "udp", host, port: 53 },
      { kind: "udp", host, port },
    ]);

    const findings = await contained(attacks);

    const reached = attacks.filter(
      (_, n) => !(NO_WAY.has(findings[n]?.error ?? "") || isForbidden(findings[n]?.error)),
    );
    expect(reached).toEqual([]);
    const [interfaces, routes] = await rig().sh(
      "a",
      "cut -d: -f1 /proc/net/dev | tail -n +3",
      "tail -n +2 /proc/net/route",
    );
    expect([interfaces.trim(), routes]).toEqual(["lo", ""]);
  });

  it("2: what listens on this machine's loopback is not what the agent finds on its own", async () => {
    const ports = [rig().world.port, Number(rig().world.dns.address.split(":")[1]), 2375, 6443];
    const attacks = ports.flatMap((port): Attack[] => [
      { kind: "tcp", host: "127.0.0.1", port },
      { kind: "tcp", host: "::1", port },
      { kind: "udp", host: "127.0.0.1", port },
    ]);

    for (const finding of await contained(attacks)) expect(finding.through).toBeUndefined();

    expect(listeningPorts(rig().serve().pid)).toEqual([]);
  });

  it("2: the guard does not lead to an address of this machine either, not even where a rule names it without saying that it may", async () => {
    const { port, address } = rig().world;
    const own = rig().type === "Docker" ? [] : [address];
    const named = hostAddresses().map((host) => `${host}:${port}`);
    const others = ["127.0.0.1", "[::1]", "0.0.0.0", "169.254.169.254", ...own].map((host) => `${host}:${port}`);
    const attacks = [...named, ...others].map((authority): Attack => ({
      kind: "tunnel",
      authority,
      serverName: false,
    }));

    const { findings, lines } = await audited(attacks);

    for (const finding of findings) expect(finding.status).not.toBe(200);
    expect(lines.filter(({ rule }) => rule === "address-refused").map(({ host }) => host)).toEqual(
      expect.arrayContaining(hostAddresses()),
    );
    expect(lines.filter(({ verdict }) => verdict === "Allowed")).toEqual([]);
  });

  it("4, 5, 9: the kernel lets the agent change no interface, send no frame, and become nobody else", async () => {
    const said = await rig().exec("a", "python3", "-c", CALLS);

    const lines = said.stdout.trim().split("\n");
    expect(lines, said.stderr).toHaveLength(CALLS.match(/^attempt\(/gm)?.length ?? 0);
    expect(lines.filter((line) => !/ (EPERM|EACCES|ENOSYS|EAFNOSUPPORT|EINVAL|ENOSPC|EOPNOTSUPP)$/.test(line))).toEqual(
      [],
    );
    // Where a call is refused for its arguments, somebody with the right to make it could mend them.
    const byArguments = lines.filter((line) => / (EINVAL|EOPNOTSUPP)$/.test(line));
    expect(byArguments.filter((line) => !/^become root|^add a link/.test(line))).toEqual([]);
  });

  it("9: the agent and what runs beside it have no capability, no way to more, a filter, and are not root", async () => {
    const tries = ["unshare -Ur true", "unshare -n true", "mount -t tmpfs none /tmp", "su -c true", "sudo -n true"];
    const [through, ...statuses] = await rig().sh(
      "a",
      `for each in ${tries.map((one) => `'${one}'`).join(" ")}; do sh -c "$each" 2>/dev/null && echo "$each"; done`,
      "cat /workspace/status",
      "cat /proc/self/status",
      "cat /proc/1/status",
    );
    for (const status of statuses) {
      expect(status).toMatch(/^CapEff:\t0+$/m);
      expect(status).toMatch(/^CapPrm:\t0+$/m);
      expect(status).toMatch(/^NoNewPrivs:\t1$/m);
      expect(status).toMatch(/^Seccomp:\t2$/m);
      expect(status).not.toMatch(/^Uid:\t0\b/m);
    }
    expect(through).toBe("");
  });

  it("10: files through which the kernel is told something cannot be written", async () => {
    const words = KERNEL_FILES.map((file) => `(echo x > ${file}) 2>/dev/null && echo ${file}`).join("; ");

    const more = "mkdir /sys/fs/cgroup/mine 2>/dev/null && echo cgroup; touch /x 2>/dev/null && echo root";
    const [written, control] = await rig().sh("a", `${words}; ${more}`, "echo x > /workspace/x && cat /workspace/x");
    expect([written, control]).toEqual(["", "x\n"]);
  });

  it("6: no engine, no key agent and no socket of this machine is in the bottle", async () => {
    const [env, found, abstract] = await rig().sh(
      "a",
      "env",
      "find / -xdev -type s 2>/dev/null; find /run /var/run /tmp /dev -type s 2>/dev/null",
      "tail -n +2 /proc/net/unix | awk '{print $8}'",
    );
    expect(env).toContain("HTTPS_PROXY");
    expect(env).not.toMatch(/SSH_AUTH_SOCK|DOCKER_HOST|KUBE|BOT_BOTTLE_STATE_DIR/);
    expect(found).toBe("");
    expect(abstract.split("\n").filter((name) => /docker|containerd|podman|ssh|dbus|X11|\.sock/.test(name))).toEqual(
      [],
    );
  });

  it("7: a bottle finds nothing of another one, by address, by name or through its own guard", async () => {
    const other = await rig().uid("b");
    const { port } = rig().world;
    const names = ["b", `bb-${other}-guard`, `bb-${other}-holder`, `bb-${other}-agent-1-1`];
    const addresses = rig().type === "Docker" ? [await guardAddress(other)] : [];
    const direct = addresses.flatMap((host) =>
      [7001, 7002, 80, port].map((one): Attack => ({ kind: "tcp", host, port: one })),
    );

    const findings = await contained([...names.map((name): Attack => ({ kind: "lookup", name })), ...direct]);

    expect(findings.filter(({ through }) => through === true)).toEqual([]);
    const through = [...names, ...addresses].map((host): Attack => ({ kind: "tunnel", authority: `${host}:7001` }));
    const { lines } = await audited(through);
    expect(lines.filter(({ verdict }) => verdict !== "Denied")).toEqual([]);
  });

  it("7: a port that one agent opens is not there for the other", async () => {
    const listener = `require("node:net").createServer(() => process.exit(7)).listen(8123, "0.0.0.0", () => setTimeout(() => process.exit(0), 4000)); process.stdout.write("up\\n")`;
    const listening = rig().here.start(["exec", "b", "--", "node", "--eval", listener]);
    await listening.says(/^up$/m);

    const [finding] = await contained([{ kind: "tcp", host: "127.0.0.1", port: 8123 }]);

    expect(finding).toEqual({ error: "ECONNREFUSED" });
    expect((await listening.ended).code).toBe(0);
  });
}

function isForbidden(error: string | undefined): boolean {
  return error === "EACCES" || error === "EPERM";
}

function guardAddress(uid: string): Promise<string> {
  const format = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
  return docker(["inspect", "--format", format, `bb-${uid}-guard`]).then((text) => text.trim());
}

/** TCP ports on which a process of this machine listens. */
function listeningPorts(pid: number): number[] {
  const inodes = new Set(
    readdirSync(`/proc/${pid}/fd`).map((fd) => /^socket:\[(\d+)\]$/.exec(linkOf(`/proc/${pid}/fd/${fd}`))?.[1]),
  );
  const tables = ["/proc/net/tcp", "/proc/net/tcp6"].filter((path) => existsSync(path));
  const rows = tables.flatMap((path) => readFileSync(path, "utf8").trim().split("\n").slice(1));
  return rows
    .map((row) => row.trim().split(/\s+/))
    .filter((columns) => columns[3] === "0A" && inodes.has(columns[9]))
    .map((columns) => Number.parseInt(columns[1]?.split(":")[1] ?? "0", 16));
}

function linkOf(path: string): string {
  try {
    return readlinkSync(path);
  } catch {
    return "";
  }
}
