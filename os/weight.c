/* SPDX-License-Identifier: Apache-2.0 */
#include "os/weight.h"

#include "os/err.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#define EVERYBODY 1024u

int weight_to_nice(uint32_t shares)
{
	uint64_t up = EVERYBODY, down = (uint64_t)shares;
	int nice = 0;

	/* Halfway between two steps the nearer one counts: sqrt(1.25) is about 1.118. */
	for (; nice > -20 && up * 1118 / 1000 < shares; nice--)
		up = up * 5 / 4;
	for (; shares < EVERYBODY && nice < 19 && down * 1118 / 1000 < EVERYBODY; nice++)
		down = down * 5 / 4 + (down < 4);
	return nice;
}

int weight_set(int pid, uint32_t shares, struct err *err)
{
	int nice = weight_to_nice(shares), r = 0;
	char path[64];
	struct dirent *e;
	DIR *dir;

	(void)snprintf(path, sizeof(path), "/proc/%d/task", pid);
	dir = opendir(path);
	if (!dir)
		return err_set(err, -errno, "cannot find the threads of the VM's process: %s", strerror(errno));
	while ((e = readdir(dir)))
		if (e->d_name[0] != '.' && setpriority(PRIO_PROCESS, (id_t)strtoul(e->d_name, NULL, 10), nice) < 0 && errno != ESRCH)
			r = -errno;
	(void)closedir(dir);
	return r < 0 ? err_set(err, r, "cannot change the priority of the VM's process: %s%s", strerror(-r),
			       r == -EACCES || r == -EPERM ? "; only root may give a VM more than it has" : "") : 0;
}
