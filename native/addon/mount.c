// Mounts that are attached nowhere: new file systems, and private copies of what the host has mounted.
#include "addon.h"
#include <fcntl.h>
#include <linux/mount.h>
#include <sys/syscall.h>
#include <unistd.h>

// newMount(type, options: Uint8Array, attributes, mount): the FD of a new file system, attached nowhere, freed with its
// last FD; 0 when `mount`, not -1, is one that gets other options. Each is NUL-terminated, "key=value" or a flag, and
// spent then. -EPERM without CAP_SYS_ADMIN. man fsopen(2), fspick(2), fsmount(2).
static napi_value new_mount(napi_env env, napi_callback_info info) {
  ARGS;
  char type[16];
  struct bytes options = arg_bytes(env, argv[1]);
  int mount = arg_int(env, argv[3]), bad = arg_name(env, argv[0], type, sizeof type);
  if (bad < 0) return integer(env, bad);
  if (options.length == 0 || options.data[options.length - 1] != 0) return integer(env, -EINVAL);
  int context = (int)(mount < 0 ? syscall(SYS_fsopen, type, FSOPEN_CLOEXEC)
                                : syscall(SYS_fspick, mount, "", FSPICK_CLOEXEC | FSPICK_EMPTY_PATH));
  if (context < 0) return outcome(env, -1);
  char *key = (char *)options.data, *end = key + options.length;
  for (char *next; key < end; key = next) {
    char *value = strchr(key, '=');
    next = key + strlen(key) + 1;
    if (value) *value++ = 0;
    if (syscall(SYS_fsconfig, context, value ? FSCONFIG_SET_STRING : FSCONFIG_SET_FLAG, key, value, 0) < 0)
      return integer(env, closing(context, errno));
  }
  if (syscall(SYS_fsconfig, context, mount < 0 ? FSCONFIG_CMD_CREATE : FSCONFIG_CMD_RECONFIGURE, NULL, NULL, 0) < 0)
    return integer(env, closing(context, errno));
  int made = mount < 0 ? (int)syscall(SYS_fsmount, context, FSMOUNT_CLOEXEC, arg_uint(env, argv[2])) : 0;
  int error = errno;
  close(context);
  return integer(env, made < 0 ? -error : made);
}

// cloneMount(fd, isReadOnly): a private copy of the mounts at and below an O_PATH FD, without devices, in which no
// later mount of the host shows. Read-only, the kernel refuses to write through any FD that comes from it, donated
// and reopened ones too. man open_tree(2), mount_setattr(2).
static napi_value clone_mount(napi_env env, napi_callback_info info) {
  ARGS;
  bool read_only = true;
  napi_get_value_bool(env, argv[1], &read_only);
  int fd = (int)syscall(SYS_open_tree, arg_int(env, argv[0]), "",
                        OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH | AT_RECURSIVE);
  if (fd < 0) return outcome(env, -1);
  struct mount_attr attributes = {.attr_set = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV};
  if (read_only) attributes.attr_set |= MOUNT_ATTR_RDONLY;
  int bad = (int)syscall(SYS_mount_setattr, fd, "", AT_EMPTY_PATH | AT_RECURSIVE, &attributes, sizeof attributes);
  return integer(env, bad < 0 ? closing(fd, errno) : fd);
}

void register_mount(napi_env env, napi_value exports) {
  export_function(env, exports, "newMount", new_mount);
  export_function(env, exports, "cloneMount", clone_mount);
}
