# What a program does to a writable file system, each step checked. Prints "ok" at the end. Run in a guest by v9fs-guest.sh.
import errno, fcntl, mmap, os, sys

os.chdir(sys.argv[1])


def expect(code, call, *args):
    try:
        call(*args)
    except OSError as error:
        assert error.errno == code, (call, error)
        return
    raise AssertionError((call, "did not fail"))


os.mkdir("d", 0o750)
assert os.stat("d").st_mode & 0o7777 == 0o750
expect(errno.EEXIST, os.mkdir, "d")
with open("d/f", "xb") as file:
    file.write(b"hello")
os.symlink("f", "d/l")
assert os.readlink("d/l") == "f" and open("d/l").read() == "hello"
os.link("d/f", "hard")
assert os.stat("hard").st_nlink == 2 and os.path.samefile("hard", "d/f")
os.rename("hard", "moved")
expect(errno.ENOENT, os.stat, "hard")
expect(errno.ENOTEMPTY, os.rmdir, "d")
os.chmod("moved", 0o600)
# Linux's client keeps whole seconds of what it sets.
os.utime("moved", (1_000_000_007, 1_000_000_009))
assert os.stat("moved").st_mtime == 1_000_000_009, os.stat("moved").st_mtime
os.truncate("moved", 2)
with open("moved", "ab") as file:
    file.write(b"!")
assert open("moved").read() == "he!"
try:
    os.setxattr("moved", "user.color", b"blue")
    assert os.getxattr("moved", "user.color") == b"blue" and os.listxattr("moved") == ["user.color"]
    os.removexattr("moved", "user.color")
    expect(errno.ENODATA, os.getxattr, "moved", "user.color")
except OSError as error:
    # The tmpfs beneath has none of users' before Linux 6.6.
    assert error.errno == errno.EOPNOTSUPP, error
with open("moved", "r+b") as file:
    fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    pid = os.fork()
    if pid == 0:
        other = open("moved", "r+b")
        try:
            fcntl.lockf(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os._exit(0)
        os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0, "a lock is held against another process"
with open("mapped", "w+b") as file:
    file.truncate(65536)
    with mmap.mmap(file.fileno(), 65536) as memory:
        memory[60000:60004] = b"word"
        memory.flush()
assert open("mapped", "rb").read()[60000:60004] == b"word"
for i in range(300):
    open(f"d/n{i:03}", "w").close()
assert len(os.listdir("d")) == 302
for i in range(300):
    os.unlink(f"d/n{i:03}")
assert sorted(os.listdir("d")) == ["f", "l"]
fd = os.open("gone", os.O_RDWR | os.O_CREAT)
os.unlink("gone")
os.write(fd, b"still there")
os.close(fd)
expect(errno.EPERM, os.mkfifo, "fifo")
data = bytes(range(256)) * 40_000
with open("large", "wb") as file:
    file.write(data)
    os.fsync(file.fileno())
assert os.stat("large").st_size == len(data)
assert os.statvfs(".").f_bsize == 4096
print("ok")
