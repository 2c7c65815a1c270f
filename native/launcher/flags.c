/*
 * The flags of a runsc: which it has, which of them a command line gives, and those that Burrow needs.
 *
 * Parses what `runsc flags` prints and the launcher's own argv, nothing else. What a runsc has is kept
 * in a file of the launcher's, by the identity of its image, since asking takes about 20 ms.
 */
#define _GNU_SOURCE 1
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "launcher.h"

/* `runsc flags` of 2024 prints about 9 KB; past this it isn't a runsc. */
#define FLAGS_MAX (256 * 1024)

/* ---- what flags this runsc has --------------------------------------------------------------- */

/* The output of `runsc flags`; Go's flag package prints "  -name [type]\n    \tusage" each. */
static char *askFlags(const char *runsc) {
    char *listing = calloc(1, FLAGS_MAX);
    setenv("BURROW_RUNSC", runsc, 1); /* its path may hold anything: not for a shell to parse */
    FILE *out = popen("exec \"$BURROW_RUNSC\" flags 2>&1 </dev/null", "re"); /* both print to stderr */
    if (listing && out)
        listing[fread(listing, 1, FLAGS_MAX - 1, out)] = 0;
    if (out)
        pclose(out);
    return listing;
}

/* Reduces a listing to lines " name=" (takes a value) or " name" (a switch), each ended by \n. */
static char *reduceFlags(const char *listing) {
    char *table = calloc(1, strlen(listing) + 4), *to = table;
    if (!table)
        return NULL;
    for (const char *line = listing; *line; line = strchrnul(line, '\n'), line += *line == '\n') {
        if (strncmp(line, "  -", 3) != 0)
            continue;
        const char *name = line + 3;
        size_t length = strcspn(name, " \t\n");
        /* A switch has no type word; net-raw is one whose usage text quotes a word as if it were. */
        bool hasValue = name[length] == ' ' && strncmp(name, "net-raw ", 8) != 0;
        to += sprintf(to, " %.*s%s\n", (int)length, name, hasValue ? "=" : "");
    }
    return table;
}

static bool tableHas(const char *table, const char *name, bool *hasValue) {
    char key[128];
    if ((size_t)snprintf(key, sizeof key, " %s", name) >= sizeof key)
        return false;
    for (const char *at = table; (at = strstr(at, key)); at++) {
        const char *end = at + strlen(key);
        if (*end == '=' || *end == '\n') {
            if (hasValue)
                *hasValue = *end == '=';
            return true;
        }
    }
    return false;
}

/* Its directory is $BURROW_STATE/launcher. A cache that can't be read or written is just not used. */
char *flagTable(const char *runsc) {
    static const char magic[] = "burrow-runsc flags 1\n";
    const char *state = setting("BURROW_STATE", "/var/lib/burrow");
    struct stat st = {0}, held;
    stat(runsc, &st);
    char *dir = text("%s/launcher", state);
    char *path = text("%s/flags-%lx-%lx-%lx-%lx.%09lx", dir, (long)st.st_dev, (long)st.st_ino,
                      (long)st.st_size, (long)st.st_mtim.tv_sec, (long)st.st_mtim.tv_nsec);
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd >= 0) {
        char *table = calloc(1, FLAGS_MAX);
        /* Whoever could write this file could choose runsc's flags: only our own is believed. */
        bool isOurs = fstat(fd, &held) == 0 && S_ISREG(held.st_mode) && held.st_uid == geteuid() &&
                      !(held.st_mode & 022);
        ssize_t n = isOurs && table ? read(fd, table, FLAGS_MAX - 1) : -1;
        close(fd);
        if (n > 0 && strncmp(table, magic, strlen(magic)) == 0)
            return table;
        free(table);
    }
    char *listing = askFlags(runsc);
    char *table = listing ? reduceFlags(listing) : NULL;
    if (!table || !tableHas(table, "root", NULL) || !tableHas(table, "platform", NULL))
        fail("%s doesn't list its flags (`runsc flags`): is it a runsc, and does it run here?\n"
             "  Point BURROW_RUNSC at a working runsc.", runsc);
    mkdir(state, 0755);
    mkdir(dir, 0755);
    char *aside = text("%s.%d", path, getpid()), *whole = text("%s%s", magic, table);
    fd = open(aside, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0644);
    if (fd >= 0) {
        bool isWhole = write(fd, whole, strlen(whole)) == (ssize_t)strlen(whole);
        if (close(fd) != 0 || !isWhole || rename(aside, path) != 0)
            unlink(aside);
    }
    return table;
}

/* ---- reading and adding flags ---------------------------------------------------------------- */

enum { DIRECTFS, OVERLAY, DCACHE, WANTED };
static struct { const char *name, *value, *given; } wanted[WANTED] = {
    {"directfs", "false", NULL}, /* else the sentry wants host directories: section 5 */
    {"overlay2", "none", NULL},  /* else a filestore is made in the root's source: 4 */
    {"dcache", "100000", NULL},  /* default 1000 a mount; an import takes 10^4 names */
};

int readFlags(char **argv, const char *table) {
    for (int i = 1; argv[i]; i++) {
        if (strcmp(argv[i], "--") == 0)
            return argv[i + 1] ? i + 1 : 0;
        if (argv[i][0] != '-' || !argv[i][1])
            return i;
        const char *name = argv[i] + (argv[i][1] == '-' ? 2 : 1), *value = strchr(name, '=');
        size_t length = strcspn(name, "=");
        bool hasValue = false;
        if (value)
            value++;
        else if (tableHas(table, name, &hasValue) && hasValue && argv[i + 1])
            value = argv[++i];
        else
            value = "true";
        for (int w = 0; w < WANTED; w++) /* the last one counts */
            if (strncmp(name, wanted[w].name, length) == 0 && !wanted[w].name[length])
                wanted[w].given = value;
    }
    return 0;
}

bool launchesGofer(const char *word) {
    return !strcmp(word, "run") || !strcmp(word, "create") || !strcmp(word, "start") ||
           !strcmp(word, "restore") || !strcmp(word, "do");
}

char **withFlags(char **argv, int argc, const char *table) {
    const char *directfs = wanted[DIRECTFS].given, *overlay = wanted[OVERLAY].given;
    bool hasDirectfs = tableHas(table, "directfs", NULL); /* 2024 or later */
    if (directfs && !hasDirectfs)
        refuse(1, "--directfs=%s: this runsc has no directfs (2023 and later have it).\n"
               "  Leave it out, or point BURROW_RUNSC at a newer runsc.", directfs);
    if (overlay && (!strncmp(overlay, "root:self", 9) || !strncmp(overlay, "all:self", 8)))
        refuse(1, "--overlay2=%s can't work. Its filestore is a file in the mount's source, and\n"
               "  what Burrow serves has no directory to put it in, so its mount would be refused.\n"
               "  Leave it out, or say --overlay2=root:memory, root:dir=/PATH or none.", overlay);
    char **out = calloc((size_t)argc + WANTED + 1, sizeof *out);
    if (!out)
        abort();
    int n = 0;
    out[n++] = argv[0];
    for (int w = 0; w < WANTED; w++)
        /* 2022 has overlay2 too, but none is its default. */
        if (!wanted[w].given && tableHas(table, wanted[w].name, NULL) && (w != OVERLAY || hasDirectfs))
            out[n++] = text("--%s=%s", wanted[w].name, wanted[w].value);
    memcpy(out + n, argv + 1, (size_t)argc * sizeof *argv); /* with the NULL */
    return out;
}
