// What the gofer gives up before it reads a sandbox's first byte (docs/design/0015-hardening.md): system calls for
// lib/gofer/harden.ts, which says in which order. Nothing here can be taken back.
//
// Capabilities, root directory and Landlock belong to threads, and most of a server's are V8's own: each is
// interrupted once and gives them up itself.
#include "addon.h"
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/landlock.h>
#include <linux/mount.h>
#include <linux/seccomp.h>
#include <semaphore.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

// The one signal that no thread of Node's blocks: glibc keeps it for setuid(2) of all threads and so leaves it out of
// every set. For the same reason its sigaction refuses it, and the kernel is asked. nptl(7).
#define BROADCAST 33
#define RESTORER 0x04000000  // SA_RESTORER of <asm/signal.h>.
#define INSTRUCTIONS_MAX 4096
#define THREAD_SECONDS 10  // A thread that waits is interrupted in microseconds.

struct kernel_action {
  void (*handler)(int);
  unsigned long flags;
  void (*restorer)(void);
  uint64_t mask;
};

static struct {
  int root, directory, ruleset;
  uint64_t kept;
  int error;
  sem_t done;
} plan;

// rt_sigreturn(2), to which the kernel has a handler return.
__asm__(".text\n.type burrow_restorer,@function\nburrow_restorer:\n\tmov $15, %eax\n\tsyscall\n");
void burrow_restorer(void);

// By the calling thread; async-signal-safe. 0 or -1 with errno.
static int give_up(void) {
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0) return -1;
  if (plan.root >= 0 && (fchdir(plan.root) < 0 || chroot(".") < 0)) return -1;
  if (plan.directory >= 0 && fchdir(plan.directory) < 0) return -1;
  if (plan.ruleset >= 0 && syscall(SYS_landlock_restrict_self, plan.ruleset, 0) < 0) return -1;
  prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
  // To the last that there is. Who may not drop these has none to regain: no_new_privs, and no execve.
  for (int cap = 0; plan.kept >> cap & 1 || prctl(PR_CAPBSET_DROP, cap) == 0; cap++) continue;
  struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  struct __user_cap_data_struct now[2], kept[2] = {0};
  if (syscall(SYS_capget, &header, now) < 0) return -1;
  for (int i = 0; i < 2; i++)
    kept[i].permitted = kept[i].effective = now[i].permitted & (uint32_t)(plan.kept >> 32 * i);
  return (int)syscall(SYS_capset, &header, kept);
}

static void on_broadcast(int number) {
  (void)number;
  int before = errno;
  if (give_up() < 0) plan.error = errno;
  errno = before;
  sem_post(&plan.done);
}

static bool is_done(void) {
  struct timespec limit;
  clock_gettime(CLOCK_REALTIME, &limit);
  limit.tv_sec += THREAD_SECONDS;
  int result;
  while ((result = sem_timedwait(&plan.done, &limit)) < 0 && errno == EINTR) continue;
  return result == 0;
}

// giveUp(tids: Int32Array, root, directory, ruleset, keptLow, keptHigh, count): each thread of the process, which are
// all among tids, has that root and working directory, is bound by that Landlock ruleset and keeps no capability but
// these; -1 leaves the first three as they are. One after the other: threads may share a root. -ESRCH, and nothing is
// done, when there aren't as many as count (-1: as many as there are).
static napi_value give_up_all(napi_env env, napi_callback_info info) {
  ARGS;
  struct bytes tids = arg_bytes(env, argv[0]);
  int *ids = (int *)tids.data, count = 0;
  for (size_t i = 0; i < tids.length / sizeof(int); i++)
    if (syscall(SYS_tgkill, getpid(), ids[i], 0) == 0) ids[count++] = ids[i];
  if (arg_int(env, argv[6]) >= 0 && count != arg_int(env, argv[6])) return integer(env, -ESRCH);
  plan.root = arg_int(env, argv[1]);
  plan.directory = arg_int(env, argv[2]);
  plan.ruleset = arg_int(env, argv[3]);
  plan.kept = arg_uint(env, argv[4]) | (uint64_t)arg_uint(env, argv[5]) << 32;
  plan.error = 0;
  struct kernel_action action = {on_broadcast, SA_RESTART | RESTORER, burrow_restorer, ~0ull}, before;
  if (sem_init(&plan.done, 0, 0) < 0 || syscall(SYS_rt_sigaction, BROADCAST, &action, &before, sizeof action.mask) < 0)
    return outcome(env, -1);
  for (int i = 0; i < count && plan.error == 0; i++)
    if (syscall(SYS_tgkill, getpid(), ids[i], BROADCAST) == 0 && !is_done()) plan.error = ETIMEDOUT;
  syscall(SYS_rt_sigaction, BROADCAST, &before, NULL, sizeof action.mask);
  sem_destroy(&plan.done);
  return integer(env, -plan.error);
}

// filterCalls(program: struct sock_filter[]): a seccomp filter for all threads. 0, -errno, or -ESRCH when one of them
// has another filter. man seccomp(2).
static napi_value filter_calls(napi_env env, napi_callback_info info) {
  ARGS;
  struct bytes code = arg_bytes(env, argv[0]);
  size_t count = code.length / sizeof(struct sock_filter);
  if (count == 0 || count > INSTRUCTIONS_MAX) return integer(env, -EINVAL);
  struct sock_fprog program = {(unsigned short)count, (struct sock_filter *)(void *)code.data};
  long result = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program);
  return result > 0 ? integer(env, -ESRCH) : outcome(env, result);
}

// limitResource(resource, limit): soft and hard; never more than the hard limit is. man setrlimit(2).
static napi_value limit_resource(napi_env env, napi_callback_info info) {
  ARGS;
  struct rlimit limit;
  int resource = arg_int(env, argv[0]);
  rlim_t wanted = (rlim_t)arg_i64(env, argv[1]);
  if (getrlimit((__rlimit_resource_t)resource, &limit) < 0) return outcome(env, -1);
  if (wanted < limit.rlim_max) limit.rlim_max = wanted;
  limit.rlim_cur = limit.rlim_max;
  return outcome(env, setrlimit((__rlimit_resource_t)resource, &limit));
}

// hideMemory(): no core dumps, no tracers, and /proc/PID is root's. man prctl(2), PR_SET_DUMPABLE.
static napi_value hide_memory(napi_env env, napi_callback_info info) {
  (void)info;
  return outcome(env, prctl(PR_SET_DUMPABLE, 0, 0, 0, 0));
}

// fenceFd(fd): a copy of the mount at an O_PATH FD that is attached nowhere: ".." of its root leads to itself, and the
// other mounts below are left out. Reads go on to mark files as used.
static napi_value fence_fd(napi_env env, napi_callback_info info) {
  ARGS;
  return outcome(env, syscall(SYS_open_tree, arg_int(env, argv[0]), "",
                              OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH));
}

// landlockVersion(): of the kernel's Landlock; -ENOSYS, -EOPNOTSUPP where there is none. man landlock(7).
static napi_value landlock_version(napi_env env, napi_callback_info info) {
  (void)info;
  return outcome(env, syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION));
}

// landlockRules(handled, fds: Int32Array, rights: Int32Array): the FD of a ruleset that denies what is handled, but
// beneath each of the FDs what its rights say.
static napi_value landlock_rules(napi_env env, napi_callback_info info) {
  ARGS;
  struct landlock_ruleset_attr handled = {.handled_access_fs = arg_uint(env, argv[0])};
  struct bytes fds = arg_bytes(env, argv[1]), rights = arg_bytes(env, argv[2]);
  if (fds.length != rights.length) return integer(env, -EINVAL);
  int ruleset = (int)syscall(SYS_landlock_create_ruleset, &handled, sizeof handled.handled_access_fs, 0);
  for (size_t i = 0; ruleset >= 0 && i < fds.length / sizeof(int); i++) {
    struct landlock_path_beneath_attr beneath = {(uint32_t)((int *)rights.data)[i], ((int *)fds.data)[i]};
    if (syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &beneath, 0) == 0) continue;
    int error = errno;
    close(ruleset);
    return integer(env, -error);
  }
  return outcome(env, ruleset);
}

// connectHere(directory, name): a stream socket that never blocks, connected to one in a directory, or in the working
// directory for -1. The address is no longer than the name, so that a filter knows it by its length.
static napi_value connect_here(napi_env env, napi_callback_info info) {
  ARGS;
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  int directory = arg_int(env, argv[0]), bad = arg_name(env, argv[1], address.sun_path, sizeof address.sun_path);
  if (bad < 0) return integer(env, bad);
  if (directory >= 0 && fchdir(directory) < 0) return outcome(env, -1);
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return outcome(env, -1);
  socklen_t length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(address.sun_path));
  if (connect(fd, (struct sockaddr *)&address, length) == 0) return integer(env, fd);
  int error = errno;
  close(fd);
  return integer(env, -error);
}

void register_harden(napi_env env, napi_value exports) {
  export_function(env, exports, "giveUp", give_up_all);
  export_function(env, exports, "filterCalls", filter_calls);
  export_function(env, exports, "limitResource", limit_resource);
  export_function(env, exports, "hideMemory", hide_memory);
  export_function(env, exports, "fenceFd", fence_fd);
  export_function(env, exports, "landlockVersion", landlock_version);
  export_function(env, exports, "landlockRules", landlock_rules);
  export_function(env, exports, "connectHere", connect_here);
}
