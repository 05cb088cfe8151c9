/**
 * The system calls of containers, as the engine's `--security-opt seccomp=` takes them. What is not named here fails with ENOSYS, as on a kernel
 * that does not have it, so that programs fall back; calls for administrators fail with EPERM, which is what they expect. Only the engine's own
 * architecture is named: calls in another one's numbers (32-bit programs, x32) would mean something else and end the process.
 * A runtime that is its own kernel (gVisor, Kata) has its own rules and does not read this.
 */
interface Profile {
  defaultAction: "SCMP_ACT_ERRNO";
  defaultErrnoRet: number;
  syscalls: readonly Rule[];
}

/** Rules of one call are alternatives; conditions of one rule must all hold. A call that fits no rule gets the default. */
interface Rule {
  names: readonly string[];
  action: "SCMP_ACT_ALLOW" | "SCMP_ACT_ERRNO";
  errnoRet?: number;
  args?: readonly Condition[];
  includes?: { arches?: readonly string[]; minKernel?: string };
  excludes?: { arches?: readonly string[] };
}

/** SCMP_CMP_MASKED_EQ holds if the argument, masked with `value`, is `valueTwo`. */
type Condition =
  | { index: number; op: "SCMP_CMP_EQ"; value: number }
  | { index: number; op: "SCMP_CMP_MASKED_EQ"; value: number; valueTwo: number };

const EPERM = 1;
const ENOSYS = 38;

/** What programs need, by subject. Whether a file, a process or a socket is theirs to touch is the kernel's own check. */
const ALLOWED = `
  open openat openat2 creat close close_range read write readv writev pread64 pwrite64 preadv pwritev preadv2 pwritev2 lseek
  sendfile splice tee vmsplice copy_file_range dup dup2 dup3 fcntl flock pipe pipe2 fsync fdatasync sync syncfs sync_file_range
  sync_file_range2 fallocate fadvise64 readahead truncate ftruncate umask cachestat

  stat fstat lstat newfstatat fstatat statx statfs fstatfs access faccessat faccessat2 getdents getdents64 readlink readlinkat getcwd chdir
  fchdir mkdir mkdirat rmdir link linkat symlink symlinkat unlink unlinkat rename renameat renameat2 mknod mknodat chmod fchmod fchmodat
  fchmodat2 chown fchown lchown fchownat utime utimes futimesat utimensat name_to_handle_at
  getxattr lgetxattr fgetxattr getxattrat setxattr lsetxattr fsetxattr setxattrat listxattr llistxattr flistxattr listxattrat removexattr
  lremovexattr fremovexattr removexattrat
  inotify_init inotify_init1 inotify_add_watch inotify_rm_watch fanotify_mark

  brk mmap munmap mremap mprotect msync madvise process_madvise process_mrelease mincore mlock mlock2 munlock mlockall munlockall mseal
  remap_file_pages memfd_create memfd_secret pkey_alloc pkey_free pkey_mprotect membarrier map_shadow_stack
  mbind get_mempolicy set_mempolicy set_mempolicy_home_node
  shmget shmat shmctl shmdt semget semop semtimedop semctl msgget msgsnd msgrcv msgctl
  mq_open mq_unlink mq_timedsend mq_timedreceive mq_notify mq_getsetattr

  fork vfork execve execveat exit exit_group wait4 waitid kill tkill tgkill pidfd_open pidfd_send_signal
  getpid getppid gettid getpgid setpgid getpgrp getsid setsid set_tid_address
  futex futex_waitv futex_wait futex_wake futex_requeue get_robust_list set_robust_list rseq restart_syscall
  rt_sigaction rt_sigprocmask rt_sigpending rt_sigqueueinfo rt_tgsigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait sigaltstack
  pause alarm getitimer setitimer signalfd signalfd4 uretprobe uprobe
  sched_yield sched_getaffinity sched_setaffinity sched_getparam sched_setparam sched_getscheduler sched_setscheduler sched_getattr
  sched_setattr sched_get_priority_max sched_get_priority_min sched_rr_get_interval getpriority setpriority ioprio_get ioprio_set getcpu
  getrlimit setrlimit prlimit64 getrusage times sysinfo uname prctl arch_prctl seccomp
  landlock_create_ruleset landlock_add_rule landlock_restrict_self

  getuid geteuid getgid getegid getresuid getresgid getgroups setuid setgid setreuid setregid setresuid setresgid setfsuid setfsgid setgroups
  capget capset

  connect accept accept4 bind listen getsockname getpeername getsockopt setsockopt shutdown
  sendto sendmsg sendmmsg recvfrom recvmsg recvmmsg
  select pselect6 poll ppoll epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_wait epoll_wait_old epoll_pwait epoll_pwait2
  eventfd eventfd2 io_setup io_submit io_cancel io_destroy io_getevents io_pgetevents

  time gettimeofday clock_gettime clock_getres clock_nanosleep nanosleep timer_create timer_delete timer_getoverrun timer_gettime
  timer_settime timerfd_create timerfd_gettime timerfd_settime getrandom
`;

/** The same under the names of architectures that have 32 bits or calls of their own; elsewhere these names mean nothing. */
const ALLOWED_ELSEWHERE = `
  _llseek llseek _newselect fcntl64 fstat64 lstat64 stat64 fstatat64 statfs64 fstatfs64 truncate64 ftruncate64 sendfile64 mmap2 waitpid
  ugetrlimit chown32 fchown32 lchown32 getuid32 geteuid32 getgid32 getegid32 getresuid32 getresgid32 getgroups32 setuid32 setgid32 setreuid32
  setregid32 setresuid32 setresgid32 setfsuid32 setfsgid32 setgroups32 clock_getres_time64 clock_gettime64 clock_nanosleep_time64
  futex_time64 io_pgetevents_time64 mq_timedreceive_time64 mq_timedsend_time64 ppoll_time64 pselect6_time64 recvmmsg_time64
  rt_sigtimedwait_time64 sched_rr_get_interval_time64 semtimedop_time64 timer_gettime64 timer_settime64 timerfd_gettime64 timerfd_settime64
  utimensat_time64 sigaction sigprocmask sigpending sigreturn sigsuspend signal nice readdir
  arm_fadvise64_64 arm_sync_file_range cacheflush set_tls breakpoint fadvise64_64 get_thread_area set_thread_area
  swapcontext switch_endian riscv_flush_icache riscv_hwprobe s390_guarded_storage s390_runtime_instr
`;

/**
 * For administrators of the machine, and ways around what a container is: mounts, namespaces, modules, clocks, keyrings (which belong to no
 * namespace), other processes' memory, page faults in the hands of a program.
 */
const REFUSED = `
  mount umount umount2 pivot_root move_mount fsopen fsconfig fsmount fspick open_tree open_tree_attr mount_setattr statmount listmount chroot setns
  init_module finit_module delete_module create_module query_module get_kernel_syms kexec_load kexec_file_load reboot swapon swapoff acct
  settimeofday stime clock_settime clock_settime64 clock_adjtime clock_adjtime64 adjtimex sethostname setdomainname syslog vhangup
  quotactl quotactl_fd open_by_handle_at lookup_dcookie nfsservctl uselib sysfs ustat _sysctl iopl ioperm modify_ldt vm86 vm86old
  add_key request_key keyctl bpf perf_event_open userfaultfd fanotify_init process_vm_readv process_vm_writev move_pages migrate_pages
  kcmp pidfd_getfd
`;

/** io_uring does what no filter sees. Told that there is no such call, programs do the same with other ones; so for clone3, whose flags are in memory. */
const HIDDEN = `io_uring_setup io_uring_enter io_uring_register clone3`;

/** CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID and NEWNET. */
const NAMESPACES = 0x7e020000;
/** CLONE_NEWTIME; to `clone` this bit is part of a signal's number. */
const TIME_NAMESPACE = 0x80;

/** AF_UNIX, AF_INET, AF_INET6, AF_NETLINK. AF_VSOCK for one leads to the host and belongs to no network namespace. */
const SOCKET_FAMILIES = [1, 2, 10, 16];
/** PER_LINUX and PER_LINUX32, each also as Linux 2.6, without random addresses (debuggers), and the question which one it is. */
const PERSONALITIES = [0x0, 0x8, 0x20000, 0x20008, 0x40000, 0xffffffff];
/** TIOCSTI and TIOCLINUX type into a terminal. */
const REFUSED_IOCTLS = [0x5412, 0x541c] as const;

const PROFILE: Profile = {
  defaultAction: "SCMP_ACT_ERRNO",
  defaultErrnoRet: ENOSYS,
  syscalls: [
    allow([...words(ALLOWED), ...words(ALLOWED_ELSEWHERE)]),
    { names: words(REFUSED), action: "SCMP_ACT_ERRNO", errnoRet: EPERM },
    ...SOCKET_FAMILIES.map((family) => allow(["socket"], equal(0, family))),
    // Of the others only TIPC has pairs, and asking for one would load its module.
    allow(["socketpair"], equal(0, 1)),
    ...PERSONALITIES.map((personality) => allow(["personality"], equal(0, personality))),
    ...otherThan(REFUSED_IOCTLS).map((condition) => allow(["ioctl"], condition)),
    ...cloneRules(),
    allow(["unshare"], masked(0, NAMESPACES | TIME_NAMESPACE, 0)),
    // By name, because engines older than 22 do not know `defaultErrnoRet` and answer EPERM.
    { names: words(HIDDEN), action: "SCMP_ACT_ERRNO", errnoRet: ENOSYS },
    // Older kernels let a debugger change a call after the filter has seen it.
    { ...allow(["ptrace"]), includes: { minKernel: "4.8" } },
  ],
};

/** Value of `SecurityOpt`. */
export const SECCOMP_OPTION = `seccomp=${JSON.stringify(PROFILE)}`;

function words(text: string): string[] {
  return text.split(/\s+/).filter((word) => word !== "");
}

function allow(names: readonly string[], ...args: readonly Condition[]): Rule {
  return { names, action: "SCMP_ACT_ALLOW", ...(args.length === 0 ? {} : { args }) };
}

function equal(index: number, value: number): Condition {
  return { index, op: "SCMP_CMP_EQ", value };
}

function masked(index: number, value: number, valueTwo: number): Condition {
  return { index, op: "SCMP_CMP_MASKED_EQ", value, valueTwo };
}

/** The flags are the second argument on s390x and the first everywhere else. */
function cloneRules(): Rule[] {
  const arches = ["s390x"];
  return [
    { ...allow(["clone"], masked(0, NAMESPACES, 0)), excludes: { arches } },
    { ...allow(["clone"], masked(1, NAMESPACES, 0)), includes: { arches } },
  ];
}

/**
 * Conditions on an ioctl's request that hold, one or another, for every request but these two. The kernel looks at its lower 32 bits only, so a
 * plain "not equal", which compares 64, would be passed by setting a higher one: each bit is compared by itself. A request is another one if it
 * differs in a bit in which the two are the same, or if it is a mixture of the bits in which they differ.
 */
function otherThan([one, two]: readonly [number, number]): Condition[] {
  const bits = Array.from({ length: 32 }, (_, bit) => 2 ** bit);
  const different = bits.filter((bit) => has(one, bit) !== has(two, bit));
  const outside = bits.filter((bit) => !different.includes(bit)).map((bit) => masked(1, bit, has(one, bit) ? 0 : bit));
  const mask = different.reduce((sum, bit) => sum + bit, 0);
  const mixtures = Array.from({ length: 2 ** different.length }, (_, choice) =>
    different.reduce((sum, bit, index) => sum + (has(choice, 2 ** index) ? bit : 0), 0),
  );
  const ends = [one, two].map((value) => different.reduce((sum, bit) => sum + (has(value, bit) ? bit : 0), 0));
  return [...outside, ...mixtures.filter((value) => !ends.includes(value)).map((value) => masked(1, mask, value))];
}

function has(value: number, bit: number): boolean {
  return Math.floor(value / bit) % 2 === 1;
}
