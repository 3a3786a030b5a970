/* SPDX-License-Identifier: Apache-2.0 */
/* roux doctor: what works on this host, what does not, and what to do about it. */
#include "cli/cli.h"

#include "build/kernel.h"
#include "build/kernel_built.h"
#include "machine/engines.h"
#include "os/cgroup.h"
#include "os/err.h"
#include "os/file.h"
#include "os/jail.h"
#include "os/memory.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <netinet/in.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define FILES_WANTED 4096u
#define CACHE_WANTED (2ull << 30)	/* bytes */

struct report {
	bool json, first, bad;
};

/* One finding.  @status: "ok", "warning", "problem"; @todo may be NULL. */
static void tell(struct report *rep, const char *what, const char *status, const char *detail, const char *todo)
{
	if (rep->json) {
		(void)printf("%s\n  {\"check\": \"%s\", \"status\": \"%s\", \"detail\": \"", rep->first ? "" : ",", what, status);
		for (const char *p = detail; *p; p++)
			(void)printf(*p == '"' || *p == '\\' ? "\\%c" : "%c", *p);
		(void)printf("\"");
		if (todo) {
			(void)printf(", \"todo\": \"");
			for (const char *p = todo; *p; p++)
				(void)printf(*p == '"' || *p == '\\' ? "\\%c" : "%c", *p);
			(void)printf("\"");
		}
		(void)printf("}");
		rep->first = false;
		return;
	}
	(void)printf("%-8s %-12s %s\n", status, what, detail);
	if (todo)
		(void)printf("%-8s %-12s -> %s\n", "", "", todo);
}

static void check_engines(struct report *rep)
{
	const struct engine_ops *chosen;
	struct err err = { 0 };
	char text[300];

	for (unsigned i = 0; engines[i]; i++) {
		char name[24];
		int r;

		err.msg[0] = '\0';
		r = engines[i]->probe(&err);
		(void)snprintf(name, sizeof(name), "engine %s", engines[i]->name);
		if (r == 0)
			tell(rep, name, "ok", "the probe guest ran", NULL);
		else
			tell(rep, name, "warning", err.msg[0] ? err.msg : strerror(-r),
			     strcmp(engines[i]->name, "kvm") == 0 ?
			     "nothing needed: the dbt engine runs guests without it" : NULL);
	}
	if (engine_choose(NULL, &chosen, &err) == 0) {
		(void)snprintf(text, sizeof(text), "--engine auto takes %s", chosen->name);
		tell(rep, "engine", "ok", text, NULL);
	} else {
		tell(rep, "engine", "problem", err.msg, "run roux on an x86-64 host with Linux 5.9 or newer");
		rep->bad = true;
	}
}

static void check_kernel(struct report *rep)
{
	struct kernel_package package;
	struct err err = { 0 };
	char text[512], built[PATH_MAX];

	if (kernel_built_current(built, NULL) == 0) {
		(void)snprintf(text, sizeof(text), "built by 'roux kernel build' (%.400s)", built);
		tell(rep, "kernel", "ok", text, NULL);
	} else if (kernel_package_get(false, NULL, &package, &err) == 0) {
		(void)snprintf(text, sizeof(text), "%.128s (%.300s)", package.release, package.vmlinuz);
		tell(rep, "kernel", "ok", text, NULL);
	} else {
		tell(rep, "kernel", "problem", err.msg, "give one with 'roux run --kernel FILE'");
		rep->bad = true;
	}
}

static void check_jail(struct report *rep)
{
	struct err err = { 0 };

	if (jail_probe(&err) == 0)
		tell(rep, "jail", "ok", "each VM has namespaces and a root of its own", NULL);
	else
		tell(rep, "jail", "warning", err.msg,
		     "VMs run with fewer walls: system call lists and limits; allow user namespaces for the rest");
}

static void check_limits_of_vms(struct report *rep)
{
	static const char *const can[] = { "", "memory", "processes", "memory and processes", "CPU", "memory and CPU",
					   "processes and CPU", "memory, processes and CPU" };
	struct cgroup *group;
	struct err err = { 0 };
	char text[96];
	int r = cgroup_create(&(struct cgroup_limits){ 0 }, &group, &err);

	if (r < 0) {
		tell(rep, "cgroups", "warning", err.msg,
		     "nothing needed: VMs run without; under systemd: start roux with systemd-run --user --scope");
		return;
	}
	cgroup_destroy(group);
	(void)snprintf(text, sizeof(text), "each VM has a group with limits of %s", can[r & 7]);
	tell(rep, "cgroups", "ok", text, NULL);
}

/* Echo requests leave by sockets that not everybody may make (icmp(7)). */
static void check_ping(struct report *rep)
{
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, IPPROTO_ICMP);

	if (fd >= 0)
		(void)close(fd);
	tell(rep, "ping", fd >= 0 ? "ok" : "warning", fd >= 0 ? "guests may ping the outside" : "guests cannot ping the outside",
	     fd >= 0 ? NULL : "have root put your group into sysctl net.ipv4.ping_group_range");
}

static void check_limits(struct report *rep)
{
	struct rlimit files;
	char cache[PATH_MAX], text[PATH_MAX + 64];
	struct statvfs fs;
	struct err err = { 0 };

	if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
		(void)snprintf(text, sizeof(text), "%llu open files allowed", (unsigned long long)files.rlim_max);
		tell(rep, "limits", files.rlim_max >= FILES_WANTED ? "ok" : "warning", text,
		     files.rlim_max >= FILES_WANTED ? NULL : "raise the hard limit of open files (ulimit -Hn) to 4096 or more");
	}
	if (file_cache_dir("", cache, &err) < 0) {
		tell(rep, "cache", "problem", err.msg, "set ROUX_CACHE to a folder you may write");
		rep->bad = true;
	} else if (statvfs(cache, &fs) == 0) {
		unsigned long long left = (unsigned long long)fs.f_bavail * fs.f_frsize;

		(void)snprintf(text, sizeof(text), "%s has %llu MiB free", cache, left >> 20);
		tell(rep, "cache", left >= CACHE_WANTED ? "ok" : "warning", text,
		     left >= CACHE_WANTED ? NULL : "free some space, or set ROUX_CACHE to a folder with more");
	}
	tell(rep, "merging", "ok", memory_merges() ? "machines with --merge-memory share pages that are the same" :
	     "KSM is off: --merge-memory has no effect until root has run 'echo 1 >/sys/kernel/mm/ksm/run'", NULL);
	(void)snprintf(text, sizeof(text), "running as %s", geteuid() == 0 ? "root" : "an ordinary user");
	tell(rep, "user", "ok", text, NULL);
}

int verb_doctor(int argc, char **argv)
{
	struct report rep = { .first = true };

	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--json") == 0) {
			rep.json = true;
		} else if (strcmp(argv[i], "--help") == 0) {
			(void)puts("Usage: roux doctor [--json]\n\n"
				   "Tells which engines work here and why, which kernel guests get, and limits.\n"
				   "Exit status 1 when something keeps roux from running guests.\n\n"
				   "      --json                Print the findings as JSON");
			return 0;
		} else {
			return complain(EXIT_ROUX, "doctor does not know '%s'; see 'roux doctor --help'", argv[i]);
		}
	}
	if (rep.json)
		(void)printf("[");
	check_engines(&rep);
	check_kernel(&rep);
	check_jail(&rep);
	check_limits_of_vms(&rep);
	check_ping(&rep);
	check_limits(&rep);
	if (rep.json)
		(void)printf("\n]\n");
	return rep.bad ? 1 : 0;
}
