/* SPDX-License-Identifier: Apache-2.0 */
#include "life/signame.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

int signal_by_name(const char *name)
{
	size_t digits = strspn(name, "0123456789");
	long number;

	if (digits && !name[digits] && digits < 4) {
		number = strtol(name, NULL, 10);
		return number >= 1 && number < NSIG ? (int)number : -EINVAL;
	}
	if (strncasecmp(name, "SIG", 3) == 0)
		name += 3;
	for (int s = 1; s < NSIG; s++) {
		const char *abbrev = sigabbrev_np(s);

		if (abbrev && strcasecmp(abbrev, name) == 0)
			return s;
	}
	return -EINVAL;
}
