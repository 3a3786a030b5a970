/* SPDX-License-Identifier: Apache-2.0 */
/* What /proc says of the guest and its processes, as fields of abi/agent.h. */
#ifndef GUEST_FACTS_H
#define GUEST_FACTS_H

#include "base/frame.h"

#include <dirent.h>
#include <stdbool.h>
#include <stddef.h>

/* Adds the fields of STATS_REPLY; those that /proc does not give are left out. */
void facts_machine(struct frame_writer *writer);

struct facts_processes {
	DIR *dir;
};

/* 0, or -1 with errno; facts_close() may follow in both cases. */
int facts_open(struct facts_processes *list);
void facts_close(struct facts_processes *list);

/* Adds the fields of PROCESS for the next process of user space.  False at the end. */
bool facts_next(struct facts_processes *list, struct frame_writer *writer);

/* Value of "@name: 123 kB" in the text of /proc/meminfo in bytes; false when it is missing. */
bool facts_meminfo(const char *text, const char *name, uint64_t *ret_bytes);

/* What /proc/PID/stat says. */
struct facts_stat {
	uint32_t ppid;
	uint64_t ticks, rss_pages;
	char name[64];
};

/* False when the text is not of that form; the name may hold anything, ')' included. */
bool facts_parse_stat(const char *text, struct facts_stat *ret_stat);

#endif /* GUEST_FACTS_H */
