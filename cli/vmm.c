/* SPDX-License-Identifier: Apache-2.0 */
/*
 * roux vmm: the process of one VM, started by libroux with its control socket
 * as descriptor 3.  Not for people.
 */
#include "cli/cli.h"

#include "machine/process.h"
#include "os/file.h"
#include "os/jail.h"
#include "os/log.h"

#include <fcntl.h>
#include <limits.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>

#define CONTROL_FD 3

static void log_line(void *ctx, enum log_level level, const char *module, const char *msg)
{
	(void)ctx;
	(void)level;
	(void)fprintf(stderr, "roux: %s: %s\n", module, msg);
}

int verb_vmm(int argc, char **argv)
{
	struct rlimit files;
	char cache[PATH_MAX];
	int type;
	socklen_t len = sizeof(type);

	(void)argv;
	if (argc != 1 || getsockopt(CONTROL_FD, SOL_SOCKET, SO_TYPE, &type, &len) < 0 || type != SOCK_SEQPACKET)
		return complain(EXIT_ROUX, "vmm is started by roux itself; use 'roux run'");
	(void)fcntl(CONTROL_FD, F_SETFD, FD_CLOEXEC);
	jail_close_from(CONTROL_FD + 1);	/* what the owner's program forgot to mark close-on-exec */
	(void)prctl(PR_SET_NAME, "roux-helper");
	(void)signal(SIGPIPE, SIG_IGN);
	/* One heap: others take 64 MiB of addresses each, and shrink by a look into /proc, which a jail has not. */
	(void)mallopt(M_ARENA_MAX, 1);
	/* What calloc() takes from the end of the heap it clears, and so touches, unless the heap grows for it. */
	(void)mallopt(M_TOP_PAD, 0);
	/* Shared folders hold a descriptor for each file the guest knows. */
	if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
		files.rlim_cur = files.rlim_max;
		(void)setrlimit(RLIMIT_NOFILE, &files);
	}
	if (getenv("ROUX_DEBUG"))
		log_set_sink(log_line, NULL, LOG_LEVEL_DEBUG);
	return machine_process_jailed(CONTROL_FD, file_cache_dir("kernels", cache, NULL) == 0 ? cache : NULL);
}
