/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Times real programs of a Debian user space:
 *
 *   programs FOLDER SECONDS
 *
 * FOLDER holds their inputs (bench/run.py makes it), and a folder "out" for what
 * they write; the programs that run for a fixed time get SECONDS each.  Prints
 * lines `name value unit`, where unit is "s" for times by the monotonic clock and
 * otherwise that of a rate that the program measured itself, and lines
 * `check name text`, which must be the same wherever the same inputs are used.
 * Status 1 when a program failed.
 */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* Shell commands, run in FOLDER. */
struct program {
	const char *name, *unit;
	const char *warm;	/* untimed, before: reads program and inputs */
	const char *run;
	const char *check;	/* untimed, after: prints what came out, or NULL */
	double per_unit;	/* of a rate: what the program prints is in 1/per_unit of the unit */
};

/* The number behind @at, a pattern that begins openssl's line for machines: bytes or signatures a second. */
#define SPEED(at, options) \
	"openssl speed -mr -elapsed -seconds $SECONDS_EACH " options " 2>/dev/null | sed -n 's/^" at ":\\([0-9.]*\\).*/\\1/p'"
/* With what they depend on and recommend, more than a hundred packages that the root does not have. */
#define PACKAGES "build-essential clang postgresql apache2 git"

static const struct program programs[] = {
	{ "gcc", "s", "cat program.c >/dev/null; echo 'int one = 1;' >out/one.c && gcc -O2 -c -o out/one.o out/one.c",
	  "gcc -O2 -c -o out/program.o program.c", "cksum <out/program.o" },
	{ "python3", "s", "python3 -c 'import json, re'", "python3 json_regex.py >out/python", "cat out/python" },
	{ "gzip", "s", "cat data >/dev/null; echo | gzip -c >/dev/null", "gzip -c <data >out/data.gz",
	  "cksum <out/data.gz; rm out/data.gz" },
	{ "sha256sum", "s", "cat data >/dev/null; echo | sha256sum >/dev/null", "sha256sum <data >out/sum", "cat out/sum" },
	{ "sqlite3", "s", "cat rows.sql >/dev/null; sqlite3 out/none.db 'create table t(a)'", "sqlite3 out/rows.db <rows.sql",
	  "sqlite3 out/rows.db 'select count(*), sum(length(name)), round(sum(price), 2) from item; pragma integrity_check'"
	  " | tr '\\n' ' '" },
	{ "openssl-sha256", "MB/s", "openssl version >/dev/null", SPEED("+F:[0-9]*:sha256", "-bytes 8192 -evp sha256"), NULL, 1e6 },
	{ "openssl-aes-128-gcm", "MB/s", "openssl version >/dev/null",
	  SPEED("+F:[0-9]*:AES-128-GCM", "-bytes 8192 -evp aes-128-gcm"), NULL, 1e6 },
	{ "openssl-rsa2048", "sign/s", "openssl version >/dev/null", SPEED("+F2:[0-9]*:2048", "rsa2048"), NULL, 1 },
	{ "apt-get", "s", "cat /var/lib/apt/lists/*_Packages /var/lib/dpkg/status >/dev/null; apt-get --version >/dev/null",
	  "apt-get -s -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= -o Debug::NoLocking=1 install " PACKAGES
	  " >out/apt", "grep ^Inst out/apt | cksum" },
};

static double now(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/*
 * Runs @command and keeps the first line of its output, without the newline;
 * true when it succeeded.
 */
static bool run(const char *command, char *line, size_t size)
{
	char rest[512];
	FILE *p = popen(command, "r");

	if (!p)
		return false;
	if (!fgets(line, (int)size, p))
		line[0] = '\0';
	line[strcspn(line, "\n")] = '\0';
	while (fgets(rest, sizeof(rest), p))
		;
	return pclose(p) == 0;
}

static bool measure(const struct program *p)
{
	char line[256] = "";
	double value, begin, seconds;

	if (!run(p->warm, line, sizeof(line)))
		return false;
	begin = now();
	if (!run(p->run, line, sizeof(line)))
		return false;
	seconds = now() - begin;
	value = strcmp(p->unit, "s") == 0 ? seconds : strtod(line, NULL) / p->per_unit;
	if (value <= 0)
		return false;
	printf("%s %.6f %s\n", p->name, value, p->unit);
	if (p->check) {
		if (!run(p->check, line, sizeof(line)))
			return false;
		printf("check %s %s\n", p->name, line);
	}
	return true;
}

int main(int argc, char **argv)
{
	int status = 0;

	if (argc != 3 || chdir(argv[1]) < 0) {
		(void)fprintf(stderr, "usage: programs FOLDER SECONDS\n");
		return 2;
	}
	/* Nothing of the caller's environment changes what the programs do. */
	if (clearenv() != 0 || setenv("PATH", "/usr/sbin:/usr/bin:/sbin:/bin", 1) < 0 || setenv("LC_ALL", "C", 1) < 0 ||
	    setenv("HOME", "/", 1) < 0 || setenv("PYTHONHASHSEED", "0", 1) < 0 || setenv("SECONDS_EACH", argv[2], 1) < 0)
		return 2;
	for (size_t i = 0; i < sizeof(programs) / sizeof(programs[0]); i++) {
		if (!measure(&programs[i])) {
			printf("failed %s\n", programs[i].name);
			status = 1;
		}
		(void)fflush(stdout);
	}
	return status;
}
