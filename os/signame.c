/* SPDX-License-Identifier: Apache-2.0 */
#include "os/signame.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* A number of at most three digits and nothing else; -EINVAL. */
static int number(const char *s)
{
	size_t digits = strspn(s, "0123456789");

	return digits >= 1 && digits <= 3 && !s[digits] ? (int)strtol(s, NULL, 10) : -EINVAL;
}

/* @distance from an end of the real-time signals, which is there and a signal, or -EINVAL. */
static int real_time(int end, int sign, const char *distance)
{
	int n = number(distance), signo = end + sign * n;

	return n >= 0 && signo >= SIGRTMIN && signo <= SIGRTMAX ? signo : -EINVAL;
}

int signal_by_name(const char *name)
{
	int n = number(name);

	if (n >= 0)
		return n >= 1 && n < NSIG ? n : -EINVAL;
	if (strncasecmp(name, "SIG", 3) == 0)
		name += 3;
	for (int s = 1; s < NSIG; s++) {
		const char *abbrev = sigabbrev_np(s);

		if (abbrev && strcasecmp(abbrev, name) == 0)
			return s;
	}
	if (strncasecmp(name, "RTMIN", 5) == 0)
		return name[5] == '+' ? real_time(SIGRTMIN, 1, name + 6) : name[5] ? -EINVAL : SIGRTMIN;
	if (strncasecmp(name, "RTMAX", 5) == 0)
		return name[5] == '-' ? real_time(SIGRTMAX, -1, name + 6) : name[5] ? -EINVAL : SIGRTMAX;
	return -EINVAL;
}
