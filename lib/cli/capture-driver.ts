// The program that burrow env compile runs inside the sandbox, in the Python that is there: compiles what has no byte code, runs the
// packages' post-link scripts and activation, and prints what changed below the prefix. What it prints is not believed: packages'
// own code ran beside it. Control plane.

/**
 * Python 3.6 or later, with nothing but its standard library. argv[1] is the job (CaptureJob) as JSON. Prints one line of JSON (the
 * report) and a tar of what was made or changed, names below the prefix, `.wh.NAME` for what is gone; all else goes to stderr.
 */
export const DRIVER = String.raw`
import sys
sys.path[:] = [folder for folder in sys.path if folder] # the working directory has no modules for us
import importlib.util, json, os, stat, subprocess, tarfile, tempfile

job = json.loads(sys.argv[1])
prefix = os.fsencode(job["prefix"])
out = os.fdopen(os.dup(1), "wb")
os.dup2(2, 1)

def look():
    """What is below the prefix: (mode, size, mtime, target) by path."""
    seen, todo = {}, [b""]
    while todo:
        folder = todo.pop()
        with os.scandir(os.path.join(prefix, folder) if folder else prefix) as entries:
            for entry in entries:
                path = os.path.join(folder, entry.name) if folder else entry.name
                st = entry.stat(follow_symlinks=False)
                if stat.S_ISDIR(st.st_mode):
                    todo.append(path)
                    seen[path] = (st.st_mode,)
                else:
                    link = os.readlink(entry.path) if stat.S_ISLNK(st.st_mode) else None
                    seen[path] = (st.st_mode, st.st_size, st.st_mtime_ns, link)
    return seen

def is_compiled(source, pyc):
    """Whether Python would take this byte code: PEP 552."""
    try:
        with open(pyc, "rb") as file:
            head = file.read(16)
        if len(head) < 16 or head[:4] != importlib.util.MAGIC_NUMBER:
            return False
        flags = int.from_bytes(head[4:8], "little")
        if flags & 1:
            return not flags & 2
        st = os.stat(source)
        both = (int(st.st_mtime) & 0xFFFFFFFF, st.st_size & 0xFFFFFFFF)
        return both == (int.from_bytes(head[8:12], "little"), int.from_bytes(head[12:16], "little"))
    except OSError:
        return False

def compile_all(seen):
    import py_compile
    made, failed = 0, []
    for path in sorted(seen):
        if not path.endswith(b".py") or not stat.S_ISREG(seen[path][0]) or not path.startswith(b"lib/python"):
            continue
        source = os.fsdecode(os.path.join(prefix, path))
        pyc = importlib.util.cache_from_source(source)
        if is_compiled(source, pyc):
            continue
        try:
            mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
            py_compile.compile(source, pyc, doraise=True, optimize=0, invalidation_mode=mode)
            made += 1
        except (py_compile.PyCompileError, OSError, ValueError, RecursionError, MemoryError):
            failed.append(os.fsdecode(path)) # templates, Python 2: conda goes on, too
    return made, failed

def shell():
    for folder in os.environ["PATH"].split(":"):
        if os.access(os.path.join(folder, "bash"), os.X_OK):
            return "bash"
    return "sh"

def run_scripts():
    ran = []
    for package in job["scripts"]:
        path = os.path.join(os.fsdecode(prefix), package["script"])
        if not os.path.isfile(path):
            continue
        env = dict(os.environ, PREFIX=os.fsdecode(prefix), ROOT_PREFIX=os.fsdecode(prefix),
                   PKG_NAME=package["name"], PKG_VERSION=package["version"], PKG_BUILDNUM=package["buildNumber"])
        code = subprocess.call([shell(), path], env=env, stdin=subprocess.DEVNULL, cwd=os.fsdecode(prefix))
        ran.append({"name": package["name"], "exitCode": code})
        messages = os.path.join(os.fsdecode(prefix), ".messages.txt")
        if os.path.isfile(messages):
            with open(messages, "rb") as file:
                os.write(2, file.read(65536))
            os.unlink(messages)
        if code != 0:
            break
    return ran

DUMP = "import json,os,sys; os.write(int(sys.argv[1]), json.dumps(dict(os.environ)).encode() + b'\\n')"
OWN = {"_", "PWD", "OLDPWD", "SHLVL"}

def activate():
    """The variables that activation sets: env_vars.d, then activate.d in a shell, as conda has it."""
    variables = {}
    def files(folder, end):
        try:
            return sorted(name for name in os.listdir(os.path.join(os.fsdecode(prefix), folder)) if name.endswith(end))
        except OSError:
            return []
    for name in files("etc/conda/env_vars.d", ".json"):
        with open(os.path.join(os.fsdecode(prefix), "etc/conda/env_vars.d", name)) as file:
            variables.update({str(key): str(value) for key, value in json.load(file).items()})
    scripts = files("etc/conda/activate.d", ".sh")
    if scripts:
        # A file, not a pipe: what a script left behind may hold it open for ever.
        kept = tempfile.TemporaryFile()
        os.set_inheritable(kept.fileno(), True)
        lines = ["set +eu"] + ['. "$CONDA_PREFIX/etc/conda/activate.d/%s"' % name.replace('"', '\\"') for name in scripts]
        lines.append('exec "$BURROW_PYTHON" -I -S -c "$BURROW_DUMP" %d' % kept.fileno())
        env = dict(os.environ, **variables)
        env.update(BURROW_PYTHON=sys.executable, BURROW_DUMP=DUMP, CONDA_BUILD_STATE="")
        code = subprocess.call([shell(), "-c", "\n".join(lines)], env=env, stdin=subprocess.DEVNULL, close_fds=False)
        kept.seek(0)
        text = kept.readline(1 << 22)
        if code != 0 or not text:
            sys.exit("burrow: the scripts of etc/conda/activate.d failed")
        after = json.loads(text)
        for name, value in after.items():
            if name not in OWN and not name.startswith("BURROW_") and name != "CONDA_BUILD_STATE" and os.environ.get(name) != value:
                variables[name] = value
    return variables

def reading(path):
    """Tests, which nothing that runs reads, behind all else: packs have what is stored first together."""
    return (b"/tests/" in path or b"/test/" in path, path)


def write_tar(before, after):
    with tarfile.open(fileobj=out, mode="w|", format=tarfile.GNU_FORMAT, encoding="utf-8", errors="surrogateescape") as tar:
        for path in sorted(after, key=reading):
            facts = after[path]
            if before.get(path) == facts:
                continue
            info = tarfile.TarInfo(os.fsdecode(path))
            info.mode = stat.S_IMODE(facts[0]) & 0o777
            if stat.S_ISDIR(facts[0]):
                info.type = tarfile.DIRTYPE
                tar.addfile(info)
            elif stat.S_ISLNK(facts[0]):
                info.type, info.linkname = tarfile.SYMTYPE, os.fsdecode(facts[3])
                tar.addfile(info)
            elif stat.S_ISREG(facts[0]):
                # What a script left behind may have put something else there, and files may be larger than memory.
                fd = os.open(os.path.join(prefix, path), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
                with os.fdopen(fd, "rb") as file:
                    st = os.fstat(fd)
                    if not stat.S_ISREG(st.st_mode):
                        sys.exit("burrow: files below the prefix change while they are read")
                    info.size = st.st_size
                    tar.addfile(info, file)
        for path in sorted(before):
            parent, name = os.path.split(path)
            if path not in after and (not parent or parent in after):
                tar.addfile(tarfile.TarInfo(os.fsdecode(os.path.join(parent, b".wh." + name))))

before = look()
made, failed, ran, variables = 0, [], [], {}
if job["scripts"]:
    ran = run_scripts()
if job["isCompiled"]:
    made, failed = compile_all(look() if ran else before)
if job["isActivated"]:
    variables = activate()
after = look()
report = {"compiled": made, "notCompiled": failed[:1000], "notCompiledCount": len(failed), "scripts": ran, "variables": variables}
out.write(json.dumps(report).encode() + b"\n")
out.flush()
write_tar(before, after)
out.close()
`;
