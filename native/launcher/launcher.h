/*
 * Shared by the launcher's two files: how it speaks and ends, and what flags.c does for main().
 */
#ifndef BURROW_LAUNCHER_H
#define BURROW_LAUNCHER_H

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

/* runsc's own code for "the runtime failed, not the workload". */
#define EXIT_RUNTIME 128

#define refuse(code, ...)                                                                          \
    (fprintf(stderr, "burrow-runsc: " __VA_ARGS__), fputc('\n', stderr), exit(code))
#define fail(...) refuse(EXIT_RUNTIME, __VA_ARGS__)

/* A new string; aborts when there is no memory. */
__attribute__((format(printf, 1, 2))) char *text(const char *format, ...);
/* A variable's value; `otherwise` when it is unset or empty. */
const char *setting(const char *name, const char *otherwise);

/* What flags this runsc has: lines " name=" (takes a value) or " name" (a switch). Never NULL. */
char *flagTable(const char *runsc);
/* Reads the global flags by Go's rules. Returns the index of the subcommand, or 0. */
int readFlags(char **argv, const char *table);
bool launchesGofer(const char *word);
/* The argv for runsc: the caller's, with what Burrow needs in front of it. After readFlags. */
char **withFlags(char **argv, int argc, const char *table);

#endif
