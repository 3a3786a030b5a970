/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What happened to this user's VMs, as lines of JSON that all processes append to:
 *
 *   DATA/events/log, log.1    the last EVENTS_MAX bytes or more, the older ones in log.1
 *
 * A line is written by one write(2) to a file opened for appending, so that lines never
 * mix; a line that a kill cut short is skipped by readers.
 */
#ifndef LIFE_EVENTS_H
#define LIFE_EVENTS_H

#include "life/vms.h"

#define EVENTS_MAX (1u << 20)	/* bytes of a file */
#define EVENT_LINE_MAX 4096u	/* bytes of a line */

struct event {
	int64_t time_ns;	/* since 1970 */
	char action[32];	/* "start" */
	char detail[160];	/* exit status, new name, health; "" for none */
	char id[VM_ID_SIZE], name[VM_NAME_MAX];
	char image[256];	/* cut off when it is longer */
};

/* Appends; an event that cannot be written is lost. */
void events_add(const struct vms *vms, const struct vm_record *record, const char *action, const char *detail);

/* Parses a line without its newline.  False when it is damaged. */
bool event_parse(const char *line, size_t len, struct event *ret_event);

/* Reads lines of both files, the older ones first, and goes on where it was when there are more. */
struct events_reader {
	char folder[PATH_MAX];
	int fd;	/* of log, or of log.1 while that is read; -1 before */
	bool old;	/* it was opened as log.1 */
	char buf[2 * EVENT_LINE_MAX];
	size_t len;
};

void events_open(struct events_reader *reader, const struct vms *vms);
void events_close(struct events_reader *reader);

/* 1 and the next event, 0 when there is none (yet). */
int events_read(struct events_reader *reader, struct event *ret_event);

#endif /* LIFE_EVENTS_H */
