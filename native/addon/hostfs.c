// System calls on host files by FD: what host and upper trees are made of.
#include "addon.h"

void register_hostfs(napi_env env, napi_value exports) {
  (void)env;
  (void)exports;
}
