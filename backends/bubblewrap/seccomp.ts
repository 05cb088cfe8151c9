/** A system call that is always refused, by its number on x86-64 and on arm64. */
interface Refused {
  name: string;
  x64: number;
  arm64: number;
}

/**
 * What an agent needs for no honest work and what leads around the sandbox: io_uring makes sockets that no filter sees; keyrings belong to no
 * namespace; the others have been ways into the kernel.
 */
const REFUSED: readonly Refused[] = [
  { name: "io_uring_setup", x64: 425, arm64: 425 },
  { name: "io_uring_enter", x64: 426, arm64: 426 },
  { name: "io_uring_register", x64: 427, arm64: 427 },
  { name: "bpf", x64: 321, arm64: 280 },
  { name: "perf_event_open", x64: 298, arm64: 241 },
  { name: "userfaultfd", x64: 323, arm64: 282 },
  { name: "add_key", x64: 248, arm64: 217 },
  { name: "request_key", x64: 249, arm64: 218 },
  { name: "keyctl", x64: 250, arm64: 219 },
  { name: "kexec_load", x64: 246, arm64: 104 },
];

/** AF_UNIX, AF_INET, AF_INET6, AF_NETLINK. The rest is refused: AF_VSOCK for one leads to the host and belongs to no network namespace. */
const SOCKET_FAMILIES = [1, 2, 10, 16];
/** TIOCSTI and TIOCLINUX type into the terminal that a command was given. */
const REFUSED_IOCTLS = [0x5412, 0x541c];

const ARCHITECTURES = {
  x64: { audit: 0xc000003e, socket: 41, ioctl: 16 },
  arm64: { audit: 0xc00000b7, socket: 198, ioctl: 29 },
} as const;
export type Architecture = keyof typeof ARCHITECTURES;

export function architecture(name: string): Architecture | undefined {
  return name === "x64" || name === "arm64" ? name : undefined;
}

const ALLOW = 0x7fff0000;
const errno = (number: number) => 0x00050000 + number;
const EPERM = 1;
const ENOSYS = 38;
const EAFNOSUPPORT = 97;

// Offsets in struct seccomp_data, little-endian.
const NUMBER = 0;
const ARCHITECTURE = 4;
const ARGUMENT_0 = 16;
const ARGUMENT_1 = 24;

interface Instruction {
  code: number;
  k: number;
  jumpTrue?: number;
  jumpFalse?: number;
}

const load = (offset: number): Instruction => ({ code: 0x20, k: offset });
const answer = (k: number): Instruction => ({ code: 0x06, k });
/** Skips the next instruction unless equal. */
const unlessEqualSkip = (k: number): Instruction => ({ code: 0x15, k, jumpTrue: 0, jumpFalse: 1 });

/** The filter as bubblewrap wants it: an array of struct sock_filter. */
export function systemCallFilter(name: Architecture): Uint8Array {
  const { audit, socket, ioctl } = ARCHITECTURES[name];
  const families = SOCKET_FAMILIES.flatMap((family) => [unlessEqualSkip(family), answer(ALLOW)]);
  const socketCheck = [load(ARGUMENT_0), ...families, answer(errno(EAFNOSUPPORT))];
  const ioctlCheck = [
    load(ARGUMENT_1),
    ...REFUSED_IOCTLS.flatMap((request) => [unlessEqualSkip(request), answer(errno(EPERM))]),
    answer(ALLOW),
  ];
  return encode([
    load(ARCHITECTURE),
    { code: 0x15, k: audit, jumpTrue: 1, jumpFalse: 0 },
    // Another architecture numbers its calls differently: none of the checks below would mean anything.
    answer(errno(ENOSYS)),
    load(NUMBER),
    // x32 calls have this bit and the numbers of x86-64.
    ...(name === "x64" ? [{ code: 0x45, k: 0x40000000, jumpTrue: 0, jumpFalse: 1 }, answer(errno(ENOSYS))] : []),
    ...REFUSED.flatMap((call) => [unlessEqualSkip(call[name]), answer(errno(ENOSYS))]),
    { code: 0x15, k: socket, jumpTrue: 0, jumpFalse: socketCheck.length },
    ...socketCheck,
    { code: 0x15, k: ioctl, jumpTrue: 0, jumpFalse: ioctlCheck.length },
    ...ioctlCheck,
    answer(ALLOW),
  ]);
}

function encode(instructions: readonly Instruction[]): Uint8Array {
  const bytes = Buffer.alloc(instructions.length * 8);
  for (const [index, { code, k, jumpTrue = 0, jumpFalse = 0 }] of instructions.entries()) {
    bytes.writeUInt16LE(code, index * 8);
    bytes.writeUInt8(jumpTrue, index * 8 + 2);
    bytes.writeUInt8(jumpFalse, index * 8 + 3);
    bytes.writeUInt32LE(k, index * 8 + 4);
  }
  return bytes;
}
