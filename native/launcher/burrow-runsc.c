/*
 * burrow-runsc: runs a stock runsc and puts burrow-stub in the place of its gofer.
 *
 * Owns: the choice of runsc, the checks that can be made before anything is started, and the
 * replacement of one exec under ptrace; flags.c owns what is read of a command line and added to it.
 * Assumes: amd64 Linux. Nothing of it lives on once the sandbox runs.
 *
 * The process that was called becomes runsc, so pid, exit code, signals, terminal and pid files stay
 * as they would be. A helper, forked twice so that runsc has no child it doesn't know, seizes it
 * before the exec, follows it to the exec of "runsc-gofer" (gofer-launch: section 8, method A),
 * turns that image's first instructions into an execve of the stub and exits, which lets go of all.
 */
#define _GNU_SOURCE 1
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include "launcher.h"

#ifndef __x86_64__
#error "burrow-runsc replaces an exec with amd64 instructions; other architectures aren't supported"
#endif

#define VERSION "0.1.0"
static char *ownDir, *rootDir; /* where this program is; the project, two directories above that */

char *text(const char *format, ...) {
    char *out = NULL;
    va_list args;
    va_start(args, format);
    if (vasprintf(&out, format, args) < 0)
        abort();
    va_end(args);
    return out;
}

const char *setting(const char *name, const char *otherwise) {
    const char *value = getenv(name);
    return value && *value ? value : otherwise;
}

/* ---- finding programs ------------------------------------------------------------------------ */

static bool isProgram(const char *path) {
    struct stat st;
    return stat(path, &st) == 0 && S_ISREG(st.st_mode) && access(path, X_OK) == 0;
}

/* The absolute path of `name` in PATH, or NULL. This very program is never the answer. */
static char *inPath(const char *name) {
    struct stat self, st;
    char *list = strdup(setting("PATH", "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"));
    if (!list || stat("/proc/self/exe", &self) != 0)
        return NULL;
    for (char *rest = list, *dir; (dir = strsep(&rest, ":"));) {
        char *path = text("%s/%s", *dir ? dir : ".", name);
        bool isSelf = stat(path, &st) == 0 && st.st_dev == self.st_dev && st.st_ino == self.st_ino;
        char *absolute = !isSelf && isProgram(path) ? realpath(path, NULL) : NULL;
        free(path);
        if (absolute)
            return absolute;
    }
    return NULL;
}

/* A program by the variable that names it, else at `otherwise`, else (if that is NULL) in PATH. */
static char *findProgram(const char *variable, const char *name, char *otherwise, const char *next) {
    const char *named = setting(variable, otherwise);
    char *path = named ? realpath(named, NULL) : inPath(name);
    if (!path && named)
        fail("%s isn't at %s: %s.\n  %s", name, named, strerror(errno), next);
    if (!path)
        fail("%s isn't in PATH.\n  %s", name, next);
    if (!isProgram(path))
        fail("%s can't be run: %s isn't an executable file.\n  %s", name, path, next);
    return path;
}

static void findSelf(void) {
    char path[PATH_MAX];
    ssize_t length = readlink("/proc/self/exe", path, sizeof path - 1);
    if (length <= 0)
        fail("/proc isn't mounted, or hides this process: it is needed to find Burrow's own files.");
    path[length] = 0;
    for (int up = 0; up < 3; up++) { /* ROOT/build/native/burrow-runsc */
        char *slash = strrchr(path, '/');
        if (slash)
            *slash = 0;
        if (up == 0)
            ownDir = text("%s", path);
    }
    rootDir = text("%s", path);
}

/* ---- daemon on demand ------------------------------------------------------------------------ */

/* Holds nothing of the caller's: a pipe held open here would keep its reader waiting. */
static void letGoOfFds(void) {
    int null = open("/dev/null", O_RDWR);
    for (int fd = 0; fd < 3 && null >= 0; fd++)
        dup2(null, fd);
    syscall(SYS_close_range, 3U, ~0U, 0U);
}

/* In the helper, which isn't traced and whose child init takes over. Doesn't wait for the daemon. */
static void startDaemon(const char *node) {
    const char *cache = setting("BURROW_CACHE", "/var/cache/burrow");
    char *program = text("%s/dist/burrow.cjs", rootDir);
    if (strcmp(setting("BURROW_NO_DAEMON", ""), "1") == 0 || access(program, R_OK) != 0)
        return;
    /* A socket's path is bounded to 108 bytes, the cache's isn't: go through the directory's FD. */
    int dir = open(cache, O_PATH | O_DIRECTORY | O_CLOEXEC);
    int sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "/proc/self/fd/%d/daemon.sock", dir);
    bool isUp = connect(sock, (struct sockaddr *)&address, sizeof address) == 0 || errno == EAGAIN;
    close(dir);
    close(sock);
    if (!isUp && fork() == 0) {
        setsid();
        execl(node, node, program, "daemon", "start", "--cache", cache, (char *)NULL);
        _exit(127);
    }
}

/* ---- the helper: follow runsc to its gofer --------------------------------------------------- */

static bool peek(pid_t pid, uint64_t at, void *word) {
    errno = 0;
    long value = ptrace(PTRACE_PEEKDATA, pid, (void *)at, NULL);
    memcpy(word, &value, 8);
    return errno == 0;
}

static bool poke(pid_t pid, uint64_t at, const void *words, size_t length) {
    uint64_t word;
    for (size_t done = 0; done < length; done += 8) {
        memcpy(&word, (const char *)words + done, 8);
        if (ptrace(PTRACE_POKEDATA, pid, (void *)(at + done), (void *)word) != 0)
            return false;
    }
    return true;
}

/* argv[0] of an image that was just exec'd: its stack is argc, argv..., NULL, envp..., NULL. */
static bool newImageName(pid_t pid, struct user_regs_struct *regs, char name[33]) {
    uint64_t argv0;
    memset(name, 0, 33);
    if (ptrace(PTRACE_GETREGS, pid, NULL, regs) != 0 || regs->cs != 0x33 || /* 64-bit code only */
        !peek(pid, regs->rsp + 8, &argv0))
        return false;
    for (int at = 0; at < 32 && strlen(name) == (size_t)at && peek(pid, argv0 + at, name + at); at += 8)
        ;
    return true;
}

/*
 * Makes the stopped image exec `path` with its own argv and envp. The code is put at the entry point
 * (a private mapping: the file isn't touched) and loads eax itself, since the return value of the
 * execve that is just ending would overwrite what SETREGS puts there (feasibility).
 */
static bool replaceImage(pid_t pid, struct user_regs_struct *regs, const char *path) {
    static const uint8_t code[24] = {
        0xb8, 0x3b, 0x00, 0x00, 0x00, /* mov eax, 59 (execve) */
        0x0f, 0x05,                   /* syscall: comes back only if it failed */
        0xbf, 0x7f, 0x00, 0x00, 0x00, /* mov edi, 127 */
        0xb8, 0xe7, 0x00, 0x00, 0x00, /* mov eax, 231 (exit_group) */
        0x0f, 0x05,                   /* syscall */
    };
    char words[PATH_MAX + 8] = {0}; /* poke writes whole words */
    size_t length = strlen(strncpy(words, path, PATH_MAX - 1)) + 1;
    uint64_t argc, at = (regs->rsp - 256 - length) & ~15ULL; /* below the new stack's red zone */
    if (!peek(pid, regs->rsp, &argc) || !poke(pid, at, words, length) ||
        !poke(pid, regs->rip, code, sizeof code))
        return false;
    regs->rdi = at;
    regs->rsi = regs->rsp + 8;
    regs->rdx = regs->rsp + 8 + (argc + 1) * 8;
    regs->orig_rax = (unsigned long long)-1; /* no syscall to restart */
    return ptrace(PTRACE_SETREGS, pid, NULL, regs) == 0;
}

/*
 * Returns when nothing is left to follow. The caller's exit lets go of every tracee at once: a seized
 * task resumes with nothing pending (man ptrace, "If the tracer dies"; PTRACE_O_EXITKILL isn't set).
 */
static void follow(pid_t runsc, const char *stub) {
    int status;
    for (pid_t pid; (pid = waitpid(-1, &status, __WALL)) > 0 || errno == EINTR;) {
        if (pid <= 0)
            continue;
        if (!WIFSTOPPED(status)) {
            if (pid == runsc)
                return; /* it ended; its gofer, if there was to be one, will not come */
            continue;
        }
        int event = status >> 16, sig = WSTOPSIG(status);
        if (event == PTRACE_EVENT_EXEC) {
            struct user_regs_struct regs;
            char name[33];
            bool isKnown = newImageName(pid, &regs, name);
            const char *base = strrchr(name, '/') ? strrchr(name, '/') + 1 : name;
            if (isKnown && strcmp(base, "runsc-gofer") == 0) {
                if (!replaceImage(pid, &regs, stub))
                    kill(pid, SIGKILL); /* runsc reports it; the stock gofer must not serve instead */
                ptrace(PTRACE_DETACH, pid, NULL, NULL);
                return;
            }
            /* The sandbox traces children of its own: it must not be ours when it starts. */
            if (isKnown && (strncmp(base, "runsc-sandbox", 13) == 0 ||
                            strncmp(base, "gvisor_sentry", 13) == 0 ||
                            strncmp(base, "gvisor-sentry", 13) == 0)) {
                ptrace(PTRACE_DETACH, pid, NULL, NULL);
                continue;
            }
            sig = 0;
        } else if (event == PTRACE_EVENT_STOP) {
            /* A group stop (^Z) stays one; a new task's first stop and others just go on. */
            bool isGroup = sig == SIGSTOP || sig == SIGTSTP || sig == SIGTTIN || sig == SIGTTOU;
            if (isGroup && ptrace(PTRACE_LISTEN, pid, NULL, NULL) == 0)
                continue;
            sig = 0;
        } else if (event)
            sig = 0;
        ptrace(PTRACE_CONT, pid, NULL, (void *)(long)sig);
    }
}

/* In the helper: seize, report 0 or an errno, follow. */
static void helper(pid_t runsc, const char *stub, const char *node, int talk) {
    int self = getpid(), go = 0, error = 0;
    setsid();
    signal(SIGPIPE, SIG_IGN);
    if (write(talk, &self, sizeof self) != sizeof self || read(talk, &go, sizeof go) != sizeof go)
        _exit(0);
    if (ptrace(PTRACE_SEIZE, runsc, NULL, PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK |
                                              PTRACE_O_TRACECLONE | PTRACE_O_TRACEEXEC) != 0)
        error = errno;
    if (write(talk, &error, sizeof error) != sizeof error || error)
        _exit(0);
    letGoOfFds();
    startDaemon(node); /* before chdir: its settings may be relative */
    if (chdir("/") != 0)
        _exit(0);
    follow(runsc, stub);
    _exit(0);
}

/* The text after "NAME:\t" in our own status, or in a one-line file; "" if there is none. */
static char *fact(const char *path, const char *name) {
    static char line[128];
    FILE *file = fopen(path, "re");
    while (file && fgets(line, sizeof line, file))
        if (strncmp(line, name, strlen(name)) == 0)
            return text("%.*s", (int)strcspn(line + strlen(name), "\n"), line + strlen(name));
    return "";
}

static void explainRefusal(int error) {
    char *tracer = fact("/proc/self/status", "TracerPid:\t");
    char *scope = fact("/proc/sys/kernel/yama/ptrace_scope", "");
    const char *cause = "the kernel or a security module (SELinux, AppArmor) forbids it";
    const char *next = "Look for a denial in the kernel's log (dmesg) or the audit log.";
    if (*tracer > '0') {
        cause = text("process %s traces it already (strace, gdb?)", tracer);
        next = "Start it without that tracer.";
    } else if (*fact("/proc/self/status", "Seccomp:\t") == '2') {
        cause = *fact("/proc/self/status", "NoNewPrivs:\t") == '1'
                    ? "a seccomp filter is on this process (and no_new_privs), as in containers"
                    : "a seccomp filter is on this process, as in containers";
        next = "Run it outside that container, or allow ptrace there (docker: --cap-add SYS_PTRACE).";
    } else if (*scope >= '2') {
        cause = text("kernel.yama.ptrace_scope is %s", scope);
        next = "Run it as root (CAP_SYS_PTRACE), or set that to 1 or 0; from 3 it takes a reboot.";
    }
    fail("ptrace is refused (%s): %s.\n"
         "  It is needed for some milliseconds, to put Burrow's gofer in place of runsc's.\n  %s",
         strerror(error), cause, next);
}

/* On return this process is followed by a helper and has no child that it would have to know of. */
static void startHelper(const char *stub, const char *node) {
    int talk[2], number = 0, error = EIO;
    pid_t runsc = getpid(), middle = -1;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, talk) != 0 || (middle = fork()) < 0)
        fail("no helper process: %s.", strerror(errno));
    if (middle == 0) {
        close(talk[0]);
        pid_t last = fork();
        if (last == 0)
            helper(runsc, stub, node, talk[1]);
        _exit(last < 0);
    }
    close(talk[1]);
    TEMP_FAILURE_RETRY(waitpid(middle, NULL, 0));
    /* Yama's scope 1 lets only ancestors trace; the helper has become a stranger by its double fork. */
    if (read(talk[0], &number, sizeof number) == sizeof number) {
        prctl(PR_SET_PTRACER, (unsigned long)number, 0, 0, 0);
        if (write(talk[0], &number, sizeof number) != sizeof number ||
            read(talk[0], &error, sizeof error) != sizeof error)
            error = EIO;
    }
    close(talk[0]);
    if (error == EIO)
        fail("the helper process died at once; is memory or a pid limit short?");
    if (error)
        explainRefusal(error);
}

/* Dies with the process that BURROW_PARENT names: who is killed can't end its sandbox itself. */
static void dieWithParent(void) {
    const char *parent = setting("BURROW_PARENT", NULL);
    unsetenv("BURROW_PARENT"); /* it is for this process alone */
    if (!parent)
        return;
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0)
        fail("can't be told of its parent's end: %s.", strerror(errno));
    if (getppid() != atoi(parent)) /* it ended before; nobody would tell */
        fail("started by process %d, not by %s as BURROW_PARENT says.", getppid(), parent);
}

/* ---- main ------------------------------------------------------------------------------------ */

static const char help[] =
    "burrow-runsc: runs a stock runsc with Burrow's gofer in place of its own.\n\n"
    "  burrow-runsc ARGS...    as `runsc ARGS...`; for docker --runtime, containerd, or by hand\n"
    "  burrow-runsc --burrow-help | --burrow-version\n\n"
    "Commands run, create, start, restore and do get the gofer replaced, by ptrace during start only;\n"
    "all others go to runsc untouched. Where this runsc has them and they aren't given, it adds\n"
    "--directfs=false --overlay2=none --dcache=100000.\n\n"
    "  BURROW_RUNSC      the runsc to run                 (runsc in PATH)\n"
    "  BURROW_STUB       what is started as the gofer     (burrow-stub beside this program)\n"
    "  BURROW_NODE       node, 20 or newer                (node in PATH)\n"
    "  BURROW_NODE_FLAGS more flags for node, split at spaces\n"
    "  BURROW_GOFER      the server program               (dist/gofer.cjs of the project)\n"
    "  BURROW_STATE      mounts, the launcher's cache     (/var/lib/burrow)\n"
    "  BURROW_CACHE      blobs, the daemon's socket       (/var/cache/burrow)\n"
    "  BURROW_STANDBYS   where servers wait               (standby in the cache; empty: none)\n"
    "  BURROW_NO_DAEMON  1: don't start a daemon when none runs\n"
    "  BURROW_SHARED     1: share a server with sandboxes of the same BURROW_TENANT (docs/daemon.md)\n"
    "  BURROW_PARENT     a pid, the caller's: die when it does\n"
    "  BURROW_LOG        a file for the gofer's standard error (else what runsc gives: /dev/null)\n"
    "  BURROW_HARDEN     on; log: calls that its filter would end the gofer for pass, logged; off";

int main(int argc, char **argv) {
    if (argc == 2 && strcmp(argv[1], "--burrow-help") == 0)
        return puts(help) < 0;
    if (argc == 2 && strcmp(argv[1], "--burrow-version") == 0)
        return puts("burrow-runsc " VERSION) < 0;
    char *runsc = findProgram("BURROW_RUNSC", "runsc", NULL,
                              "Install gVisor's runsc (apt install runsc), or set BURROW_RUNSC.");
    argv[0] = runsc;

    /* Only a command line with such a word in it can be for us; the flag table tells if it is. */
    bool isCandidate = false;
    for (int i = 1; i < argc; i++)
        isCandidate = isCandidate || launchesGofer(argv[i]);
    char *table = isCandidate ? flagTable(runsc) : "";
    int command = isCandidate ? readFlags(argv, table) : 0;
    if (command && launchesGofer(argv[command])) {
        const char *build = "Build Burrow (npm run build), or set BURROW_";
        char **added = withFlags(argv, argc, table);
        findSelf();
        char *stub = findProgram("BURROW_STUB", "burrow-stub", text("%s/burrow-stub", ownDir),
                                 text("%sSTUB to its path.", build));
        char *node = findProgram("BURROW_NODE", "node", NULL,
                                 "Install Node.js 20 or newer, or set BURROW_NODE to its path.");
        const char *named = setting("BURROW_GOFER", text("%s/dist/gofer.cjs", rootDir));
        char *gofer = realpath(named, NULL);
        if (!gofer || access(gofer, R_OK) != 0)
            fail("the server program isn't at %s: %s.\n  %sGOFER to its path.", named,
                 strerror(errno), build);
        if (setenv("BURROW_NODE", node, 1) != 0 || setenv("BURROW_GOFER", gofer, 1) != 0 ||
            setenv("BURROW_STDERR", text("/proc/%d/fd/2", getpid()), 1) != 0)
            abort();
        char *cache = realpath(setting("BURROW_CACHE", "/var/cache/burrow"), NULL);
        if (cache && setenv("BURROW_STANDBYS", text("%s/standby", cache), 0) != 0)
            abort();
        dieWithParent();
        startHelper(stub, node);
        argv = added;
    }
    execv(runsc, argv);
    fail("%s can't be run: %s.", runsc, strerror(errno));
}
