// Processes: limits, no_new_privs, root, turns and exit of the gofer's; ingest's programs.
#include "addon.h"
#include <linux/sched.h>
#include <sched.h>
#include <stdbool.h>
#include <spawn.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define SERVER_SLICE_NS 100000u  // The least that Linux takes.

// setNoNewPrivs(): 0 or -errno. man prctl(2).
static napi_value set_no_new_privs(napi_env env, napi_callback_info info) {
  (void)info;
  return outcome(env, prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
}

// setNoFile(limit): raises or lowers the soft limit of open FDs up to the hard one; the new soft limit.
static napi_value set_no_file(napi_env env, napi_callback_info info) {
  ARGS;
  struct rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) < 0) return outcome(env, -1);
  rlim_t wanted = (rlim_t)arg_i64(env, argv[0]);
  limit.rlim_cur = wanted < limit.rlim_max ? wanted : limit.rlim_max;
  if (setrlimit(RLIMIT_NOFILE, &limit) < 0) return outcome(env, -1);
  return number(env, (double)limit.rlim_cur);
}

// enterMounts(namespace, root, directory): the calling thread alone has this mount namespace, root and working
// directory from now on; the others keep theirs, and must leave files alone. 0 or -errno. man setns(2), unshare(2).
static napi_value enter_mounts(napi_env env, napi_callback_info info) {
  ARGS;
  bool failed = unshare(CLONE_FS) < 0 || setns(arg_int(env, argv[0]), CLONE_NEWNS) < 0 ||
                fchdir(arg_int(env, argv[1])) < 0 || chroot(".") < 0 || fchdir(arg_int(env, argv[2])) < 0;
  return outcome(env, failed ? -1 : 0);
}

// sched_setattr(2) for the calling thread; what it starts has the normal policy and a nice value of 0. 0 or -errno.
static long set_turns(uint32_t policy, int32_t nice, uint64_t runtime, uint64_t period) {
  struct {
    uint32_t size, policy;
    uint64_t flags;
    int32_t nice;
    uint32_t priority;
    uint64_t runtime, deadline, period;
  } attributes = {48, policy, SCHED_FLAG_RESET_ON_FORK, nice, 0, runtime, period, period};
  return syscall(SYS_sched_setattr, 0, &attributes, 0);
}

// askForShortTurns(): short turns of the CPU, for the calling thread alone: its share of the time stays what it is,
// but a request that comes while the sandbox's own threads spin is served sooner. Of another policy than the normal one
// (chrt(1)) whoever started us has decided. Linux 6.12 and later
// (sched_setattr(2): sched_runtime of a normal task is its slice); before that nothing changes. 0 or -errno.
// docs/design/0003-server-start.md
static napi_value ask_for_short_turns(napi_env env, napi_callback_info info) {
  (void)info;
  if (sched_getscheduler(0) != SCHED_OTHER) return integer(env, 0);
  return outcome(env, set_turns(SCHED_OTHER, getpriority(PRIO_PROCESS, 0), SERVER_SLICE_NS, 0));
}

// askForDeadline(runtime, period): ns of a CPU, of each so many, for the calling thread before any other's, and no more
// than that (sched(7), SCHED_DEADLINE). 0 or -errno: EPERM, or EBUSY when CPUs are promised to others.
static napi_value ask_for_deadline(napi_env env, napi_callback_info info) {
  ARGS;
  uint64_t runtime = (uint64_t)arg_i64(env, argv[0]), period = (uint64_t)arg_i64(env, argv[1]);
  return outcome(env, set_turns(SCHED_DEADLINE, 0, runtime, period));
}

// goFirst(tid): a thread of ours before all of the normal policy, after those with a deadline (sched(7), SCHED_RR); not
// what it starts. 0 or -errno.
static napi_value go_first(napi_env env, napi_callback_info info) {
  ARGS;
  struct sched_param least = {.sched_priority = 1};
  return outcome(env, sched_setscheduler(arg_int(env, argv[0]), SCHED_RR | SCHED_RESET_ON_FORK, &least));
}

// exitNow(code): _exit without Node's teardown: the kernel frees FDs and mappings. Does not return.
static napi_value exit_now(napi_env env, napi_callback_info info) {
  ARGS;
  _exit(arg_int(env, argv[0]));
}

// A program's pid, or -errno, by its words and its FDs from 0 on. No fork, which copies page tables of hundreds of MB.
int spawn_words(struct bytes text, struct bytes fds) {
  char *end = (char *)text.data + text.length, *args[17] = {NULL};
  if (fds.length < 3 * sizeof(int) || text.length == 0 || end[-1] != 0) return -EINVAL;
  for (char *at = (char *)text.data, **arg = args; at < end && arg < args + 16; at += strlen(at) + 1) *arg++ = at;
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  for (int i = 0; i < (int)(fds.length / sizeof(int)); i++)
    posix_spawn_file_actions_adddup2(&actions, ((int *)fds.data)[i], i);
  posix_spawnattr_t attributes; // whose signal mask is empty: threads of the pool take none
  posix_spawnattr_init(&attributes);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
  int pid, error = posix_spawnp(&pid, args[0], &actions, &attributes, args, environ);
  posix_spawn_file_actions_destroy(&actions);
  return error ? -error : pid;
}

// spawnProgram(arguments, fds: Int32Array)
static napi_value spawn_program(napi_env env, napi_callback_info info) {
  ARGS;
  return integer(env, spawn_words(arg_bytes(env, argv[0]), arg_bytes(env, argv[1])));
}

// waitProgram(pid, isPatient): its status; -EAGAIN of one that hasn't ended, where it isn't waited for.
static napi_value wait_program(napi_env env, napi_callback_info info) {
  ARGS;
  int status, got = waitpid(arg_int(env, argv[0]), &status, arg_int(env, argv[1]) ? 0 : WNOHANG);
  return integer(env, got < 0 ? -errno : got == 0 ? -EAGAIN : status);
}

void register_process(napi_env env, napi_value exports) {
  export_function(env, exports, "setNoNewPrivs", set_no_new_privs);
  export_function(env, exports, "setNoFile", set_no_file);
  export_function(env, exports, "enterMounts", enter_mounts);
  export_function(env, exports, "askForShortTurns", ask_for_short_turns);
  export_function(env, exports, "askForDeadline", ask_for_deadline);
  export_function(env, exports, "goFirst", go_first);
  export_function(env, exports, "exitNow", exit_now);
  export_function(env, exports, "spawnProgram", spawn_program);
  export_function(env, exports, "waitProgram", wait_program);
}
