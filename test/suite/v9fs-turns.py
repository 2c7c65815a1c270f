# How long a guest's kernel takes over mounts of several servers, in turns, so that what else the machine does meets all alike. Prints
# "@@ took SERVER CACHE WHAT MS STATUS". Run in a guest by v9fs-guest.sh: ROUNDS, then SERVER CACHE TREE TMP of each.
import os, sys, time

BLOCK = bytes(1 << 20)
TOTAL = 32


def write(tree, tmp):
    with open(tmp + "/w", "wb", buffering=0) as file:
        for _ in range(TOTAL):
            file.write(BLOCK)
        os.fsync(file.fileno())
    return True


def read(tree, tmp):
    size = 0
    with open(tmp + "/w", "rb", buffering=0) as file:
        while part := file.read(1 << 20):
            size += len(part)
    return size == TOTAL << 20


def stats(tree, tmp):
    folders, count = [tree], 0
    while folders:
        for entry in os.scandir(folders.pop()):
            os.lstat(entry.path)
            count += 1
            if entry.is_dir(follow_symlinks=False):
                folders.append(entry.path)
    return count > 1500


def names(tree, tmp):
    return len(os.listdir(tree + "/many")) == 1500


# Of a listing more rounds: it takes some milliseconds.
WORK = [(write, 1), (read, 1), (stats, 1), (names, 11)]


def forget():
    with open("/proc/sys/vm/drop_caches", "w") as file:
        file.write("3")


rounds = int(sys.argv[1])
servers = [sys.argv[i : i + 4] for i in range(2, len(sys.argv), 4)]
for work, times in WORK:
    for turn in range(rounds * times + 1):
        # Who is first is another each time.
        for server, cache, tree, tmp in servers[turn % len(servers) :] + servers[: turn % len(servers)]:
            if work is write and os.path.exists(tmp + "/w"):
                os.remove(tmp + "/w")
            forget()
            start = time.perf_counter()
            isRight = work(tree, tmp)
            ms = 1000 * (time.perf_counter() - start)
            # The first is of code that has not run yet.
            if turn > 0:
                print("@@ took", server, cache, work.__name__, "%.2f" % ms, int(not isRight), flush=True)
