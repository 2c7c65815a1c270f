// The addon's entry point: system calls for lib/sys/ and nothing else.
#include "addon.h"

static napi_value init(napi_env env, napi_value exports) {
  register_fd(env, exports);
  register_map(env, exports);
  register_channel(env, exports);
  register_hostfs(env, exports);
  register_hostsock(env, exports);
  register_mount(env, exports);
  register_process(env, exports);
  register_harden(env, exports);
  register_codec(env, exports);
  register_sha256(env, exports);
  register_pool(env, exports);
  register_calls(env, exports);
  return exports;
}

NAPI_MODULE(burrow, init)
