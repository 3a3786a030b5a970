/* SPDX-License-Identifier: Apache-2.0 */
#include "os/prompt.h"

#include <errno.h>
#include <sched.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#define TURN_NS 300000u	/* of 100,000 to 100 million; others have about 3 million */

/* As the kernel has it (include/uapi/linux/sched/types.h). */
struct attributes {
	uint32_t size, policy;
	uint64_t flags;
	int32_t nice;
	uint32_t priority;
	uint64_t runtime, deadline, period;
};

void prompt_set(bool prompt)
{
	struct attributes a = { .size = sizeof(a), .policy = SCHED_OTHER, .runtime = prompt ? TURN_NS : 0 };
	int saved = errno;

	errno = 0;
	a.nice = getpriority(PRIO_PROCESS, 0);	/* it is set anew */
	if (errno == 0 && sched_getscheduler(0) == SCHED_OTHER)
		(void)syscall(SYS_sched_setattr, 0, &a, 0);
	errno = saved;
}
