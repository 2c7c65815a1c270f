// Process-wide settings of the gofer: limits, umask, no_new_privs, its exit.
#include "addon.h"
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

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

// exitNow(code): _exit without Node's teardown: the kernel frees FDs and mappings. Does not return.
static napi_value exit_now(napi_env env, napi_callback_info info) {
  ARGS;
  _exit(arg_int(env, argv[0]));
}

void register_harden(napi_env env, napi_value exports) {
  export_function(env, exports, "setNoNewPrivs", set_no_new_privs);
  export_function(env, exports, "setNoFile", set_no_file);
  export_function(env, exports, "exitNow", exit_now);
}
